"""An OTLP collector for logs, over HTTPS with a client certificate, that prints what it was sent.

It decodes with the messages that OpenTelemetry generates (PyPI `opentelemetry-proto`). Arguments: roots, certificate, key.
Prints its port, then one JSON object for each log record.
"""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = ExportLogsServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        # Nothing may be in it that OpenTelemetry's own messages do not know.
        known = ExportLogsServiceRequest()
        known.CopyFrom(request)
        known.DiscardUnknownFields()
        good = (
            known.SerializeToString() == request.SerializeToString()
            and self.path == "/v1/logs"
            and self.headers["Content-Type"] == "application/x-protobuf"
        )
        for resource in request.resource_logs:
            service = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    said = MessageToDict(record)
                    said.update(service=service, scope=scope.scope.name, good=good)
                    print(json.dumps(said), flush=True)
        answer = ExportLogsServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def main():
    roots, certificate, key = sys.argv[1:]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(roots)
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


main()
