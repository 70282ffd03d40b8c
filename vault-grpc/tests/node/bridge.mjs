// A SAML identity provider and its OpenID Connect bridge, for tests. Whoever signs in at the bridge is sent to the SAML
// side with an AuthnRequest; what comes back is verified by `@node-saml/node-saml` and becomes an RFC 9068 token.
//
//   node bridge.mjs NODE_MODULES
//
// First line of stdout: {"issuer": …}. Then one line of JSON for each line of stdin:
//   {"sub", "tenant", "roles", "class", "age", "cert", "attack"}
//       → {"access_token", "id_token"}, or {"refused": why} when the bridge did not believe the answer.
// `class` is the AuthnContextClassRef, `age` the seconds since AuthnInstant, `attack` a name from saml_provider.mjs or
// nothing. It ends with its stdin.

import { load, obey, open } from "./oidc.mjs";
import { ENTITY, answerTo, publicKey } from "./saml_provider.mjs";

const { SAML } = (await load("@node-saml/node-saml/lib/index.js")).default;

// How a person signed in, as `amr` says it (RFC 8176). What is not here signs nobody in.
const METHODS = {
  "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport": ["pwd"],
  "https://refeds.org/profile/mfa": ["pwd", "mfa"],
};
const BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer";

/// Sign-ins under way, by interaction: a verifier that knows the one request it has sent, and what it has verified. One
/// each, so that an answer to somebody else's request is an answer to none.
const pending = new Map();

const { issuer, token } = await open(signIn, consume);
const BRIDGE = `${issuer}/saml/metadata`;
const CONSUMER = `${issuer}/saml/acs`;

async function signIn(_, res, uid) {
  const done = pending.get(uid)?.person;
  if (done) {
    pending.delete(uid);
    return done;
  }
  const requests = new Map();
  const cacheProvider = {
    saveAsync: async (id, at) => requests.set(id, at) && { value: at, createdAt: Date.now() },
    getAsync: async (id) => requests.get(id) ?? null,
    removeAsync: async (id) => (requests.delete(id) ? id : null),
  };
  const saml = new SAML({
    issuer: BRIDGE,
    audience: BRIDGE,
    callbackUrl: CONSUMER,
    entryPoint: `${ENTITY}/sso`,
    idpCert: publicKey,
    wantAssertionsSigned: true,
    wantAuthnResponseSigned: false,
    validateInResponseTo: "always",
    requestIdExpirationPeriodMs: 300_000,
    acceptedClockSkewMs: 5_000,
    maxAssertionAgeMs: 300_000,
    signatureAlgorithm: "sha256",
    disableRequestedAuthnContext: true,
    cacheProvider,
  });
  const url = await saml.getAuthorizeUrlAsync(uid, undefined, {});
  pending.set(uid, { saml, request: [...requests.keys()][0] });
  res.writeHead(303, { location: url }).end();
}

/// The assertion consumer service.
async function consume(req, res) {
  let body = "";
  for await (const part of req) body += part;
  const form = new URLSearchParams(body);
  const uid = form.get("RelayState");
  const { saml, request, person } = pending.get(uid) ?? {};
  try {
    if (!saml || person) throw new Error("nobody is signing in here");
    const SAMLResponse = form.get("SAMLResponse") ?? "";
    // No document type, so no entities that two readers could expand differently.
    if (Buffer.from(SAMLResponse, "base64").includes("<!DOCTYPE")) throw new Error("a document type");
    const { profile } = await saml.validatePostResponseAsync({ SAMLResponse });
    pending.get(uid).person = personOf(profile, request);
    res.writeHead(303, { location: `/interaction/${uid}` }).end();
  } catch (error) {
    // One answer is one attempt.
    pending.delete(uid);
    res.writeHead(403).end(error.message);
  }
}

/// What the verified assertion says, and nothing from around it. The library checks signature, times and audience; that
/// these are there at all, and the rest, is checked here.
function personOf(profile, request) {
  const { Assertion: assertion } = profile.getAssertion();
  const one = (list, what) => {
    if (list?.length !== 1) throw new Error(`not one ${what}`);
    return list[0];
  };
  const must = (good, what) => {
    if (!good) throw new Error(what);
  };
  must(one(assertion.Issuer, "issuer")._ === ENTITY, "another issuer");
  const conditions = one(assertion.Conditions, "conditions");
  must(conditions.$?.NotOnOrAfter && conditions.AudienceRestriction, "no end or no audience");
  const subject = one(assertion.Subject, "subject");
  const confirmation = one(subject.SubjectConfirmation, "confirmation");
  must(confirmation.$.Method === BEARER, "another confirmation");
  const data = one(confirmation.SubjectConfirmationData, "confirmation data").$ ?? {};
  must(data.Recipient === CONSUMER, "another recipient");
  must(data.InResponseTo === request, "an answer to another request");
  must(data.NotOnOrAfter, "no end of the confirmation");
  const statement = one(assertion.AuthnStatement, "authentication");
  const acr = one(one(statement.AuthnContext, "context").AuthnContextClassRef, "class")._;
  const amr = Object.hasOwn(METHODS, acr) ? METHODS[acr] : undefined;
  must(amr, "an unknown class of authentication");
  // Of the sign-in, not of this exchange: otherwise an old sign-in looks fresh.
  const ts = Math.floor(Date.parse(statement.$.AuthnInstant) / 1000);
  must(Number.isSafeInteger(ts) && ts <= Date.now() / 1000 + 5, "no time of authentication");
  const values = (name) => {
    const all = assertion.AttributeStatement?.flatMap((each) => each.Attribute) ?? [];
    const named = all.filter((each) => each.$.Name === name);
    return one(named, name).AttributeValue.map((value) => value._);
  };
  return { sub: one(subject.NameID, "name")._, tenant: one(values("tenant"), "tenant"), roles: values("roles"), acr, amr, ts };
}

await obey(issuer, (wish) => token(wish.cert, (url) => answerTo(url, wish, { audience: BRIDGE, consumer: CONSUMER })));
