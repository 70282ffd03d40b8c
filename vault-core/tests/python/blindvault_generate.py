"""Makes envelope_v1.json and wrapped_key_v1.json, the same bytes each time (docs/format.md §13).

Keys, ids and nonces come from SHAKE-128 streams seeded with a label, so that nobody has to trust where they came
from. Failing envelopes are of two kinds: damaged ones, and forged ones that a careless sealer made
*consistently* wrong, so that only the rule they break, and no tag mismatch by accident, can refuse them.
"""

import hashlib
import json
import os

import blindvault_format as fmt
from blindvault_two_keys import two_key_body


class Stream:
    """Deterministic bytes."""

    def __init__(self, label):
        self.bytes = hashlib.shake_128(label.encode()).digest(1 << 16)
        self.at = 0

    def take(self, count):
        self.at += count
        return self.bytes[self.at - count : self.at]


class File:
    """A vector file in the making."""

    def __init__(self):
        self.tests = []

    def add(self, reason, expected, case):
        case = {"id": len(self.tests) + 1, "reason": reason, "expected": expected, **case}
        self.tests.append(case)
        return case


def changed(data, old, new):
    """`data` with its one occurrence of `old` replaced."""
    assert data.count(old) == 1
    return data.replace(old, new)


def flip(data, index, bit=0):
    return data[:index] + bytes([data[index] ^ (1 << bit)]) + data[index + 1 :]


# --- envelope_v1.json ---

RECORD = ("data_key", "key_id", "key_version", "tenant", "dataset", "subject", "context")


def inputs(stream, **given):
    """What an opener is given, as JSON."""
    case = {"data_key": stream.take(32).hex(), "key_id": stream.take(16).hex(), "key_version": 1}
    case.update(tenant="acme", dataset="customers", subject=None, context=[])
    case.update(given)
    return case


def aad_of(case, head=None):
    fields = [case[f] for f in ("tenant", "dataset", "subject", "key_version", "context")]
    return fmt.canonical_context(head or fmt.header(bytes.fromhex(case["key_id"])), *fields)


def sealed_case(stream, plaintext, **given):
    """A positive case with every intermediate value."""
    case, nonce = inputs(stream, **given), stream.take(24)
    key = fmt.suite_key(bytes.fromhex(case["data_key"]))
    return {
        **case,
        "nonce": nonce.hex(),
        "suite_key": key.hex(),
        "derived_key": fmt.derived_key(key, nonce).hex(),
        "commitment": fmt.commitment(key, nonce).hex(),
        "aad": aad_of(case).hex(),
        "plaintext": plaintext.hex(),
        "envelope": fmt.seal(nonce=nonce, plaintext=plaintext, **fmt._record(case)).hex(),
    }


def context_filling(total, case):
    """Two pairs that bring A to exactly `total` bytes."""
    rest = total - len(aad_of(case)) - 4 * 2 - 2
    return [["a", "x" * 4000], ["b", "y" * (rest - 4000)]]


def positives(file, stream):
    text = "Zoë Ångström, 42 Rue de l'Été".encode()
    add = lambda reason, plaintext, **given: file.add(reason, "ok", sealed_case(stream, plaintext, **given))
    base = add("the worked example of the specification", b"4111 1111 1111 1111", subject="user-1842",
               context=[["column", "card_number"], ["table", "payments"]])
    add("no subject, no context, empty plaintext", b"")
    add("subject, no context, empty plaintext", b"", subject="u")
    add("one byte of plaintext", b"\x00")
    add("one pair", text, context=[["purpose", "billing"]])
    add("many pairs", text, context=[[f"key-{i:03}", f"value {i}"] for i in range(200)])
    add("empty key and empty value are pairs like any other", text, context=[["", ""], ["a", ""]])
    add("values that repeat across keys", text, context=[["a", "same"], ["b", "same"]])
    add("a key that is the prefix of another comes first", text, context=[["a", "1"], ["a\x00", "2"], ["aa", "3"]])
    add("upper case sorts before lower case", text, context=[["B", "1"], ["a", "2"]])
    add("unicode, not normalized: é composed and decomposed are two keys", text,
        context=[["e\u0301", "decomposed"], ["\u00e9", "composed"]])
    add("order is that of UTF-8 bytes, which UTF-16 order reverses", text,
        context=[["\uff5e", "U+FF5E"], ["\U0001f511", "U+1F511"]])
    add("control characters and NUL are bytes like any other", text, context=[["\x00\n", "\t\x7f\x00"]])
    add("shortest tenant and dataset", text, tenant="0", dataset="z")
    add("longest tenant, dataset and subject", text, tenant="t" * 63, dataset="9" + "._-" * 20 + "ab",
        subject="s" * 256)
    add("punctuation in subject, case kept", text, subject="!Alice|42@Example.com~")
    add("highest key version", text, key_version=0xFFFF_FFFF)
    add("key version whose bytes differ from each other", text, key_version=0x0102_0304)
    add("key id of zero bytes", text, key_id="00" * 16)
    add("key id of 0xff bytes", text, key_id="ff" * 16)
    for length in (12, 15, 16, 17, 31, 32, 33, 255, 256, 1023, 1024, 1025, 4096):
        add(f"{length} bytes of plaintext", stream.take(length))
    for total in (8191, 8192):
        case = inputs(stream)
        full = sealed_case(stream, b"full", **dict(case, context=context_filling(total, case)))
        assert len(full["aad"]) == 2 * total
        file.add(f"A of {total} bytes", "ok", full)
    return base


