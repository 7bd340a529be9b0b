// Exchange tokens at our token service with oauth4webapi, and verify them with jose. JSON in, JSON out.
import { createRemoteJWKSet, importPKCS8, jwtVerify } from "jose";
import * as oauth from "oauth4webapi";

let text = "";
for await (const chunk of process.stdin) text += chunk;
const given = JSON.parse(text);

const insecure = { [oauth.allowInsecureRequests]: true }; // loopback only
const issuer = new URL(given.issuer);
const found = await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...insecure });
const as = await oauth.processDiscoveryResponse(issuer, found);
const client = { client_id: given.client_id };
const basic = oauth.ClientSecretBasic(given.client_secret);
const keys = createRemoteJWKSet(new URL(as.jwks_uri));
const GRANT = "urn:ietf:params:oauth:grant-type:token-exchange";
const recognizedTokenTypes = { n_a: () => {} };

async function exchanged(parameters, { auth = basic, ...options } = {}) {
  const asked = () =>
    oauth
      .genericTokenEndpointRequest(as, client, auth, GRANT, new URLSearchParams(parameters), { ...insecure, ...options })
      .then((response) => oauth.processGenericTokenEndpointResponse(as, client, response, { recognizedTokenTypes }));
  try {
    return { granted: await asked() };
  } catch (error) {
    if (options.DPoP && oauth.isDPoPNonceError(error)) return { granted: await asked(), retried: true };
    if (!(error instanceof oauth.ResponseBodyError)) throw error;
    return { error: error.error, description: error.error_description, status: error.status };
  }
}

async function verified({ granted }, audience) {
  const { payload, protectedHeader } = await jwtVerify(granted.access_token, keys, { issuer: given.issuer, audience });
  return { payload, protectedHeader };
}

const results = {};
for (const [name, parameters] of Object.entries(given.exchanges)) {
  results[name] = await exchanged(parameters);
  if (results[name].granted) results[name].verified = await verified(results[name], given.audience);
}
if (given.dpop) {
  const pair = await oauth.generateKeyPair("ES256");
  results.bound = await exchanged(given.exchanges.delegated, { DPoP: oauth.DPoP(client, pair) });
  results.bound.verified = await verified(results.bound, given.audience);
}
if (given.pem) {
  const key = { key: await importPKCS8(given.pem, "ES256"), kid: given.key_id };
  results.keyed = await exchanged(given.exchanges.delegated, { auth: oauth.PrivateKeyJwt(key) });
}
if (given.server) {
  const server = { client_id: given.server.client_id };
  const auth = oauth.ClientSecretPost(given.server.client_secret);
  const token = results.delegated.granted.access_token;
  const asked = async () => {
    const response = await oauth.introspectionRequest(as, server, auth, token, insecure);
    return oauth.processIntrospectionResponse(as, server, response);
  };
  results.before = await asked();
  await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, basic, token, insecure));
  results.after = await asked();
}
process.stdout.write(JSON.stringify(results));
