"""Makes and verifies vault-core/tests/vectors/stream_v1.json, with the decoder beside it.

    python3 blindvault_streams.py generate FILE   the same bytes each time
    python3 blindvault_streams.py check FILE      exit 1 if any case has another outcome
"""

import hashlib
import json
import sys

from blindvault_decoder import CHUNK, STREAM_FRONT, Failure, open_stream, seal_stream

SEALED = CHUNK + 16


def derived(label, length):
    return hashlib.shake_128(b"blindvault/vectors/stream/" + label.encode()).digest(length)


def base(label, subject="user-1842", context=(("file", "scan.pdf"),)):
    return {
        "data_key": derived(label + "/key", 32).hex(),
        "key_id": derived(label + "/id", 16).hex(),
        "key_version": 2,
        "tenant": "acme",
        "dataset": "documents",
        "subject": subject,
        "context": [list(pair) for pair in context],
        "salt": derived(label + "/salt", 24).hex(),
    }


def arguments(case, *names):
    names = ("data_key", "key_id", "key_version", "tenant", "dataset", "subject", "context") + names
    hexed = {"data_key", "key_id", "salt", "plaintext", "envelope"}
    return {name: bytes.fromhex(case[name]) if name in hexed else case[name] for name in names}


def sealed(case, plaintext):
    return seal_stream(plaintext=plaintext, **arguments(case, "salt"))


def repeated(length):
    """The plaintext of a large case: each byte is the number of its chunk, mod 251."""
    return b"".join(bytes([k % 251]) * min(CHUNK, length - k * CHUNK) for k in range(length // CHUNK + 1))


def small():
    cases = []

    def add(case, reason, expected, envelope, **more):
        case = dict(case, **more)
        case.update(id=len(cases) + 1, reason=reason, expected=expected, envelope=envelope.hex())
        cases.append(case)

    for at, (plaintext, subject, context) in enumerate([
        (b"", "user-1842", [("file", "scan.pdf")]),
        (b"4111 1111 1111 1111", "user-1842", [("file", "scan.pdf")]),
        (b"x" * 100, None, []),
        (bytes(range(256)), "~", [("", ""), ("a", "\u00e9"), ("b", "z" * 300)]),
    ]):
        case = base(f"good {at}", subject, context)
        add(case, "opens", "ok", sealed(case, plaintext), plaintext=plaintext.hex())
    case = base("bad")
    plaintext = b"forty-two"
    envelope = sealed(case, plaintext)
    for length in range(0, len(envelope)):
        add(case, f"cut to {length} bytes", "unopenable", envelope[:length])
    for at in range(len(envelope)):
        add(case, f"byte {at} altered", "unopenable", envelope[:at] + bytes([envelope[at] ^ 0x10]) + envelope[at + 1:])
    add(case, "a byte more", "unopenable", envelope + b"\0")
    add(case, "a chunk more, sealed for its place", "unopenable", envelope + sealed(case, b"y")[STREAM_FRONT:])
    for name, other in [("tenant", "acme2"), ("dataset", "document"), ("subject", None), ("subject", "User-1842"),
                        ("key_version", 3), ("context", []), ("context", [["file", "scan.pdg"]])]:
        add(case, f"another {name}", "unopenable", envelope, **{name: other})
    add(case, "another salt, its commitment kept", "unopenable",
        envelope[:22] + derived("other salt", 24) + envelope[46:])
    for name, wrong, expected in [("tenant", "Acme", "invalid_identifier"), ("subject", "", "invalid_identifier"),
                                  ("key_version", 0, "invalid_identifier"),
                                  ("context", [["b", ""], ["a", ""]], "invalid_context")]:
        add(case, f"a {name} that cannot be", expected, envelope, **{name: wrong})
    return cases


def large():
    cases = []
    for length in CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5, 257 * CHUNK + 1:
        case = base(f"large {length}")
        digest = hashlib.sha256(sealed(case, repeated(length))).hexdigest()
        cases.append(dict(case, id=len(cases) + 1, plaintext_len=length, envelope_sha256=digest))
    return cases


def outcome(case):
    try:
        return "ok", open_stream(**arguments(case, "envelope"))
    except Failure as failure:
        return failure.args[0], None


def check(file):
    whole, bad = json.load(file), 0
    for case in whole["tests"]:
        got, plaintext = outcome(case)
        good = got == case["expected"]
        if good and got == "ok":
            good = plaintext.hex() == case["plaintext"] and sealed(case, plaintext).hex() == case["envelope"]
        bad += not good
        if not good:
            print(f"test {case['id']}, {case['reason']}: {got}")
    for case in whole["large"]:
        envelope = sealed(case, repeated(case["plaintext_len"]))
        opened = open_stream(**dict(arguments(case), envelope=envelope))
        if hashlib.sha256(envelope).hexdigest() != case["envelope_sha256"] or opened != repeated(case["plaintext_len"]):
            bad += 1
            print(f"large {case['id']}: another envelope")
    return bad


def main(arguments):
    match arguments:
        case ["generate", path]:
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"tests": small(), "large": large()}, file, indent=1)
                file.write("\n")
            return 0
        case ["check", path]:
            with open(path, encoding="utf-8") as file:
                return int(check(file) > 0)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
