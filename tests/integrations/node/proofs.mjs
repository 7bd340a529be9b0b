// Make DPoP proofs with oauth4webapi, and check others' with oauth4webapi and jose. JSON in, JSON out.
import { EmbeddedJWK, calculateJwkThumbprint, decodeProtectedHeader, jwtVerify } from "jose";
import * as oauth from "oauth4webapi";

const jsonOf = async (stream) => {
  let text = "";
  for await (const chunk of stream) text += chunk;
  return JSON.parse(text);
};

// The headers that oauth4webapi sends with a request, once the server has answered an earlier one with a nonce.
async function made({ algorithm, method, uri, token, nonce }) {
  const keys = await oauth.generateKeyPair(algorithm, { extractable: true });
  const proving = oauth.DPoP({ client_id: "client" }, keys);
  let sent;
  const answer = async (_, { headers }) => {
    sent = headers;
    return new Response(null, { headers: nonce === null ? {} : { "dpop-nonce": nonce } });
  };
  for (let times = nonce === null ? 1 : 2; times > 0; times--) {
    await oauth.protectedResourceRequest(token, method, new URL(uri), new Headers(), null, {
      DPoP: proving,
      [oauth.customFetch]: answer,
    });
  }
  const { dpop: proof, authorization } = Object.fromEntries(Object.entries(sent));
  return { proof, authorization, thumbprint: await proving.calculateThumbprint() };
}

// What oauth4webapi, as a resource server, and jose make of a request with a token and a proof.
async function checked({ method, uri, token, proof, issuer, audience, jwks }) {
  const request = new Request(uri, { method, headers: { authorization: `DPoP ${token}`, dpop: proof } });
  const served = async () => new Response(JSON.stringify(jwks), { headers: { "content-type": "application/json" } });
  try {
    const server = { issuer, jwks_uri: `${issuer}/jwks` };
    const claims = await oauth.validateJwtAccessToken(server, request, audience, { [oauth.customFetch]: served });
    const { payload } = await jwtVerify(proof, EmbeddedJWK, { typ: "dpop+jwt" });
    const thumbprint = await calculateJwkThumbprint(decodeProtectedHeader(proof).jwk);
    return { subject: claims.sub, thumbprint, nonce: payload.nonce ?? null };
  } catch (error) {
    return { refused: error.message };
  }
}

const given = await jsonOf(process.stdin);
const results = { made: [], checked: [] };
for (const one of given.make ?? []) results.made.push(await made(one));
for (const one of given.check ?? []) results.checked.push(await checked(one));
process.stdout.write(JSON.stringify(results));
