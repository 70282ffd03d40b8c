// An identity provider for tests: npm `oidc-provider`, on a free loopback port, with its own sign-in page taken out of
// the way. It signs people in as the test says, by the authorization code flow, and prints what they get.
//
//   node provider.mjs NODE_MODULES
//
// First line of stdout: {"issuer": …}. Then one line of JSON for each line of stdin:
//   {"do": "token", "sub", "tenant", "roles", "amr", "acr", "cert"}  → {"access_token", "id_token"}
//   {"do": "rotate"}                                                 → {"kid"}, a new key in the place of the old one
// It ends with its stdin.

import { createHash, generateKeyPairSync, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// What it says of itself goes where it does not mix with the answers.
console.info = console.error;
const { default: Provider } = await import(pathToFileURL(join(process.argv[2], "oidc-provider/lib/index.js")));

const AUDIENCE = "https://vault.example";
const CALLBACK = "https://web.example/callback";

// Whoever signs in next.
let person;
let keys = 0;
let provider;

const server = createServer((req, res) => {
  (req.url.startsWith("/interaction/") ? interact(req, res) : provider.callback()(req, res))?.catch?.(() => res.destroy());
});
await new Promise((up) => server.listen(0, "127.0.0.1", up));
const issuer = `http://127.0.0.1:${server.address().port}`;

function start() {
  keys += 1;
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const kid = `key-${keys}`;
  provider = new Provider(issuer, {
    jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), kid, alg: "ES256", use: "sig" }] },
    clients: [
      {
        client_id: "web",
        client_secret: "a secret of the test",
        redirect_uris: [CALLBACK],
        response_types: ["code"],
        grant_types: ["authorization_code"],
        id_token_signed_response_alg: "ES256",
        tls_client_certificate_bound_access_tokens: true,
      },
    ],
    cookies: { keys: ["a cookie key of the test"] },
    claims: { openid: ["sub"] },
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    // What the provider knows of the sign-in is in the code that is turned in for the token.
    extraTokenClaims: (ctx) => {
      const { amr, acr, authTime } = ctx.oidc.entities.AuthorizationCode;
      return { tenant: person.tenant, roles: person.roles, amr, acr, auth_time: authTime };
    },
    features: {
      devInteractions: { enabled: false },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        // As behind a proxy that ends TLS.
        getCertificate: (ctx) => Buffer.from(ctx.get("x-client-cert"), "base64").toString(),
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => AUDIENCE,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: "vault",
          audience: AUDIENCE,
          accessTokenTTL: 300,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  });
  return kid;
}

async function interact(req, res) {
  const { prompt, session, params } = await provider.interactionDetails(req, res);
  if (prompt.name === "login") {
    const login = { accountId: person.sub, amr: person.amr, acr: person.acr };
    return provider.interactionFinished(req, res, { login }, { mergeWithLastSubmission: false });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope("openid");
  grant.addResourceScope(AUDIENCE, "vault");
  const consent = { grantId: await grant.save() };
  return provider.interactionFinished(req, res, { consent }, { mergeWithLastSubmission: true });
}

async function token(wanted) {
  person = wanted;
  const verifier = randomBytes(32).toString("base64url");
  const query = new URLSearchParams({
    client_id: "web",
    response_type: "code",
    redirect_uri: CALLBACK,
    scope: "openid vault",
    resource: AUDIENCE,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
  });
  const jar = new Map();
  let next = `${issuer}/auth?${query}`;
  for (let hop = 0; hop < 10 && !next.startsWith(CALLBACK); hop += 1) {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await fetch(next, { redirect: "manual", headers: { cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) jar.set(name, value);
      else jar.delete(name);
    }
    const location = answer.headers.get("location");
    if (!location) throw new Error(`no redirect: ${answer.status} ${await answer.text()}`);
    next = new URL(location, next).href;
  }
  const code = new URL(next).searchParams.get("code");
  const answer = await fetch(`${issuer}/token`, {
    method: "POST",
    headers: {
      authorization: `Basic ${Buffer.from("web:a+secret+of+the+test").toString("base64")}`,
      "x-client-cert": Buffer.from(wanted.cert).toString("base64"),
    },
    body: new URLSearchParams({
      grant_type: "authorization_code",
      code,
      redirect_uri: CALLBACK,
      code_verifier: verifier,
      resource: AUDIENCE,
    }),
  });
  const got = await answer.json();
  if (!got.access_token) throw new Error(JSON.stringify(got));
  return { access_token: got.access_token, id_token: got.id_token };
}

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
start();
say({ issuer });
for await (const line of createInterface({ input: process.stdin })) {
  const wish = JSON.parse(line);
  try {
    say(wish.do === "rotate" ? { kid: start() } : await token(wish));
  } catch (error) {
    say({ error: String(error) });
  }
}
process.exit(0);
