// Sign tokens with jose, and verify others' with it. JSON in, JSON out.
import { SignJWT, createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from "jose";

let text = "";
for await (const chunk of process.stdin) text += chunk;
const given = JSON.parse(text);

async function signed({ algorithm, claims, typ }) {
  const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid: "of-jose", alg: algorithm, use: "sig" };
  const token = await new SignJWT(claims).setProtectedHeader({ alg: algorithm, kid: "of-jose", typ }).sign(privateKey);
  return { token, jwks: { keys: [jwk] } };
}

async function verified({ token, jwks, algorithm, typ }) {
  try {
    const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), { algorithms: [algorithm], typ });
    return { claims: payload };
  } catch (error) {
    return { refused: error.code };
  }
}

const results = { signed: [], verified: [] };
for (const one of given.sign ?? []) results.signed.push(await signed(one));
for (const one of given.verify ?? []) results.verified.push(await verified(one));
process.stdout.write(JSON.stringify(results));
