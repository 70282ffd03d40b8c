"""Blindvault envelope v1, stream and wrapped data key: a second decoder (and sealer).

This module was written from docs/format.md alone, without sight of any other
implementation; the section numbers in the comments are those of that page.

    python3 blindvault_decoder.py seal|open|seal_stream|open_stream|wrap|unwrap

reads one JSON object a line on stdin and writes one JSON reply a line on
stdout. Byte strings are lower-case hex. A failure is {"error": code}; the codes
are the constants below. It is meant for tests: it takes a nonce from the caller,
which a real sealer never does (7-3).
"""

import hmac
import json
import os
import re
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

UNOPENABLE = "unopenable"                  # 8.3: every failure of opening or unwrapping
INVALID_CONTEXT = "invalid_context"        # 6
INVALID_IDENTIFIER = "invalid_identifier"  # 2
INVALID_PLAINTEXT = "invalid_plaintext"    # 7-2; a data key to wrap that is not 32 bytes
INVALID_REQUEST = "invalid_request"        # the JSON itself: not of the format, of this program

# 3: magic, version, suite and flags are constants of this version.
MAGIC, VERSION, FLAGS = b"BLV", 0x01, 0x00
RECORD, STREAM = 0x01, 0x02                # 14
HEADER_LEN = 22
WRAP_FORMAT = b"\x01"                      # 10.1

NONCE_LEN, COMMIT_LEN, TAG_LEN, KEY_LEN, KEY_ID_LEN = 24, 32, 16, 32, 16
MAX_PLAINTEXT = 1_048_576                  # 9
MAX_A = 8_192                              # 6.1-1
OVERHEAD = HEADER_LEN + NONCE_LEN + COMMIT_LEN + TAG_LEN  # 94
WRAPPED_LEN = 105                          # 10.1
SALT_LEN, CHUNK = 24, 16_384               # 17.1, 17.3
STREAM_FRONT = HEADER_LEN + SALT_LEN + COMMIT_LEN  # 78
MAX_CHUNKS = 1 << 38                       # 17.3


class Failure(Exception):
    """A failure; its argument is one of the codes above, with no detail (8.3-1)."""


# --- 1.2 Notation ----------------------------------------------------------

u16 = struct.Struct(">H").pack
u32 = struct.Struct(">I").pack


def lp(x):
    """LP(x), defined for at most 65,535 bytes; callers have checked the length."""
    return u16(len(x)) + x


def xor(a, b):
    return bytes(i ^ j for i, j in zip(a, b, strict=True))


def hkdf_expand(prk, info):
    """HKDF-Expand-SHA256 with L = 32 (RFC 5869, 2.3)."""
    return HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(prk)


# --- 2 Identifiers, 6.2 pairs: the caller's own inputs ---------------------

# fullmatch, and not match with a `$`: a newline at the end does not match (2.1-1).
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SUBJECT = re.compile(r"[\x21-\x7e]{1,256}")


def check_identifiers(tenant, dataset, subject, key_id, *versions):
    """2: refuse what breaks a rule, never repair it. Returns the three names as bytes."""
    ok = (
        NAME.fullmatch(tenant)                                  # 2.1
        and NAME.fullmatch(dataset)
        and (subject is None or SUBJECT.fullmatch(subject))     # 2.2; "" is not the absent one
        and len(key_id) == KEY_ID_LEN                           # 2.3
        and all(1 <= v <= 0xFFFF_FFFF for v in versions)        # 2.4
    )
    if not ok:
        raise Failure(INVALID_IDENTIFIER)
    # The absent subject becomes the empty string, whose LP is 00 00 (6.1, 10.3).
    return tenant.encode(), dataset.encode(), (subject or "").encode()


