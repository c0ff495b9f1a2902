"""A real HTTP server that events and spans are sent to, and that does as it is told."""

import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """answers: the statuses of the next answers; then 200. held: answers wait until `go` is set."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    always: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    held: bool = False
    go: threading.Event = field(default_factory=threading.Event)
    came: threading.Condition = field(default_factory=threading.Condition)
    requests: list[Request] = field(default_factory=list)

    def take(self, request: Request) -> int:
        with self.came:
            self.requests.append(request)
            self.came.notify_all()
            status = self.answers.pop(0) if self.answers else self.always
        if self.held:
            self.go.wait(60)
        return status

    def until(self, condition: Callable[["Receiver"], Any], timeout_s: float = 30.0) -> None:
        """Until what came fulfils it."""
        with self.came:
            assert self.came.wait_for(lambda: condition(self), timeout_s), self.requests

    @property
    def spans(self) -> list[Any]:
        """Of every OTLP request."""
        with self.came:
            bodies = [request.body for request in self.requests if request.path == "/v1/traces"]
        read = [ExportTraceServiceRequest.FromString(body) for body in bodies]
        return [s for one in read for of in one.resource_spans for scope in of.scope_spans for s in scope.spans]

    @property
    def logs(self) -> list[Any]:
        """The same of log records."""
        with self.came:
            bodies = [request.body for request in self.requests if request.path == "/v1/logs"]
        read = [ExportLogsServiceRequest.FromString(body) for body in bodies]
        return [r for one in read for of in one.resource_logs for scope in of.scope_logs for r in scope.log_records]


@contextmanager
def receiving(
    *, cert: tuple[Path, Path] | None = None, callers: Path | None = None, **values: Any
) -> Iterator[Receiver]:
    """cert: certificate and key; without, it speaks in clear. callers: who signs the certificates that it asks for."""
    made = Receiver(**values)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {key.lower(): value for key, value in self.headers.items()}
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            status = made.take(Request(self.path, headers, body))
            self.send_response(status)
            for key, value in made.headers.items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(made.body)))
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:  # who went away
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*cert)
        if callers is not None:
            context.load_verify_locations(callers)
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    made.url = f"http{'s' if cert else ''}://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        made.go.set()
        server.shutdown()
        server.server_close()
        thread.join()
