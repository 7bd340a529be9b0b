// Serve oidc-provider with a token exchange (RFC 8693) and a JWT bearer grant, on a free port of the loopback.
//
// One line of JSON on standard input says who may do what, one on standard output where the server is. It ends when
// its standard input does.

import { createServer } from "node:http";
import { createInterface } from "node:readline";

import { createLocalJWKSet, jwtVerify } from "jose";
import Provider, { errors } from "oidc-provider";
import validateDpop from "oidc-provider/lib/helpers/validate_dpop.js";

const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";
const ID_JAG = "urn:ietf:params:oauth:token-type:id-jag";

const lines = createInterface({ input: process.stdin });
const given = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
process.stdin.on("end", () => process.exit(0)).resume();

const server = createServer();
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const issuer = `http://127.0.0.1:${server.address().port}`;
const known = createLocalJWKSet(given.trusted);

const provider = new Provider(issuer, {
  clients: given.clients.map((client) => ({
    grant_types: [EXCHANGE, BEARER],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: given.algorithm,
    ...client,
  })),
  clientAuthMethods: ["client_secret_basic", "client_secret_post", "private_key_jwt"],
  enabledJWA: {
    clientAuthSigningAlgValues: ["Ed25519", "EdDSA", "ES256", "RS256", "PS256"],
    dPoPSigningAlgValues: ["Ed25519", "EdDSA", "ES256", "RS256", "PS256"],
  },
  jwks: given.keys,
  scopes: given.scopes,
  ttl: { AccessToken: 120 },
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  extraTokenClaims: (ctx) => ctx.oidc.entities.Extra,
  features: {
    devInteractions: { enabled: false },
    dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => true },
  },
  formats: {
    customizers: {
      jwt: (ctx, token, parts) => {
        parts.payload.aud = ctx.oidc.entities.Targets;
        parts.header = { ...parts.header, ...(ctx.oidc.entities.Type ? { typ: ctx.oidc.entities.Type } : {}) };
      },
    },
  },
});

const list = (value) => (value === undefined ? [] : [value].flat());

async function issue(ctx, { subject, act, scopes, targets, extra = {}, type }) {
  const proof = await validateDpop(provider, ctx);
  ctx.oidc.entity("Targets", targets);
  ctx.oidc.entity("Extra", { ...extra, ...(act ? { act } : {}) });
  ctx.oidc.entity("Type", type);
  const token = new provider.AccessToken({ client: ctx.oidc.client, accountId: subject, scope: scopes.join(" ") });
  token.resourceServer = new provider.ResourceServer(targets[0], {
    scope: given.scopes.join(" "),
    accessTokenFormat: "jwt",
    accessTokenTTL: 120,
    jwt: { sign: { alg: given.algorithm } },
  });
  if (proof) token.setThumbprint("jkt", proof.thumbprint);
  const value = await token.save();
  return { access_token: value, token_type: token.tokenType, expires_in: 120, scope: scopes.join(" ") };
}

function narrowed(asked, ceiling) {
  const scopes = asked === undefined ? ceiling : asked.split(" ");
  if (!scopes.every((scope) => ceiling.includes(scope))) throw new errors.InvalidScope("wider than the subject's");
  return scopes;
}

async function exchange(ctx) {
  const asked = ctx.oidc.params;
  const { payload } = await jwtVerify(asked.subject_token, known, { audience: ctx.oidc.client.clientId }).catch(() => {
    throw new errors.InvalidRequest("subject token invalid");
  });
  const actor = { iss: issuer, sub: ctx.oidc.client.clientId, sub_profile: "ai_agent" };
  const jag = asked.requested_token_type === ID_JAG;
  const answer = await issue(ctx, {
    subject: payload.sub,
    act: payload.act ? { ...actor, act: payload.act } : actor,
    scopes: narrowed(asked.scope, (payload.scope ?? "").split(" ")),
    targets: [...list(asked.audience), ...(jag ? [] : list(asked.resource))],
    extra: jag ? { resource: list(asked.resource) } : {},
    type: jag ? "oauth-id-jag+jwt" : undefined,
  });
  ctx.body = { ...answer, ...(jag ? { token_type: "N_A" } : {}), issued_token_type: jag ? ID_JAG : ACCESS_TOKEN };
}

async function redeem(ctx) {
  const { payload } = await jwtVerify(ctx.oidc.params.assertion, known, { audience: issuer, typ: "oauth-id-jag+jwt" })
    .catch(() => { throw new errors.InvalidGrant("assertion invalid"); });
  if (payload.client_id !== ctx.oidc.client.clientId) throw new errors.InvalidGrant("another client's");
  ctx.body = await issue(ctx, {
    subject: payload.sub,
    act: payload.act,
    scopes: narrowed(ctx.oidc.params.scope, payload.scope.split(" ")),
    targets: list(payload.resource),
  });
}

provider.registerGrantType(
  EXCHANGE,
  exchange,
  ["subject_token", "subject_token_type", "actor_token", "actor_token_type", "resource", "audience", "scope",
    "requested_token_type"],
  ["resource", "audience"],
);
provider.registerGrantType(BEARER, redeem, ["assertion", "scope", "resource"], ["resource"]);
provider.on("server_error", (_, error) => process.stderr.write(`${error.stack}\n`));

server.on("request", provider.callback());
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