def damaged(file, base):
    opener = {field: base[field] for field in RECORD}
    envelope = bytes.fromhex(base["envelope"])
    regions = ((4, "magic and version"), (5, "suite"), (6, "flags"), (22, "key id"), (34, "nonce prefix"),
               (46, "nonce suffix"), (78, "commitment"), (len(envelope) - 16, "ciphertext"), (len(envelope), "tag"))
    bad = lambda reason, data: file.add(reason, "unopenable", {**opener, "envelope": data.hex()})
    for index in range(len(envelope)):
        region = next(label for end, label in regions if index < end)
        bad(f"bit {index % 8} of byte {index} flipped ({region})", flip(envelope, index, index % 8))
    for length in (0, 1, 3, 4, 5, 6, 21, 22, 45, 46, 77, 78, 93, 94, len(envelope) - 16, len(envelope) - 1):
        bad(f"cut to {length} bytes", envelope[:length])
    for extra in (b"\x00", b"\xff", bytes(16), envelope[-16:]):
        bad(f"{len(extra)} bytes {extra[:1].hex()}… appended", envelope + extra)
    bad("a byte in front", b"\x00" + envelope)
    bad("ciphertext removed, tag kept", envelope[:78] + envelope[-16:])
    bad("commitment halves exchanged", envelope[:46] + envelope[62:78] + envelope[46:62] + envelope[78:])
    bad("94 zero bytes", bytes(94))

    def given(reason, **changes):
        file.add(reason, "unopenable", {**opener, **changes, "envelope": base["envelope"]})

    given("another data key", data_key=flip(bytes.fromhex(base["data_key"]), 31).hex())
    given("another key id looked up", key_id=flip(bytes.fromhex(base["key_id"]), 0).hex())
    given("another key version", key_version=2)
    given("another tenant", tenant="acme2")
    given("another dataset", dataset="customer")
    given("tenant and dataset exchanged", tenant="customers", dataset="acme")
    given("boundary between tenant and dataset moved", tenant="acmec", dataset="ustomers")
    given("another subject", subject="user-1843")
    given("subject in another case", subject="User-1842")
    given("subject absent", subject=None)
    given("context empty", context=[])
    given("a pair missing", context=base["context"][:1])
    given("a pair more", context=base["context"] + [["z", ""]])
    given("a value changed", context=[["column", "card_numbes"], ["table", "payments"]])
    given("a value in another case", context=[["column", "Card_number"], ["table", "payments"]])
    given("a key changed", context=[["columm", "card_number"], ["table", "payments"]])
    given("values exchanged", context=[["column", "payments"], ["table", "card_number"]])
    given("key and value exchanged", context=[["card_number", "column"], ["table", "payments"]])
    given("boundary between key and value moved", context=[["columnc", "ard_number"], ["table", "payments"]])
    given("two pairs joined into one", context=[["column", "card_numbertablepayments"]])


