"""Verifies the committed vector files against blindvault_format (docs/format.md §13)."""

import hashlib
import json
import os
import re

import blindvault_format as fmt


def accumulated(iterations, with_commitment):
    """The digest of the accumulated randomized tests of c2sp.org/XAES-256-GCM, or its KC-XAES variant."""
    # SHAKE has no incremental reading in hashlib, so the stream is read in growing blocks.
    stream, at, size = b"", 0, 1 << 20
    digest = hashlib.shake_128()

    def take(count):
        nonlocal stream, at, size
        while at + count > len(stream):
            size *= 2
            stream = hashlib.shake_128(b"").digest(size)
        at += count
        return stream[at - count : at]

    for _ in range(iterations):
        key, nonce = take(32), take(24)
        plaintext = take(take(1)[0])
        aad = take(take(1)[0])
        sealed = fmt.kc_seal(key, nonce, aad, plaintext)
        digest.update(sealed[56:] + (sealed[24:56] if with_commitment else b""))
    return digest.hexdigest(32)


def check_aead(vectors, with_commitment):
    """Yields (case name, passed) for XAES and KC-XAES vectors."""
    for case in vectors["tests"]:
        raw = {k: bytes.fromhex(v) for k, v in case.items() if isinstance(v, str) and k not in ("note", "reason")}
        sealed = fmt.kc_seal(raw["key"], raw["nonce"], raw["aad"], raw["plaintext"])
        good = sealed[56:] == raw["ciphertext_and_tag"]
        good &= fmt.derived_key(raw["key"], raw["nonce"]) == raw["derived_key"]
        if with_commitment or "kc_commitment" in raw:
            good &= sealed[24:56] == raw["commitment" if with_commitment else "kc_commitment"]
        if "k1" in raw:
            good &= fmt.aes_block(raw["key"], bytes(16)) == raw["l"] and fmt.cmac_subkey(raw["key"]) == raw["k1"]
        yield f"test {case['id']}", good
    runs = vectors["accumulated"]
    for run in [runs] if isinstance(runs, dict) else runs:
        # The million takes minutes; it runs when asked for.
        if run["iterations"] <= 10_000 or os.environ.get("BLINDVAULT_LONG_VECTORS") == "1":
            got = accumulated(run["iterations"], with_commitment)
            yield f"{run['iterations']} accumulated", got == run["shake128_32"]


def check_envelopes(vectors):
    for case in vectors["tests"]:
        reply = fmt.answer("open", case)
        if case["expected"] != "ok":
            good = reply == {"error": case["expected"]}
            if case["expected"].startswith("invalid_"):
                good &= fmt.answer("seal", dict(case, plaintext="")) == reply
        else:
            good = reply == {"plaintext": case["plaintext"]}
            good &= fmt.answer("seal", case) == {"envelope": case["envelope"]}
            key, nonce = fmt.suite_key(bytes.fromhex(case["data_key"])), bytes.fromhex(case["nonce"])
            good &= key.hex() == case["suite_key"]
            good &= fmt.derived_key(key, nonce).hex() == case["derived_key"]
            good &= fmt.commitment(key, nonce).hex() == case["commitment"]
            fields = [case[f] for f in ("tenant", "dataset", "subject", "key_version", "context")]
            aad = fmt.canonical_context(fmt.header(bytes.fromhex(case["key_id"])), *fields)
            good &= aad.hex() == case["aad"]
        yield f"test {case['id']} ({case['reason']})", good
    for case in vectors["large"]:
        yield f"large {case['id']} ({case['reason']})", check_large(case)


def check_large(case):
    """A case whose plaintext is one byte repeated; the envelope is known by its SHA-256 only."""
    plaintext = bytes.fromhex(case["plaintext_byte"]) * case["plaintext_len"]
    record = fmt._record(case)
    fields = [case[f] for f in ("tenant", "dataset", "subject", "key_version", "context")]
    head = fmt.header(record["key_id"])
    aad = fmt.canonical_context(head, *fields)
    envelope = head + fmt.kc_seal(fmt.suite_key(record["data_key"]), bytes.fromhex(case["nonce"]), aad, plaintext)
    good = hashlib.sha256(envelope).hexdigest() == case["envelope_sha256"]
    wanted = {"plaintext": plaintext.hex()} if case["expected"] == "ok" else {"error": case["expected"]}
    return good and fmt.answer("open", dict(case, envelope=envelope.hex())) == wanted


def check_wrapped(vectors):
    for case in vectors["tests"]:
        reply = fmt.answer("unwrap", case)
        if case["expected"] != "ok":
            good = reply == {"error": case["expected"]}
        else:
            good = reply == {"data_key": case["data_key"]}
            good &= fmt.answer("wrap", case) == {"wrapped": case["wrapped"]}
            key, aad = fmt.wrap_inputs(**fmt._row(case))
            good &= (key.hex(), aad.hex()) == (case["wrapping_key"], case["aad"])
        yield f"test {case['id']} ({case['reason']})", good


CHECKS = {
    "XAES-256-GCM": lambda v: check_aead(v, with_commitment=False),
    "KC-XAES-256-GCM": lambda v: check_aead(v, with_commitment=True),
    "blindvault envelope v1": check_envelopes,
    "blindvault wrapped key v1": check_wrapped,
}


def check_document(text):
    """The examples of docs/format.md are test 1 of each generated file, white space and comments aside."""
    import blindvault_generate

    fields = {
        "envelope": (
            blindvault_generate.envelope_file(),
            "data_key key_id nonce plaintext suite_key derived_key commitment aad envelope",
        ),
        "wrapped": (blindvault_generate.wrapped_file(), "tenant_key key_id data_key wrapping_key aad wrapped"),
    }
    # What follows three spaces on a line of an example is a remark.
    lines = [re.split(r"(?<=[0-9a-f]) {3,}", line)[0] for line in text.splitlines()]
    squeezed = re.sub(r"^ +[0-9]{1,2} {2}|\s", "", "\n".join(lines), flags=re.MULTILINE)
    for example, (vectors, names) in fields.items():
        for name in names.split():
            yield f"{example} example, {name}", vectors["tests"][0][name] in squeezed


def check_files(paths):
    """Checks every case of every file; prints failures and totals; returns the exit status."""
    passed, failed = 0, 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        before = passed + failed
        vectors = None if path.endswith(".md") else json.loads(text)
        cases = check_document(text) if vectors is None else CHECKS[vectors["algorithm"]](vectors)
        for case, good in cases:
            passed += good
            failed += not good
            if not good:
                print(f"{path}: {case}: FAILED")
        if passed + failed == before:
            failed += 1
            print(f"{path}: no case found")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
