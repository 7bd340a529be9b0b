// Exchange tokens at our token service with openid-client. JSON in, JSON out.
import * as client from "openid-client";

let text = "";
for await (const chunk of process.stdin) text += chunk;
const given = JSON.parse(text);

const options = { algorithm: "oauth2", execute: [client.allowInsecureRequests] }; // loopback only
const auth = client.ClientSecretPost(given.client_secret);
const config = await client.discovery(new URL(given.issuer), given.client_id, undefined, auth, options);
const GRANT = "urn:ietf:params:oauth:grant-type:token-exchange";

async function exchanged(parameters, options) {
  try {
    return { granted: await client.genericGrantRequest(config, GRANT, new URLSearchParams(parameters), options) };
  } catch (error) {
    if (!(error instanceof client.ResponseBodyError)) throw error;
    return { error: error.error, description: error.error_description, status: error.status };
  }
}

const results = {};
for (const [name, parameters] of Object.entries(given.exchanges)) results[name] = await exchanged(parameters);
if (given.dpop) {
  const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair("ES256"));
  results.bound = await exchanged(given.exchanges.delegated, { DPoP }); // it retries with the nonce itself
}
const token = results.delegated.granted.access_token;
await client.tokenRevocation(config, token);
results.after = await client.tokenIntrospection(config, token);
process.stdout.write(JSON.stringify(results));
