"""Encrypts and decrypts one value through a running gateway, from the descriptor set alone.

    python3 try.py 127.0.0.1:8443 DIR/certs [TEXT]

Needs: pip install grpcio protobuf
"""
import pathlib
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

address, certs = sys.argv[1], pathlib.Path(sys.argv[2])
text = sys.argv[3] if len(sys.argv) > 3 else "hello from Python"

files = descriptor_pb2.FileDescriptorSet.FromString((certs / "vault.binpb").read_bytes())
pool = descriptor_pool.DescriptorPool()
for file in files.file:
    pool.Add(file)
service = pool.FindServiceByName("vault.v1.CryptoService")


def call(channel, method, **fields):
    rpc = service.FindMethodByName(method)
    request = message_factory.GetMessageClass(rpc.input_type)
    answer = message_factory.GetMessageClass(rpc.output_type)
    unary = channel.unary_unary(
        f"/{service.full_name}/{method}", request_serializer=request.SerializeToString, response_deserializer=answer.FromString
    )
    return unary(request(**fields), timeout=10)


credentials = grpc.ssl_channel_credentials(
    (certs / "server-ca.pem").read_bytes(), (certs / "billing.key").read_bytes(), (certs / "billing.pem").read_bytes()
)
port = address.rsplit(":", 1)[1]
with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
    about = dict(tenant="acme", dataset="customers", purpose="billing", context={"field": "note"})
    sealed = call(channel, "Encrypt", plaintext=text.encode(), **about)
    print("envelope:", sealed.envelope.hex())
    opened = call(channel, "Decrypt", envelope=sealed.envelope, **about)
    print("plaintext:", opened.plaintext.decode())
