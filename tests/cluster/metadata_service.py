"""The metadata services of AWS, Google Cloud and Azure on loopback: their paths, headers and answers, as documented."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

GCP_HEADERS = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}


@dataclass
class Service:
    """What one cloud answers; settable at any time.

    Attributes:
        documents: of AWS, by path below "latest": those that are there.
        tokens: of AWS, that are good.
        preempted: of Google Cloud.
        events: of Azure.
        machine: its name at Azure.
        broken: whether it answers 500 to everything.
        asked: the paths, in order.
        url: where it answers.
    """

    cloud: Literal["aws", "gcp", "azure", ""]
    documents: dict[str, str] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    preempted: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    machine: str = "worker_3"
    broken: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        """Return status, text and headers."""
        self.asked.append(path)
        if self.broken:
            return 500, "internal error", {}
        if self.cloud == "aws":
            return self._aws(method, path, headers)
        if self.cloud == "gcp":
            return self._gcp(method, path, headers)
        if self.cloud == "azure":
            return self._azure(method, path, headers)
        return 404, "", {}

    def _aws(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        if path == "/latest/api/token":
            if method != "PUT":
                return 405, "", {}
            if not headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit():
                return 400, "", {}
            self.tokens.append(f"token-{len(self.asked)}==")
            return 200, self.tokens[-1], {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        if headers.get("X-aws-ec2-metadata-token") not in self.tokens:
            return 401, "", {}
        documents = {"meta-data/instance-id": "i-0123456789abcdef0", **self.documents}
        text = documents.get(path.removeprefix("/latest/"))
        return (404, "<html>404 - Not Found</html>", {}) if text is None else (200, text, {})

    def _gcp(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        if headers.get("Metadata-Flavor") != "Google":
            return 403, "Missing Metadata-Flavor:Google header.", GCP_HEADERS
        if method == "GET" and path == "/computeMetadata/v1/instance/preempted":
            return 200, "TRUE" if self.preempted else "FALSE", GCP_HEADERS
        return 404, "", GCP_HEADERS

    def _azure(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        if headers.get("Metadata") != "true":
            return 400, '{"error": "Bad request. Required metadata header not specified"}', {}
        if path == "/metadata/instance/compute/name?api-version=2021-02-01&format=text":
            return 200, self.machine, {}
        if path == "/metadata/scheduledevents?api-version=2020-07-01":
            return 200, json.dumps({"DocumentIncarnation": 1, "Events": self.events}), {}
        return 404, '{"error": "Not found"}', {}


@contextlib.contextmanager
def serving(service: Service) -> Iterator[Service]:
    """Let `service` answer on loopback while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, text, headers = service.answer(self.command, self.path, self.headers)
            content = text.encode()
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": f"{len(content)}"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
