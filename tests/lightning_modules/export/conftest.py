"""A Hugging Face hub on loopback, as far as an upload needs one."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class FakeHub:
    """What was uploaded.

    Args:
        address: of the endpoint.
    """

    def __init__(self) -> None:
        self.address = ""
        self.created: list[dict[str, object]] = []
        self.files: dict[str, bytes] = {}
        self.refuses = False

    def answer(self, path: str, body: str) -> dict[str, object]:
        """The answer to a POST."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            private = asked.get("private") or asked.get("visibility") == "private"  # older versions, newer ones
            self.created.append({"name": asked["name"], "organization": asked["organization"], "private": private})
            return {"url": f"{self.address}/people/student"}
        if path.endswith("/preupload/main"):
            files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for each in json.loads(body)["files"]]  # fmt: skip
            return {"files": files}
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"commitUrl": f"{self.address}/people/student/commit/1", "commitOid": "1", "commitMessage": ""}
        return {"errors": [], "warnings": []}


@pytest.fixture
def fake_hub():
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            content = json.dumps(hub.answer(self.path, body)).encode()
            self.send_response(403 if hub.refuses else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()
    server.server_close()
