"""Reference implementation of the Blindvault envelope, docs/format.md, made without sight of the Rust one.

It exists to disagree with the Rust implementation if either strays from the specification. It is a test
instrument: it keeps keys in ordinary memory and, unlike the vault, lets its caller fix the nonce.
Section numbers (§) are those of docs/format.md.

    python3 blindvault_format.py seal|open|wrap|unwrap   JSON objects, one a line, stdin to stdout
    python3 blindvault_format.py check FILE...           verify vector files; exit 1 if any case fails
    python3 blindvault_format.py generate DIR            write the generated vector files anew
"""

import hmac
import json
import os
import re
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

SUITE_RECORD = 0x01
HEADER_LEN, NONCE_LEN, COMMITMENT_LEN, TAG_LEN = 22, 24, 32, 16
OVERHEAD = HEADER_LEN + NONCE_LEN + COMMITMENT_LEN + TAG_LEN
MAX_PLAINTEXT = 1_048_576
MAX_CONTEXT = 8_192
WRAPPED_LEN = 105


class Unopenable(Exception):
    """The one opaque failure of opening and unwrapping (§8.3)."""

    code = "unopenable"


class InvalidContext(Exception):
    """The caller's encryption context breaks §6.2."""

    code = "invalid_context"


class InvalidIdentifier(Exception):
    """The caller's tenant, dataset, subject, key id or key version breaks §2."""

    code = "invalid_identifier"


class InvalidPlaintext(Exception):
    """The caller's plaintext is longer than §9 allows."""

    code = "invalid_plaintext"


# --- §2 identifiers and encodings ---


def lp(data):
    """LP(x): a 2-byte big-endian length, then the bytes (§1.2)."""
    return struct.pack(">H", len(data)) + data


def name(text):
    """A tenant or dataset (§2.1), as bytes."""
    if not isinstance(text, str) or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", text):
        raise InvalidIdentifier
    return text.encode("ascii")


def subject_bytes(text):
    """A subject (§2.2), as bytes; None, the absent subject, is the empty string of bytes."""
    if text is None:
        return b""
    if not isinstance(text, str) or not re.fullmatch(r"[\x21-\x7e]{1,256}", text):
        raise InvalidIdentifier
    return text.encode("ascii")


def version_bytes(version):
    """A key version (§2.4) as a 4-byte integer."""
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= 0xFFFF_FFFF:
        raise InvalidIdentifier
    return struct.pack(">I", version)


def key_id_bytes(key_id):
    """A key id (§2.3): any 16 bytes."""
    if len(key_id) != 16:
        raise InvalidIdentifier
    return key_id


# --- §4, §5 keys and KC-XAES-256-GCM ---


def aes_block(key, block):
    """The AES-256 block function (FIPS 197)."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def expand(key, info):
    """HKDF-Expand with SHA-256 to 32 bytes (RFC 5869 section 2.3)."""
    return HKDFExpand(algorithm=hashes.SHA256(), length=32, info=info).derive(key)


def suite_key(data_key, suite=SUITE_RECORD):
    """The suite key K (§4)."""
    return expand(data_key, b"blindvault/suite/v1\x00" + bytes([suite]))


def cmac_subkey(key):
    """K1 of AES-CMAC (§5.1)."""
    left = int.from_bytes(aes_block(key, bytes(16)), "big")
    doubled = (left << 1) & ((1 << 128) - 1)
    if left >> 127:
        doubled ^= 0x87
    return doubled.to_bytes(16, "big")


def derived_key(key, nonce):
    """The record key Kx (§5.2)."""
    k1 = cmac_subkey(key)
    return b"".join(aes_block(key, xor(b"\x00" + bytes([i]) + b"\x58\x00" + nonce[:12], k1)) for i in (1, 2))


def commitment(key, nonce):
    """The key commitment C (§5.3)."""
    k1 = cmac_subkey(key)
    x = aes_block(key, b"XCMT" + nonce[:12])
    last = (nonce[12:] + b"\x00\x01\x00" + bytes([i]) for i in (1, 2))
    return b"".join(aes_block(key, xor(xor(x, k1), block)) for block in last)


def kc_seal(key, nonce, aad, plaintext):
    """N ‖ C ‖ ciphertext ‖ tag (§5.4)."""
    body = AESGCM(derived_key(key, nonce)).encrypt(nonce[12:], plaintext, aad)
    return nonce + commitment(key, nonce) + body


def kc_open(key, sealed, aad):
    """The inverse of kc_seal: the commitment first, in constant time, then the tag (§5.5)."""
    nonce, claimed, body = sealed[:24], sealed[24:56], sealed[56:]
    if not hmac.compare_digest(commitment(key, nonce), claimed):
        raise Unopenable
    try:
        return AESGCM(derived_key(key, nonce)).decrypt(nonce[12:], body, aad)
    except InvalidTag:
        raise Unopenable from None


# --- §3, §6 header and canonical context ---


def header(key_id, suite=SUITE_RECORD):
    """H (§3)."""
    return b"BLV\x01" + bytes([suite, 0x00]) + key_id_bytes(key_id)


def pair_bytes(context):
    """The pairs of §6.2: refused unless keys strictly ascend by their UTF-8 bytes."""
    try:
        pairs = [(k.encode("utf-8"), v.encode("utf-8")) for k, v in context]
    except (AttributeError, TypeError, ValueError):
        raise InvalidContext from None
    if any(a[0] >= b[0] for a, b in zip(pairs, pairs[1:])):
        raise InvalidContext
    if len(pairs) > 0xFFFF or any(len(part) > 0xFFFF for pair in pairs for part in pair):
        raise InvalidContext
    return struct.pack(">H", len(pairs)) + b"".join(lp(k) + lp(v) for k, v in pairs)


def canonical_context(head, tenant, dataset, subject, key_version, context):
    """A (§6.1)."""
    a = b"blindvault/ctx/v1\x00" + head + lp(name(tenant)) + lp(name(dataset)) + lp(subject_bytes(subject))
    a += version_bytes(key_version) + pair_bytes(context)
    if len(a) > MAX_CONTEXT:
        raise InvalidContext
    return a


# --- §7, §8 sealing and opening ---


def seal(data_key, key_id, key_version, tenant, dataset, subject, context, plaintext, nonce=None):
    """An envelope of suite 0x01 (§7)."""
    head = header(key_id)
    aad = canonical_context(head, tenant, dataset, subject, key_version, context)
    if len(plaintext) > MAX_PLAINTEXT:
        raise InvalidPlaintext
    nonce = os.urandom(NONCE_LEN) if nonce is None else nonce
    return head + kc_seal(suite_key(data_key), nonce, aad, plaintext)


def open_envelope(envelope, data_key, key_id, key_version, tenant, dataset, subject, context):
    """The plaintext of an envelope of suite 0x01 (§8). The caller's own inputs are judged first."""
    expected = header(key_id)
    aad = canonical_context(expected, tenant, dataset, subject, key_version, context)
    if not OVERHEAD <= len(envelope) <= OVERHEAD + MAX_PLAINTEXT:
        raise Unopenable
    # Equality with the expected header covers magic, version, suite, flags and key id at once.
    if envelope[:HEADER_LEN] != expected:
        raise Unopenable
    return kc_open(suite_key(data_key), envelope[HEADER_LEN:], aad)