def forged(file, stream):
    """Envelopes whose commitment and tag are right for what the forger claims."""
    case = inputs(stream, subject="user-1842", context=[["a", "1"], ["b", "2"]])
    other = inputs(stream)
    data_key, key_id, nonce = bytes.fromhex(case["data_key"]), bytes.fromhex(case["key_id"]), stream.take(24)
    key, head, plaintext = fmt.suite_key(data_key), fmt.header(key_id), b"forged"
    aad = aad_of(case)
    bad = lambda reason, data, **changes: file.add(
        reason, "unopenable", {**case, **changes, "envelope": data.hex()})
    good = head + fmt.kc_seal(key, nonce, aad, plaintext)
    assert fmt.answer("open", {**case, "envelope": good.hex()}) == {"plaintext": plaintext.hex()}

    claims = (("magic BLW", b"BLW\x01\x01\x00"), ("version 0", b"BLV\x00\x01\x00"),
              ("version 2", b"BLV\x02\x01\x00"), ("suite 0x00", b"BLV\x01\x00\x00"),
              ("suite 0x02, reserved", b"BLV\x01\x02\x00"), ("suite 0xff", b"BLV\x01\xff\x00"),
              ("flags 0x01", b"BLV\x01\x01\x01"), ("flags 0x80", b"BLV\x01\x01\x80"))
    for label, start in claims:
        wrong = start + key_id
        bad(f"sealed with {label}", wrong + fmt.kc_seal(fmt.suite_key(data_key, start[4]), nonce, aad_of(case, wrong),
                                                       plaintext))
    bad("data key used directly, without suite key", head + fmt.kc_seal(data_key, nonce, aad, plaintext))
    bad("empty AAD", head + fmt.kc_seal(key, nonce, b"", plaintext))
    bad("label of A not that of version 1", head + fmt.kc_seal(
        key, nonce, changed(aad, b"blindvault/ctx/v1", b"blindvault/ctx/v2"), plaintext))
    bad("A without the header", head + fmt.kc_seal(key, nonce, changed(aad, head, b""), plaintext))
    bad("pairs sealed in descending order", head + fmt.kc_seal(key, nonce, changed(
        aad, b"\0\1a\0\0011\0\1b\0\0012", b"\0\1b\0\0012\0\1a\0\0011"), plaintext))
    bad("no pair count in A when there are no pairs", head + fmt.kc_seal(
        key, nonce, aad_of(dict(case, context=[]))[:-2], plaintext), context=[])
    bad("subject left out of A instead of empty", head + fmt.kc_seal(
        key, nonce, changed(aad_of(dict(case, subject=None)), b"customers\0\0", b"customers"), plaintext), subject=None)
    bad("key version in little-endian order", head + fmt.kc_seal(
        key, nonce, changed(aad, b"\0\0\0\1\0\2", b"\1\0\0\0\0\2"), plaintext))
    bad("sealed with é decomposed, opened with é composed", head + fmt.kc_seal(
        key, nonce, aad_of(dict(case, context=[["a", "e\u0301"]])), plaintext), context=[["a", "\u00e9"]])

    body = good[78:]
    bad("XAES-256-GCM without commitment", good[:46] + body)
    bad("commitment zero", good[:46] + bytes(32) + body)
    bad("commitment of another key", good[:46] + fmt.commitment(fmt.suite_key(bytes.fromhex(other["data_key"])), nonce)
        + body)
    bad("commitment of another nonce", good[:46] + fmt.commitment(key, stream.take(24)) + body)
    bad("commitment of the data key itself", good[:46] + fmt.commitment(data_key, nonce) + body)
    bad("first half of the commitment right", good[:62] + bytes(16) + body)
    bad("second half of the commitment right", good[:46] + bytes(16) + good[62:])
    bad("commitment right, tag of another record key", good[:-16] + fmt.kc_seal(
        fmt.suite_key(bytes.fromhex(other["data_key"])), nonce, aad, plaintext)[-16:])
    two_keys(file, case, bytes.fromhex(other["data_key"]), nonce, aad, head)


