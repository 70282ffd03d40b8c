"""Writes the seed corpora: envelopes and inputs from the committed vectors, certificates, tokens, key sets and IDs that
keep or break one rule each, texts, and bytes to make structured inputs of. Needs PyPI `cryptography`. Certificates get fresh keys, so their bytes differ from run to run.
"""

import base64
import datetime
import hashlib
import json
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = pathlib.Path(__file__).parent
VECTORS = json.loads((HERE / "../vault-core/tests/vectors/envelope_v1.json").read_text())
SPIFFE = "spiffe://prod.example/ns/shop/sa/billing"


def write(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def envelopes():
    """Headers, and bodies with their pairs as raw material for the structured targets."""
    tests = VECTORS["tests"]
    for test in tests[:1] + [t for t in tests if "sealed with" in t["reason"] or t["reason"].startswith("cut to")]:
        write("envelope_header", f"vector-{test['id']:03}", bytes.fromhex(test["envelope"]))
    for test in [t for t in tests if t["expected"] == "ok" and len(t["envelope"]) < 2000][:16]:
        pairs = "".join(key + value for key, value in test["context"]).encode()
        material = bytes.fromhex(test["nonce"]) + pairs + bytes.fromhex(test.get("plaintext", "")) + bytes(range(8))
        for target in ("open_mutated", "gcm_differential"):
            write(target, f"vector-{test['id']:03}", material)
        names = (test["tenant"] + test["dataset"] + (test["subject"] or "")).encode()
        write("context_injective", f"vector-{test['id']:03}", names + bytes([0, 0, 0, 1]) + pairs + bytes([1, 0, 1, 0]))


def certificate(key=None, sans=(x509.UniformResourceIdentifier(SPIFFE),), ca=None, usage=("digital_signature",), **more):
    """A self-signed certificate; what is signed by whom does not matter to the leaf's own rules."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(more.get("subject", [x509.NameAttribute(NameOID.COMMON_NAME, "billing")]))
    start = datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=90))
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), more.get("san_critical", False))
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), True)
    if usage is not None:
        names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign"
        flags = {flag: flag in usage for flag in f"{names} crl_sign encipher_only decipher_only".split()}
        builder = builder.add_extension(x509.KeyUsage(**flags), more.get("usage_critical", True))
    if "eku" in more:
        builder = builder.add_extension(x509.ExtendedKeyUsage(more["eku"]), False)
    if "unknown" in more:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
        builder = builder.add_extension(extension, more["unknown"])
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)


def certificates():
    uri = x509.UniformResourceIdentifier
    good = uri(SPIFFE)
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    email_name = [x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@b.example")]
    cases = {
        "good-p256": {},
        "good-ed25519": {"key": ed25519.Ed25519PrivateKey.generate()},
        "good-rsa": {"key": rsa.generate_private_key(65537, 2048)},
        "good-eku": {"eku": [server, client]},
        "good-not-ca": {"ca": False},
        "good-dns": {"sans": [x509.DNSName("billing.example"), good]},
        "good-empty-subject": {"subject": [], "san_critical": True},
        "good-unknown-not-critical": {"unknown": False},
        "bad-unknown-critical": {"unknown": True},
        "bad-empty-subject": {"subject": []},
        "bad-no-san": {"sans": ()},
        "bad-two-uris": {"sans": [good, uri("spiffe://prod.example/other")]},
        "bad-email": {"sans": [good, x509.RFC822Name("a@b.example")]},
        "bad-email-in-subject": {"subject": email_name},
        "bad-root": {"sans": [uri("spiffe://prod.example")]},
        "bad-scheme": {"sans": [uri("https://prod.example/x")]},
        "bad-dots": {"sans": [uri("spiffe://prod.example/a/../b")]},
        "bad-ca": {"ca": True},
        "bad-signs": {"usage": ("digital_signature", "key_cert_sign")},
        "bad-no-usage": {"usage": None},
        "bad-usage-not-critical": {"usage_critical": False},
        "bad-server-only": {"eku": [server]},
        "bad-weak": {"key": rsa.generate_private_key(65537, 1024)},
    }
    for name, case in cases.items():
        write("certificate_identity", name, certificate(**case))


def tokens():
    """Headers and claims that an issuer could be made to sign, a line break between them; and whole tokens."""
    now = 1780272000
    header = {"alg": "EdDSA", "typ": "at+jwt", "kid": "k"}
    claims = {
        "iss": "https://id.example", "aud": "vault", "sub": "ann", "tenant": "acme", "jti": "t", "iat": now,
        "exp": now + 300, "auth_time": now - 60, "amr": ["pwd", "mfa"], "acr": "high", "roles": ["clerk"],
    }
    cases = {
        "good": ({}, {}),
        "good-audiences": ({}, {"aud": ["other", "vault"]}),
        "good-application": ({"typ": "application/at+jwt"}, {"nbf": now}),
        "bad-none": ({"alg": "none"}, {}),
        "bad-hs256": ({"alg": "HS256"}, {}),
        "bad-kid": ({"kid": "../k"}, {}),
        "bad-crit": ({"crit": ["exp"]}, {}),
        "bad-jwk": ({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}}, {}),
        "bad-type": ({"typ": "JWT"}, {}),
        "bad-expired": ({}, {"exp": now - 60}),
        "bad-expiry": ({}, {"exp": str(now + 300)}),
        "bad-audience": ({}, {"aud": "other"}),
        "bad-issuer": ({}, {"iss": "https://id.example/"}),
        "bad-tenant": ({}, {"tenant": "Acme"}),
        "bad-confirmation": ({}, {"cnf": {"x5t#S256": "A" * 43}}),
        "bad-roles": ({}, {"roles": ["clerk", 7]}),
    }
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([7] * 32))
    b64 = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    for name, (head, body) in cases.items():
        head, body = (json.dumps(part).encode() for part in (header | head, claims | body))
        write("end_user_token", name, head + b"\n" + body)
        signed = b64(head) + b"." + b64(body)
        write("end_user_token", f"token-{name}", signed + b"." + b64(key.sign(signed)))
    twice = json.dumps(claims)[:-1] + ', "tenant": "globex"}'
    write("end_user_token", "bad-twice", json.dumps(header).encode() + b"\n" + twice.encode())


def streams():
    """Lengths about the borders of chunks, with some bytes behind to make changes of."""
    for length in (0, 1, 100, 16_383, 16_384, 16_385, 40_000, 65_536):
        for kind in range(6):
            change = bytes([kind * 43, 0, 0, 0, length % 251, 7, 1, 0, 0, 0])
            write("stream", f"length-{length}-{kind}", length.to_bytes(4, "little") + bytes(range(12)) + change * 3)


def notes_and_texts():
    """For targets whose input begins with a choice of its kind: the first kind is a text."""
    first = bytes(4)
    registry = '[[workload]]\nid = "spiffe://prod.example/{}"\nservice = "s"\nenvironment = "e"\n{}roles = ["reader"]\n'
    for name, path, tenants in [
        ("listed", "a/b", 'tenants = ["acme"]\n'), ("bound", "{tenant}/b", ""), ("wild", "*/b", 'tenants = ["acme"]\n'),
        ("operator", "operator/b", 'tenants = ["acme"]\n'), ("both", "{tenant}", 'tenants = ["acme"]\n'),
    ]:
        write("registry", name, first + registry.format(path, tenants).encode())
    write("registry", "overlap", first + (registry.format("a/*", 'tenants = ["acme"]\n') * 2).encode())
    baseline = (HERE / "../policies/baseline.cedar").read_text()
    for number, policy in enumerate(baseline.split("@id(")[1:]):
        write("policy_set", f"baseline-{number:02}", first + ("@id(" + policy).encode())
    config = (HERE / "data/vault.toml").read_text()
    write("config", "good", first + config.encode())
    more = {
        "limits": "[limits]\nstreams = 1\n", "hardening": "[hardening]\nseccomp = \"required\"\n",
        "lifecycle": "[lifecycle]\napproval_hours = 24\n", "metrics": '[metrics]\naddress = "127.0.0.1:9464"\n',
        "issuer": '[[end_users.issuer]]\nissuer = "https://id.example"\naudience = "vault"\nkeys = "k.json"\n',
    }
    for name, text in more.items():
        write("config", name, first + (config + text).encode())
    log = "example/log\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\u2014 example/log AAAAAAAA\n"
    write("signed_note", "text", first + log.encode())
    receipt = ["blindvault erasure receipt v1", "instance: shop-1", "approval: " + "07" * 16, "tenant: acme", "subject: all"]
    write("erasure_receipt", "text", "\n".join(receipt).encode())


def ids():
    cases = ["prod.example", "prod.example/a", "prod.example/ns/shop/sa/billing", "Prod.example/a", "prod.example/", "/a",
             "prod.example/a/../b", "prod.example/a//b", "prod.example/%61", "prod.example:1/a", "a@prod.example/b",
             "prod.example/a?b", "prod.example/a#b", "prod.example/.a", "prod.example/..."]
    for number, case in enumerate(cases):
        write("spiffe_id", f"id-{number:02}", b"spiffe://" + case.encode())
    write("spiffe_id", "https", b"https://prod.example/a")


def key_sets():
    key = {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "$x"}
    cases = {
        "good": [key], "use": [key | {"use": "sig", "alg": "EdDSA", "key_ops": ["verify"]}], "none": [],
        "other-use": [key | {"use": "enc"}], "other-alg": [key | {"alg": "ES256"}], "other-kid": [key | {"kid": "K"}],
        "private": [key | {"d": "AAAA"}], "twice": [key, key], "rsa": [{"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"}],
        "p256": [{"kty": "EC", "crv": "P-256", "kid": "p", "x": "A" * 43, "y": "A" * 43}, key], "no-kid": [{"kty": "OKP"}],
    }
    for name, keys in cases.items():
        write("issuer_keys", name, json.dumps({"keys": keys}).encode())


def material():
    """Bytes to make structured inputs of: the same ones each time, of several lengths and kinds."""
    targets = """audit_entry audit_proofs backup_file config convert erasure_receipt policy_bundle policy_set registry
        signed_note store_rows stored_row vault_model wrapped_key xaes_differential"""
    for target in targets.split():
        for number, length in enumerate((16, 48, 96, 160, 256, 400, 700, 1000)):
            stream = b"".join(hashlib.sha256(f"{target} {number} {block}".encode()).digest() for block in range(32))
            write(target, f"material-{number}", stream[:length])
        write(target, "zeros", bytes(64))


envelopes()
certificates()
tokens()
streams()
notes_and_texts()
ids()
key_sets()
material()
