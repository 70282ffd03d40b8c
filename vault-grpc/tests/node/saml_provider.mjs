// The SAML side of the bridge's test: an identity provider that signs assertions with `xml-crypto`, and what attackers
// make of them on the way through the browser.

import { createPublicKey, generateKeyPairSync, randomBytes } from "node:crypto";
import { inflateRawSync } from "node:zlib";

import { load } from "./oidc.mjs";

const { SignedXml } = (await load("xml-crypto/lib/index.js")).default;

/// The provider's name.
export const ENTITY = "https://saml.example";

const pair = () => generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ type: "pkcs8", format: "pem" });
const KEY = pair();
/// What its signatures are verified with.
export const publicKey = createPublicKey(KEY).export({ type: "spki", format: "pem" });
const FOREIGN = pair();

const DSIG = "http://www.w3.org/2000/09/xmldsig#";
const EXC = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion";
const PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol";

const id = () => `_${randomBytes(16).toString("hex")}`;
const at = (seconds) => new Date(Date.now() + seconds * 1000).toISOString();

/// Puts the signature behind the issuer of the element `name`.
function sign(xml, name, key = KEY, hmac = false) {
  const sig = new SignedXml({
    privateKey: key,
    signatureAlgorithm: hmac ? `${DSIG}hmac-sha1` : "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
    canonicalizationAlgorithm: EXC,
  });
  if (hmac) sig.enableHMAC();
  sig.addReference({
    xpath: `//*[local-name(.)='${name}']`,
    digestAlgorithm: "http://www.w3.org/2001/04/xmlenc#sha256",
    transforms: [`${DSIG}enveloped-signature`, EXC],
  });
  const reference = `//*[local-name(.)='${name}']/*[local-name(.)='Issuer']`;
  sig.computeSignature(xml, { location: { reference, action: "after" } });
  return sig.getSignedXml();
}

function assertion(wish, to) {
  const values = (name, all) =>
    `<saml:Attribute Name="${name}">${all.map((v) => `<saml:AttributeValue>${v}</saml:AttributeValue>`).join("")}</saml:Attribute>`;
  const answers = to.request ? ` InResponseTo="${to.request}"` : "";
  const ends = to.ends === null ? "" : ` NotOnOrAfter="${at(to.ends ?? 120)}"`;
  const audience = to.audience
    ? `<saml:AudienceRestriction><saml:Audience>${to.audience}</saml:Audience></saml:AudienceRestriction>`
    : "";
  return (
    `<saml:Assertion xmlns:saml="${ASSERTION}" ID="${id()}" Version="2.0" IssueInstant="${at(to.issued ?? 0)}">` +
    `<saml:Issuer>${to.entity ?? ENTITY}</saml:Issuer><saml:Subject><saml:NameID>${wish.sub}</saml:NameID>` +
    `<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">` +
    `<saml:SubjectConfirmationData Recipient="${to.consumer}"${ends}${answers}/></saml:SubjectConfirmation></saml:Subject>` +
    `<saml:Conditions NotBefore="${at(to.begins ?? -60)}"${ends}>${audience}</saml:Conditions>` +
    `<saml:AuthnStatement AuthnInstant="${at(-wish.age)}"><saml:AuthnContext>` +
    `<saml:AuthnContextClassRef>${wish.class}</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>` +
    `<saml:AttributeStatement>${values("tenant", [wish.tenant])}${values("roles", wish.roles)}</saml:AttributeStatement>` +
    `</saml:Assertion>`
  );
}

const response = (inner, to) =>
  `<samlp:Response xmlns:samlp="${PROTOCOL}" ID="${id()}" Version="2.0" IssueInstant="${at(0)}" Destination="${to.consumer}"` +
  `${to.request ? ` InResponseTo="${to.request}"` : ""}><saml:Issuer xmlns:saml="${ASSERTION}">${ENTITY}</saml:Issuer>` +
  `<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>${inner}</samlp:Response>`;

const SIGNATURE = /<(?:ds:)?Signature[ >].*<\/(?:ds:)?Signature>/s;
/// The parts of a signed assertion, and a copy without signature that names the attacker.
function parts(signed) {
  const [signature] = SIGNATURE.exec(signed);
  const bare = signed.replace(SIGNATURE, "");
  const forged = bare.replace(/ ID="[^"]*"/, ` ID="${id()}"`).replace(/(<saml:NameID>)[^<]*/, "$1eve.of.acme");
  const within = (outer, inner) => outer.replace("</saml:Assertion>", `${inner}</saml:Assertion>`);
  const behindIssuer = (outer, inner) => outer.replace("</saml:Issuer>", `</saml:Issuer>${inner}`);
  return { signature, bare, forged, within, behindIssuer };
}

// The last answer that was posted unharmed, for those who keep a copy.
let kept;