def encode_pairs(context):
    """6.2: n and the pairs of a list, which must be strictly ascending already (6.2-3)."""
    try:
        pairs = [(k.encode("utf-8"), v.encode("utf-8")) for k, v in context]  # 6.2-1
    except UnicodeEncodeError:  # a lone surrogate of the JSON has no UTF-8
        raise Failure(INVALID_CONTEXT) from None
    # Python compares bytes unsigned and puts a prefix first, as 6.2-2 wants.
    if any(a[0] >= b[0] for a, b in zip(pairs, pairs[1:])):
        raise Failure(INVALID_CONTEXT)
    # Judged before encoding, so that neither n nor a length can overflow its u16.
    if sum(4 + len(k) + len(v) for k, v in pairs) > MAX_A:
        raise Failure(INVALID_CONTEXT)
    return u16(len(pairs)) + b"".join(lp(k) + lp(v) for k, v in pairs)


def canonical_context(header, tenant, dataset, subject, key_version, pairs):
    """6.1: A. Its length does not depend on the header's bytes."""
    a = (b"blindvault/ctx/v1\x00" + header + lp(tenant) + lp(dataset) + lp(subject)
         + u32(key_version) + pairs)
    if len(a) > MAX_A:  # 6.1-1
        raise Failure(INVALID_CONTEXT)
    return a


# --- 5 KC-XAES-256-GCM -----------------------------------------------------

class KcXaes:
    """What K and N determine: the record key Kx and the commitment C."""

    def __init__(self, k, nonce):
        ecb = Cipher(algorithms.AES(k), modes.ECB()).encryptor()
        aes = ecb.update  # AES_K on one block: ECB has no state between blocks
        prefix, suffix = nonce[:12], nonce[12:]

        # 5.1: L << 1 on 128 bits; 87 into the last byte if a bit fell off the top.
        l = int.from_bytes(aes(bytes(16)), "big")
        k1 = ((l << 1) & ((1 << 128) - 1)) ^ (0x87 if l >> 127 else 0)
        k1 = k1.to_bytes(16, "big")

        # 5.2
        kx = b"".join(aes(xor(b"\x00" + bytes([i]) + b"\x58\x00" + prefix, k1)) for i in (1, 2))
        # 5.3
        x = xor(aes(b"XCMT" + prefix), k1)
        self.commitment = b"".join(aes(xor(x, suffix + b"\x00\x01" + u16(i))) for i in (1, 2))

        self.nonce, self.suffix, self.gcm = nonce, suffix, AESGCM(kx)

    def seal(self, aad, plaintext):
        """5.4: N, C, ciphertext, tag."""
        return self.nonce + self.commitment + self.gcm.encrypt(self.suffix, plaintext, aad)


def kc_open(k, aad, box):
    """5.5: `box` is N, C, ciphertext, tag; its length has been checked."""
    nonce, commitment = box[:NONCE_LEN], box[NONCE_LEN:NONCE_LEN + COMMIT_LEN]
    kc = KcXaes(k, nonce)
    if not hmac.compare_digest(kc.commitment, commitment):  # 5.5-1
        raise Failure(UNOPENABLE)
    try:
        return kc.gcm.decrypt(kc.suffix, box[NONCE_LEN + COMMIT_LEN:], aad)  # 5.5-2
    except InvalidTag:
        raise Failure(UNOPENABLE) from None


# --- 4, 7, 8 Envelope ------------------------------------------------------

def suite_key(data_key, suite):
    return hkdf_expand(data_key, b"blindvault/suite/v1\x00" + bytes([suite]))


def header_of(suite, key_id):
    return MAGIC + bytes([VERSION, suite, FLAGS]) + key_id


def seal(data_key, key_id, key_version, tenant, dataset, subject, context, plaintext, nonce=None):
    names = check_identifiers(tenant, dataset, subject, key_id, key_version)  # 7-1
    header = header_of(RECORD, key_id)
    a = canonical_context(header, *names, key_version, encode_pairs(context))
    if len(plaintext) > MAX_PLAINTEXT:  # 7-2
        raise Failure(INVALID_PLAINTEXT)
    nonce = os.urandom(NONCE_LEN) if nonce is None else nonce  # 12-1; given in tests only
    return header + KcXaes(suite_key(data_key, RECORD), nonce).seal(a, plaintext)  # 7-4