def two_keys(file, case, second_data_key, nonce, aad, head):
    """One GCM ciphertext and tag that verify under two record keys: the commitment decides."""
    keys = {case["data_key"]: fmt.suite_key(bytes.fromhex(case["data_key"])),
            second_data_key.hex(): fmt.suite_key(second_data_key)}
    body = two_key_body([fmt.derived_key(k, nonce) for k in keys.values()], nonce[12:], aad)
    for committed, committed_key in keys.items():
        envelope = head + nonce + fmt.commitment(committed_key, nonce) + body
        for opening, opening_key in keys.items():
            opener = {**case, "data_key": opening, "envelope": envelope.hex()}
            # Bare GCM accepts the body under either key, or the case would show nothing.
            plaintext = fmt.AESGCM(fmt.derived_key(opening_key, nonce)).decrypt(nonce[12:], body, aad)
            if opening != committed:
                file.add("opens under two keys in bare GCM; committed to the other", "unopenable", opener)
            else:
                extra = {"nonce": nonce.hex(), "suite_key": opening_key.hex(), "aad": aad.hex(),
                         "derived_key": fmt.derived_key(opening_key, nonce).hex(),
                         "commitment": fmt.commitment(opening_key, nonce).hex(), "plaintext": plaintext.hex()}
                file.add("opens under two keys in bare GCM; committed to this one", "ok", {**opener, **extra})


def refused_inputs(file, base):
    """The caller's own inputs are at fault; sealing and opening refuse them alike."""
    opener = {field: base[field] for field in RECORD}
    add = lambda reason, expected, **changes: file.add(
        reason, expected, {**opener, **changes, "envelope": base["envelope"]})
    context = lambda reason, pairs: add(reason, "invalid_context", context=pairs)
    context("descending", [["table", "payments"], ["column", "card_number"]])
    context("duplicate pair", [["column", "card_number"], ["column", "card_number"]])
    context("duplicate key, other value", [["column", "a"], ["column", "b"]])
    context("duplicate key that is not adjacent", [["a", ""], ["b", ""], ["a", ""]])
    context("ascending in UTF-16 but not in UTF-8", [["\U0001f511", "1"], ["\uff5e", "2"]])
    context("longer key before its prefix", [["aa", "1"], ["a", "2"]])
    context("lower case before upper case", [["a", "1"], ["B", "2"]])
    over = context_filling(8193, {**opener, "context": []})
    context("A of 8193 bytes", over)
    context("a value of 65535 bytes", [["a", "v" * 65_535]])
    context("a value of 65536 bytes, which a 16-bit length cannot hold", [["a", "v" * 65_536]])
    name = lambda reason, **changes: add(reason, "invalid_identifier", **changes)
    for text, reason in (("", "empty"), ("Acme", "upper case"), (".acme", "starts with a dot"), ("acme ", "space"),
                         ("acme\n", "newline at the end"), ("acm\u00e9", "not ASCII"), ("a" * 64, "64 bytes")):
        name(f"tenant: {reason}", tenant=text)
        name(f"dataset: {reason}", dataset=text)
    for text, reason in (("", "empty is not absent"), ("a b", "space"), ("a\x7f", "0x7f"), ("s" * 257, "257 bytes"),
                         ("\u00fc", "not ASCII"), ("a\n", "newline at the end")):
        name(f"subject: {reason}", subject=text)
    name("key version 0", key_version=0)


def large(stream):
    cases = []
    for length, expected in ((65_536, "ok"), (1_048_575, "ok"), (1_048_576, "ok"), (1_048_577, "unopenable")):
        case, nonce = inputs(stream), stream.take(24)
        key, head = fmt.suite_key(bytes.fromhex(case["data_key"])), fmt.header(bytes.fromhex(case["key_id"]))
        envelope = head + fmt.kc_seal(key, nonce, aad_of(case), b"\x5a" * length)
        cases.append({"id": len(cases) + 1, "reason": f"{length} bytes of plaintext", "expected": expected, **case,
                      "nonce": nonce.hex(), "plaintext_byte": "5a", "plaintext_len": length,
                      "envelope_sha256": hashlib.sha256(envelope).hexdigest()})
    return cases


def envelope_file():
    file, stream = File(), Stream("blindvault/vectors/envelope/v1")
    base = positives(file, stream)
    damaged(file, base)
    forged(file, stream)
    refused_inputs(file, base)
    note = "docs/format.md §13; made by vault-core/tests/python/blindvault_format.py generate"
    return {"algorithm": "blindvault envelope v1", "note": note, "tests": file.tests, "large": large(stream)}