/// What attackers do: `wish` and `to` before the provider signs, or the signed assertion before it is posted.
const ATTACKS = {
  unsigned: { post: (signed) => signed.replace(SIGNATURE, "") },
  tampered: { post: (signed) => signed.replace(/(<saml:NameID>)[^<]*/, "$1eve.of.acme") },
  tampered_tenant: { post: (signed) => signed.replace(/>acme</, ">globex<") },
  tampered_digest: {
    // A comment in the digest: a reader that takes the first text node reads the attacker's (CVE-2025-29775).
    post: (signed) => signed.replace(/(<saml:NameID>)[^<]*/, "$1eve.of.acme").replace(/<DigestValue>/, "$&<!--AAAA-->"),
  },
  // A second SignedInfo, for a reader that verifies one and reads the other (CVE-2025-29774).
  two_signed_infos: { post: (signed) => signed.replace(/(<Signature [^>]*>)(<SignedInfo>.*<\/SignedInfo>)/s, "$1$2$2") },
  foreign_key: { key: FOREIGN },
  // The public key as the secret of an HMAC.
  confused: { key: publicKey, hmac: true },
  // Signature wrapping (Somorovsky et al., 2012): the signature stays valid, and something else is to be read.
  wrapped_before: { post: (signed) => parts(signed).forged + signed },
  wrapped_behind: { post: (signed) => signed + parts(signed).forged },
  wrapped_inside: { post: (signed) => parts(signed).within(parts(signed).forged, signed) },
  wrapped_moved: {
    post: (signed) => {
      const { signature, bare, forged, behindIssuer } = parts(signed);
      return behindIssuer(forged, signature) + bare;
    },
  },
  wrapped_in_signature: {
    post: (signed) => {
      const { signature, bare, forged, behindIssuer } = parts(signed);
      const object = `<Object xmlns="${DSIG}">${bare}</Object></`;
      return behindIssuer(forged, signature.replace(/<\/((?:ds:)?Signature)>$/, `${object}$1>`));
    },
  },
  wrapped_in_extensions: {
    post: (signed) => {
      const { signature, bare, forged, behindIssuer } = parts(signed);
      return `<samlp:Extensions>${bare}</samlp:Extensions>${behindIssuer(forged, signature)}`;
    },
  },
  same_id: {
    post: (signed) => {
      const { signature, forged, behindIssuer } = parts(signed);
      const [, same] = / ID="([^"]*)"/.exec(signed);
      return `<samlp:Extensions>${signed}</samlp:Extensions>${behindIssuer(forged.replace(/ ID="[^"]*"/, ` ID="${same}"`), signature)}`;
    },
  },
  // A comment within a name that the provider gave to eve: canonicalization drops it, so the signature holds.
  commented: { wish: { sub: "ann.of.acme.eve" }, post: (signed) => signed.replace("ann.of.acme.eve", "ann.of.acme<!---->.eve") },
  // The provider itself, for somebody or something else.
  audience: { to: { audience: "https://other.example" } },
  no_audience: { to: { audience: null } },
  recipient: { to: { consumer: "https://other.example/saml/acs" } },
  expired: { to: { begins: -300, ends: -60 } },
  endless: { to: { ends: null } },
  too_old: { to: { issued: -3600, begins: -3600 } },
  not_yet: { to: { begins: 60 } },
  another_entity: { to: { entity: "https://other.example" } },
  unknown_class: { wish: { class: "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified" } },
  unasked: { to: { request: null } },
  another_request: { to: { request: "_0123456789abcdef0123456789abcdef" } },
  // The assertion of before; as it was, and in an answer that claims to be for this request.
  replayed: { form: () => kept.SAMLResponse },
  replayed_anew: { form: (to) => encode(response(kept.signed, to)) },
  entities: { form: (to, signed) => encode(`<!DOCTYPE a [<!ENTITY e "eve">]>${response(signed, to)}`) },
  no_answer: { form: (to) => encode(response("", to)) },
  no_xml: { form: () => "PHNhbWw+" },
};

const encode = (xml) => Buffer.from(xml).toString("base64");

/// What the provider's page posts for a request that the browser brought.
export function answerTo(url, wish, bridge) {
  const query = new URL(url).searchParams;
  const asked = inflateRawSync(Buffer.from(query.get("SAMLRequest"), "base64")).toString();
  const [, request] = / ID="([^"]+)"/.exec(asked);
  const [, consumer] = /AssertionConsumerServiceURL="([^"]+)"/.exec(asked);
  if (consumer !== bridge.consumer) throw new Error("a request for another consumer");
  const attack = wish.attack ? ATTACKS[wish.attack] : {};
  if (!attack) throw new Error(`no such attack: ${wish.attack}`);
  const to = { request, ...bridge };
  const signed = sign(assertion({ ...wish, ...attack.wish }, { ...to, ...attack.to }), "Assertion", attack.key, attack.hmac);
  const SAMLResponse = attack.form?.(to, signed) ?? encode(response(attack.post?.(signed) ?? signed, to));
  if (!wish.attack) kept = { SAMLResponse, signed };
  return { url: consumer, form: { SAMLResponse, RelayState: query.get("RelayState") } };
}
