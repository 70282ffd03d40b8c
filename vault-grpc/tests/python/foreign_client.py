"""A gRPC client that shares no code with the vault: grpcio, with stubs made from the .proto files when it runs.

Called with one argument, a JSON file:
  proto    the directory of the .proto files
  target   host:port of the data plane
  ca       file: who issues the gateway's certificate
  cases    [{name, cert?, key?, ca?, work}]; without cert and key no certificate is presented; `ca` replaces the other

Each case opens its own channel. With `work` true it encrypts and decrypts, otherwise it makes one call that must not
be answered. Prints one JSON object, case name to outcome.
"""

import importlib
import json
import pathlib
import sys
import tempfile

import grpc
import grpc_tools
from grpc_tools import protoc

TIMEOUT_SECONDS = 20
# Every byte value, so that nothing on the way takes it for text.
PLAINTEXT = bytes(range(256))


def stubs(proto, out):
    """The modules of crypto.proto, generated into `out`."""
    files = sorted(str(path) for path in pathlib.Path(proto).glob("vault/v1/*.proto"))
    well_known = str(pathlib.Path(grpc_tools.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{proto}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(arguments + files) != 0:
        raise SystemExit("protoc does not compile the .proto files")
    sys.path.insert(0, out)
    return importlib.import_module("vault.v1.crypto_pb2"), importlib.import_module("vault.v1.crypto_pb2_grpc")


def read(path):
    return pathlib.Path(path).read_bytes() if path else None


def work(stub, messages):
    """Encrypts and decrypts; the gateway must also refuse what was damaged and what lacks a field."""
    place = {"tenant": "acme", "dataset": "customers", "purpose": "billing", "context": {"field": "name"}}
    sealed = stub.Encrypt(messages.EncryptRequest(plaintext=PLAINTEXT, subject="c-1", **place), timeout=TIMEOUT_SECONDS)
    if PLAINTEXT in sealed.envelope or len(sealed.envelope) != len(PLAINTEXT) + 94:
        return "not an envelope"

    def decrypt(envelope, **changed):
        request = messages.DecryptRequest(envelope=envelope, subject="c-1", **{**place, **changed})
        return stub.Decrypt(request, timeout=TIMEOUT_SECONDS)

    if decrypt(sealed.envelope).plaintext != PLAINTEXT:
        return "decrypted to something else"
    flipped = sealed.envelope[:-1] + bytes([sealed.envelope[-1] ^ 1])
    for envelope, changed in ((flipped, {}), (sealed.envelope, {"context": {"field": "mail"}}), (sealed.envelope, {"tenant": ""})):
        try:
            decrypt(envelope, **changed)
            return "opened what it must not"
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
                return f"unexpected {error.code().name}"
    return "ok"


def run(case, config, modules):
    messages, services = modules
    credentials = grpc.ssl_channel_credentials(
        root_certificates=read(case.get("ca", config["ca"])),
        private_key=read(case.get("key")),
        certificate_chain=read(case.get("cert")),
    )
    with grpc.secure_channel(config["target"], credentials) as channel:
        stub = services.CryptoServiceStub(channel)
        try:
            if case["work"]:
                return work(stub, messages)
            request = messages.EncryptRequest(tenant="acme", dataset="customers", purpose="billing", plaintext=b"x")
            stub.Encrypt(request, timeout=TIMEOUT_SECONDS)
            return "answered"
        except grpc.RpcError as error:
            return error.code().name


def main():
    config = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as out:
        modules = stubs(config["proto"], out)
        print(json.dumps({case["name"]: run(case, config, modules) for case in config["cases"]}))


main()
