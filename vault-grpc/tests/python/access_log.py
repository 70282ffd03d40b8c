"""A tenant's reading of its log that shares no code with the vault: grpcio, with stubs made from the .proto files when it
runs, hashlib, and PyPI `cryptography` for Ed25519. Written from docs/audit.md, RFC 6962 and the C2SP formats.

Called with one argument, a JSON file:
  proto    the directory of the .proto files
  target   host:port of the data plane
  ca, cert, key   files
  tenant   whose entries
  vkey     the pinned verifier key of the log

Reads all of the tenant's entries, a few a page, verifies each, and prints one JSON object: how many there were, how many
bytes of the last one were altered in turn and found out, and the kinds of the entries.
"""

import base64
import hashlib
import importlib
import json
import pathlib
import struct
import sys
import tempfile

import grpc
import grpc_tools
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from grpc_tools import protoc

TIMEOUT_SECONDS = 30


def stubs(proto, out):
    files = sorted(str(path) for path in pathlib.Path(proto).glob("vault/v1/*.proto"))
    well_known = str(pathlib.Path(grpc_tools.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{proto}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(arguments + files) != 0:
        raise SystemExit("protoc does not compile the .proto files")
    sys.path.insert(0, out)
    return importlib.import_module("vault.v1.access_log_pb2"), importlib.import_module("vault.v1.access_log_pb2_grpc")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def checkpoint(note, vkey):
    """Size and root of a checkpoint that the key has signed."""
    origin, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key)
    assert key[0] == 1 and sha256(origin.encode(), b"\n\x01", key[1:])[:4].hex() == key_id
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    for line in signatures.splitlines():
        dash, name, signature = line.split(" ")
        signature = base64.b64decode(signature)
        assert dash == "\u2014"
        if name == origin and signature[:4].hex() == key_id:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text.encode())
            name, size, root = text.splitlines()
            assert name == origin
            return int(size), base64.b64decode(root)
    raise AssertionError("the pinned key has not signed")


def root_by_path(leaf, index, size, path):
    """The root that a path leads to (RFC 6962, section 2.1.1, read from the top down)."""
    if size == 1:
        assert not path
        return leaf
    split = 1 << ((size - 1).bit_length() - 1)
    if index < split:
        return sha256(b"\x01", root_by_path(leaf, index, split, path[:-1]), path[-1])
    return sha256(b"\x01", path[-1], root_by_path(leaf, index - split, size - split, path[:-1]))


def link(entry):
    """Kind, index, tenant, sequence and the previous leaf hash, as the entry's bytes have them."""
    version, kind = entry[0], entry[1]
    assert version == 1
    (index,) = struct.unpack(">Q", entry[18:26])
    at = 34 + 1 + (16 if entry[34] else 0)
    assert entry[at] == 1, "the entry belongs to no tenant"
    (length,) = struct.unpack(">H", entry[at + 1 : at + 3])
    at += 3
    tenant = entry[at : at + length].decode()
    at += length
    (sequence,) = struct.unpack(">Q", entry[at : at + 8])
    return kind, index, tenant, sequence, entry[at + 8 : at + 40]


def verify(item, size, root):
    path = [item.inclusion_path[at : at + 32] for at in range(0, len(item.inclusion_path), 32)]
    leaf = sha256(b"\x00", item.entry)
    return root_by_path(leaf, item.index, size, path) == root


def main():
    config = json.loads(pathlib.Path(sys.argv[1]).read_text())
    read = lambda name: pathlib.Path(config[name]).read_bytes()
    with tempfile.TemporaryDirectory() as out:
        messages, services = stubs(config["proto"], out)
        credentials = grpc.ssl_channel_credentials(read("ca"), read("key"), read("cert"))
        options = [("grpc.ssl_target_name_override", "localhost")]
        with grpc.secure_channel(config["target"], credentials, options) as channel:
            stub = services.AccessLogServiceStub(channel)
            sequence, previous = 0, sha256(b"blindvault/audit/tenant/v1\0", config["tenant"].encode())
            kinds, altered = [], 0
            while True:
                request = messages.ListAccessesRequest(tenant=config["tenant"], after_sequence=sequence, page_size=5)
                page = stub.ListAccesses(request, timeout=TIMEOUT_SECONDS)
                size, root = checkpoint(page.checkpoint, config["vkey"])
                for item in page.entries:
                    assert verify(item, size, root), "the path does not lead to the root"
                    kind, index, tenant, number, before = link(item.entry)
                    assert (index, tenant, number) == (item.index, config["tenant"], sequence + 1)
                    assert before == previous, "the entry does not follow the one before"
                    sequence, previous = number, sha256(b"\x00", item.entry)
                    kinds.append(kind)
                assert verify(page.head, size, root)
                if link(page.head.entry)[3] == sequence:
                    break
            for at in range(len(page.head.entry)):
                item = messages.AccessLogEntry()
                item.CopyFrom(page.head)
                item.entry = item.entry[:at] + bytes([item.entry[at] ^ 1]) + item.entry[at + 1 :]
                altered += not verify(item, size, root)
            own = any(item.index == page.audit_entry for item in page.entries)
            print(json.dumps({"entries": sequence, "kinds": kinds, "altered": altered, "bytes": len(page.head.entry), "own": own}))


main()
