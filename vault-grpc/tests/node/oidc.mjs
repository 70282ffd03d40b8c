// npm `oidc-provider` for tests: on a free loopback port, with its own sign-in page taken out of the way, and a browser
// that goes through the authorization code flow.

import { createHash, generateKeyPairSync, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// What the packages say of themselves goes where it does not mix with the answers.
console.info = console.error;
const modules = process.argv[2];

/// A module below the directory `node_modules` that the test names.
export const load = (path) => import(pathToFileURL(join(modules, path)));
const { default: Provider } = await load("oidc-provider/lib/index.js");

const AUDIENCE = "https://vault.example";
const CALLBACK = "https://web.example/callback";

/// Opens a provider. `signIn(req, res, uid)` is asked whenever somebody has to sign in: it gives
/// `{ sub, tenant, roles, amr, acr, ts }`, or nothing after answering by itself. `other(req, res)` answers what is below
/// `/saml/`.
export async function open(signIn, other) {
  // What is known of those who have signed in.
  const people = new Map();
  let keys = 0;
  let provider;

  const answer = (req, res) => {
    if (req.url.startsWith("/interaction/")) return interact(req, res);
    if (req.url.startsWith("/saml/")) return other(req, res);
    return provider.callback()(req, res);
  };
  const server = createServer((req, res) => answer(req, res)?.catch?.(() => res.destroy()));
  await new Promise((up) => server.listen(0, "127.0.0.1", up));
  const issuer = `http://127.0.0.1:${server.address().port}`;

  function rotate() {
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
        const { accountId, amr, acr, authTime } = ctx.oidc.entities.AuthorizationCode;
        return { ...people.get(accountId), amr, acr, auth_time: authTime };
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
    return { kid };
  }

  async function interact(req, res) {
    const { prompt, session, params, uid } = await provider.interactionDetails(req, res);
    if (prompt.name === "login") {
      const person = await signIn(req, res, uid);
      if (!person) return;
      const { sub, tenant, roles, amr, acr, ts } = person;
      people.set(sub, { tenant, roles });
      const login = { accountId: sub, amr, acr, ts };
      return provider.interactionFinished(req, res, { login }, { mergeWithLastSubmission: false });
    }
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope("openid");
    grant.addResourceScope(AUDIENCE, "vault");
    const consent = { grantId: await grant.save() };
    return provider.interactionFinished(req, res, { consent }, { mergeWithLastSubmission: true });
  }

  /// Signs in with a browser that has no cookies yet, for the workload with a certificate. `elsewhere(url)` stands for
  /// another host that the browser is sent to, and gives the form that its page posts.
  async function token(cert, elsewhere) {
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
    let next = { url: `${issuer}/auth?${query}` };
    for (let hop = 0; hop < 10 && !next.url.startsWith(CALLBACK); hop += 1) {
      if (!next.url.startsWith(issuer)) {
        next = await elsewhere(next.url);
        continue;
      }
      const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
      const sent = next.form ? { method: "POST", body: new URLSearchParams(next.form) } : {};
      const got = await fetch(next.url, { redirect: "manual", headers: { cookie }, ...sent });
      for (const line of got.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
        if (value) jar.set(name, value);
        else jar.delete(name);
      }
      if (got.status === 403) return { refused: await got.text() };
      const location = got.headers.get("location");
      if (!location) throw new Error(`no redirect: ${got.status} ${await got.text()}`);
      next = { url: new URL(location, next.url).href };
    }
    const code = new URL(next.url).searchParams.get("code");
    const got = await fetch(`${issuer}/token`, {
      method: "POST",
      headers: {
        authorization: `Basic ${Buffer.from("web:a+secret+of+the+test").toString("base64")}`,
        "x-client-cert": Buffer.from(cert).toString("base64"),
      },
      body: new URLSearchParams({
        grant_type: "authorization_code",
        code,
        redirect_uri: CALLBACK,
        code_verifier: verifier,
        resource: AUDIENCE,
      }),
    });
    const { access_token, id_token, ...rest } = await got.json();
    if (!access_token) throw new Error(JSON.stringify(rest));
    return { access_token, id_token };
  }

  rotate();
  return { issuer, rotate, token };
}

/// Says the issuer, then answers each line of stdin; ends with it.
export async function obey(issuer, answer) {
  const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
  say({ issuer });
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      say(await answer(JSON.parse(line)));
    } catch (error) {
      say({ error: String(error) });
    }
  }
  process.exit(0);
}