def open_(data_key, key_id, key_version, tenant, dataset, subject, context, envelope):
    # 8.1: the caller's own inputs before the envelope is read. A is formed with the
    # header expected, and the header received must be that one, byte for byte.
    names = check_identifiers(tenant, dataset, subject, key_id, key_version)
    header = header_of(RECORD, key_id)
    a = canonical_context(header, *names, key_version, encode_pairs(context))
    if not OVERHEAD <= len(envelope) <= OVERHEAD + MAX_PLAINTEXT:  # 8.1-1
        raise Failure(UNOPENABLE)
    if envelope[:HEADER_LEN] != header:  # 8.1-2 (3-2) and 8.2-2
        raise Failure(UNOPENABLE)
    return kc_open(suite_key(data_key, RECORD), a, envelope[HEADER_LEN:])  # 8.1-5, 8.1-6


# --- 17 Stream ---------------------------------------------------------------

class Chunks:
    """17.2: what the suite key, the salt and A determine."""

    def __init__(self, data_key, salt, a):
        info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + salt + a
        okm = HKDFExpand(algorithm=SHA512(), length=76, info=info).derive(suite_key(data_key, STREAM))
        self.gcm, self.base_nonce, self.commitment = AESGCM(okm[:32]), okm[32:44], okm[44:]

    def nonce(self, k):
        return xor(self.base_nonce, k.to_bytes(12, "big"))  # 17.4


def stream_inputs(key_id, key_version, tenant, dataset, subject, context):
    names = check_identifiers(tenant, dataset, subject, key_id, key_version)
    header = header_of(STREAM, key_id)
    return header, canonical_context(header, *names, key_version, encode_pairs(context))