# --- §10 wrapped data keys ---


def wrap_inputs(tenant_key, tenant_key_version, tenant, dataset, subject, key_id, key_version):
    """The wrapping key and AAD of a wrapped data key (§10.2, §10.3)."""
    tenant_lp, root_version = lp(name(tenant)), version_bytes(tenant_key_version)
    key = expand(tenant_key, b"blindvault/wrap/v1\x00" + tenant_lp + root_version)
    aad = b"blindvault/wrapaad/v1\x00" + tenant_lp + lp(name(dataset)) + lp(subject_bytes(subject))
    return key, aad + key_id_bytes(key_id) + version_bytes(key_version) + root_version


def wrap(data_key, nonce=None, **row):
    """A data key as its row keeps it, 105 bytes (§10.1)."""
    if len(data_key) != 32:
        raise InvalidPlaintext
    key, aad = wrap_inputs(**row)
    return b"\x01" + kc_seal(key, os.urandom(NONCE_LEN) if nonce is None else nonce, aad, data_key)


def unwrap(wrapped, **row):
    """The data key of a row (§10.4)."""
    key, aad = wrap_inputs(**row)
    if len(wrapped) != WRAPPED_LEN or wrapped[0] != 0x01:
        raise Unopenable
    return kc_open(key, wrapped[1:], aad)


# --- JSON requests: byte strings are hex, text is text ---


def _fields(request, texts, byte_fields):
    out = {field: request[field] for field in texts}
    out.update({field: bytes.fromhex(request[field]) for field in byte_fields})
    return out


def _record(request):
    return _fields(request, ("key_version", "tenant", "dataset", "subject", "context"), ("data_key", "key_id"))


def _row(request):
    texts = ("tenant_key_version", "tenant", "dataset", "subject", "key_version")
    return _fields(request, texts, ("tenant_key", "key_id"))


def _nonce(request):
    return None if request.get("nonce") is None else bytes.fromhex(request["nonce"])


COMMANDS = {
    "seal": lambda r: {
        "envelope": seal(plaintext=bytes.fromhex(r["plaintext"]), nonce=_nonce(r), **_record(r)).hex()
    },
    "open": lambda r: {"plaintext": open_envelope(bytes.fromhex(r["envelope"]), **_record(r)).hex()},
    "wrap": lambda r: {"wrapped": wrap(bytes.fromhex(r["data_key"]), nonce=_nonce(r), **_row(r)).hex()},
    "unwrap": lambda r: {"data_key": unwrap(bytes.fromhex(r["wrapped"]), **_row(r)).hex()},
}


def answer(command, request):
    """The reply to one request: the result, or an error code and nothing else."""
    try:
        return COMMANDS[command](request)
    except (Unopenable, InvalidContext, InvalidIdentifier, InvalidPlaintext) as refused:
        return {"error": refused.code}


def main(arguments):
    if len(arguments) == 1 and arguments[0] in COMMANDS:
        for line in sys.stdin:
            if line.strip():
                try:
                    reply = answer(arguments[0], json.loads(line))
                except (KeyError, TypeError, ValueError):
                    reply = {"error": "invalid_request"}
                print(json.dumps(reply), flush=True)
        return 0
    # Imported here because both build on this module.
    if len(arguments) >= 2 and arguments[0] == "check":
        import blindvault_check

        return blindvault_check.check_files(arguments[1:])
    if len(arguments) == 2 and arguments[0] == "generate":
        import blindvault_generate

        return blindvault_generate.generate(arguments[1])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