# --- wrapped_key_v1.json ---

ROW = ("tenant_key", "tenant_key_version", "tenant", "dataset", "subject", "key_id", "key_version")


def wrapped_case(stream, **given):
    case = {"tenant_key": stream.take(32).hex(), "tenant_key_version": 1, "tenant": "acme", "dataset": "customers",
            "subject": None, "key_id": stream.take(16).hex(), "key_version": 1, **given}
    data_key, nonce = stream.take(32), stream.take(24)
    row = fmt._row(case)
    key, aad = fmt.wrap_inputs(**row)
    return {**case, "data_key": data_key.hex(), "nonce": nonce.hex(), "wrapping_key": key.hex(), "aad": aad.hex(),
            "commitment": fmt.commitment(key, nonce).hex(), "wrapped": fmt.wrap(data_key, nonce=nonce, **row).hex()}


def wrapped_file():
    file, stream = File(), Stream("blindvault/vectors/wrapped-key/v1")
    base = file.add("with a subject", "ok", wrapped_case(stream, subject="user-1842", key_version=2,
                                                         tenant_key_version=3))
    file.add("without a subject", "ok", wrapped_case(stream))
    file.add("longest names, highest versions", "ok", wrapped_case(
        stream, tenant="t" * 63, dataset="d" * 63, subject="s" * 256, key_version=2**32 - 1,
        tenant_key_version=2**32 - 1))
    row, wrapped = {field: base[field] for field in ROW}, bytes.fromhex(base["wrapped"])
    bad = lambda reason, data=wrapped, **changes: file.add(
        reason, "unopenable", {**row, **changes, "wrapped": data.hex()})
    for index in range(fmt.WRAPPED_LEN):
        bad(f"bit {index % 8} of byte {index} flipped", flip(wrapped, index, index % 8))
    for length in (0, 1, 25, 57, 73, 89, 104):
        bad(f"cut to {length} bytes", wrapped[:length])
    bad("a byte appended", wrapped + b"\x00")
    bad("first byte left out", wrapped[1:])
    bad("another tenant key", tenant_key=flip(bytes.fromhex(base["tenant_key"]), 0).hex())
    bad("another tenant key version", tenant_key_version=4)
    bad("another tenant", tenant="acme2")
    bad("another dataset", dataset="customers2")
    bad("boundary between tenant and dataset moved", tenant="acmec", dataset="ustomers")
    bad("another subject", subject="user-1843")
    bad("subject absent", subject=None)
    bad("another key id", key_id=flip(bytes.fromhex(base["key_id"]), 15).hex())
    bad("another key version", key_version=3)
    bad("key version and tenant key version exchanged", key_version=3, tenant_key_version=2)
    key, aad = fmt.wrap_inputs(**fmt._row(base))
    nonce = stream.take(24)
    bad("tenant key used directly", b"\x01" + fmt.kc_seal(bytes.fromhex(base["tenant_key"]), nonce, aad, bytes(32)))
    bad("format byte 0x02 on a right body", b"\x02" + fmt.kc_seal(key, nonce, aad, bytes(32)))
    bad("a key of 31 bytes", b"\x01" + fmt.kc_seal(key, nonce, aad, bytes(31)))
    bad("a key of 33 bytes", b"\x01" + fmt.kc_seal(key, nonce, aad, bytes(33)))
    bad("sealed with empty AAD", b"\x01" + fmt.kc_seal(key, nonce, b"", bytes(32)))
    name = lambda reason, **changes: file.add(
        reason, "invalid_identifier", {**row, **changes, "wrapped": base["wrapped"]})
    name("tenant: upper case", tenant="Acme")
    name("subject: empty is not absent", subject="")
    name("key version 0", key_version=0)
    name("tenant key version 0", tenant_key_version=0)
    note = "docs/format.md §13; made by vault-core/tests/python/blindvault_format.py generate"
    return {"algorithm": "blindvault wrapped key v1", "note": note, "tests": file.tests}


def generate(directory):
    """Writes both files into `directory`; returns the exit status."""
    for name, vectors in (("envelope_v1.json", envelope_file()), ("wrapped_key_v1.json", wrapped_file())):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            json.dump(vectors, file, indent=1)
            file.write("\n")
    return 0