def seal_stream(data_key, plaintext, salt=None, **caller):
    header, a = stream_inputs(**caller)
    salt = os.urandom(SALT_LEN) if salt is None else salt  # 17.2-1; given in tests only
    chunks = Chunks(data_key, salt, a)
    # 17.3-1: what is left over is the last chunk, and may be nothing.
    pieces = [plaintext[at:at + CHUNK] for at in range(0, len(plaintext) // CHUNK * CHUNK + 1, CHUNK)]
    return header + salt + chunks.commitment + b"".join(
        chunks.gcm.encrypt(chunks.nonce(k), piece, None) for k, piece in enumerate(pieces))


def open_stream(data_key, envelope, **caller):
    header, a = stream_inputs(**caller)
    front, body = envelope[:STREAM_FRONT], envelope[STREAM_FRONT:]
    if len(front) < STREAM_FRONT or front[:HEADER_LEN] != header:  # 17.5-1
        raise Failure(UNOPENABLE)
    chunks = Chunks(data_key, front[HEADER_LEN:HEADER_LEN + SALT_LEN], a)
    if not hmac.compare_digest(chunks.commitment, front[HEADER_LEN + SALT_LEN:]):  # 17.5-2
        raise Failure(UNOPENABLE)
    last = len(body) // (CHUNK + TAG_LEN)
    if last >= MAX_CHUNKS or len(body) % (CHUNK + TAG_LEN) < TAG_LEN:  # 17.5-4
        raise Failure(UNOPENABLE)
    pieces = (body[k * (CHUNK + TAG_LEN):][:CHUNK + TAG_LEN] for k in range(last + 1))
    try:
        return b"".join(chunks.gcm.decrypt(chunks.nonce(k), piece, None) for k, piece in enumerate(pieces))
    except InvalidTag:
        raise Failure(UNOPENABLE) from None


# --- 10 Wrapped data key ---------------------------------------------------

def wrap_inputs(tenant_key, tenant_key_version, tenant, dataset, subject, key_id, key_version):
    """Kw (10.2) and the additional data (10.3), identifiers checked first."""
    # Section 10 gives no range for the tenant key version; that of 2.4 is taken for both.
    t, d, s = check_identifiers(tenant, dataset, subject, key_id, key_version, tenant_key_version)
    kw = hkdf_expand(tenant_key, b"blindvault/wrap/v1\x00" + lp(t) + u32(tenant_key_version))
    aad = (b"blindvault/wrapaad/v1\x00" + lp(t) + lp(d) + lp(s) + key_id
           + u32(key_version) + u32(tenant_key_version))
    return kw, aad


def wrap(data_key, nonce=None, **row):
    kw, aad = wrap_inputs(**row)
    if len(data_key) != KEY_LEN:
        raise Failure(INVALID_PLAINTEXT)
    nonce = os.urandom(NONCE_LEN) if nonce is None else nonce  # 10.4-2; given in tests only
    return WRAP_FORMAT + KcXaes(kw, nonce).seal(aad, data_key)  # 10.1


def unwrap(wrapped, **row):
    kw, aad = wrap_inputs(**row)
    if len(wrapped) != WRAPPED_LEN or wrapped[:1] != WRAP_FORMAT:  # 10.4-1
        raise Failure(UNOPENABLE)
    return kc_open(kw, aad, wrapped[1:])


# --- The JSON requests (not of the format) ---------------------------------

HEX = re.compile(r"(?:[0-9a-f]{2})*")
BYTES = {"data_key", "tenant_key", "key_id", "nonce", "salt", "plaintext", "envelope", "wrapped"}


def has_shape(name, v):
    """Whether a field that is not a byte string has the right JSON type."""
    if name == "context":
        return type(v) is list and all(
            type(p) is list and [type(t) for t in p] == [str, str] for p in v)
    if name == "subject":
        return v is None or type(v) is str
    return type(v) is (int if name.endswith("version") else str)  # true and 1.0 are no int


ENVELOPE = ["data_key", "key_id", "key_version", "tenant", "dataset", "subject", "context"]
WRAPPED = ["tenant_key", "tenant_key_version", "tenant", "dataset", "subject", "key_id",
           "key_version"]
COMMANDS = {  # name: function, required fields, field of the reply, the randomness that it takes
    "seal": (seal, ENVELOPE + ["plaintext"], "envelope", "nonce"),
    "open": (open_, ENVELOPE + ["envelope"], "plaintext", None),
    "seal_stream": (seal_stream, ENVELOPE + ["plaintext"], "envelope", "salt"),
    "open_stream": (open_stream, ENVELOPE + ["envelope"], "plaintext", None),
    "wrap": (wrap, WRAPPED + ["data_key"], "wrapped", "nonce"),
    "unwrap": (unwrap, WRAPPED + ["wrapped"], "data_key", None),
}


def answer(command, line):
    function, fields, result, random = COMMANDS[command]
    try:
        request = json.loads(line.decode("utf-8"))
        args = {name: request[name] for name in fields}
        if random is not None and request.get(random) is not None:
            args[random] = request[random]
        for name, value in args.items():
            if name in BYTES:
                if not HEX.fullmatch(value):
                    raise ValueError
                args[name] = bytes.fromhex(value)
            elif not has_shape(name, value):
                raise ValueError
        # Keys and nonces of a wrong length are this program's business; key ids (2.3),
        # plaintexts and data keys to wrap are judged by the functions above.
        lengths = {"tenant_key": KEY_LEN, "data_key": KEY_LEN, "nonce": NONCE_LEN, "salt": SALT_LEN}
        for name, length in lengths.items():
            if name in args and len(args[name]) != length and (command, name) != ("wrap", "data_key"):
                raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"error": INVALID_REQUEST}
    try:
        return {result: function(**args).hex()}
    except Failure as failure:
        return {"error": failure.args[0]}


def main(argv):
    if len(argv) != 2 or argv[1] not in COMMANDS:
        print("usage: blindvault_decoder.py seal|open|seal_stream|open_stream|wrap|unwrap", file=sys.stderr)
        return 2
    for line in sys.stdin.buffer:
        print(json.dumps(answer(argv[1], line)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
