"""A small server that speaks as much of the Hugging Face hub's protocol as a download needs, on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants


class Hub:
    """Serves folders as models.

    Attributes:
        models: folder by name.
        refusals: name → HTTP status and the hub's error code, instead of the model.
        hangs: whether the server accepts requests and never answers.
        truncated: name of a file of which only half is sent.
        requests: what was asked.
    """

    def __init__(self) -> None:
        self.models: dict[str, Path] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.hangs = False
        self.truncated = ""
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *arguments: Any) -> None:
                hub.requests.append(f"{self.command} {self.path}")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name: str) -> str:
        """Another one whenever a file of the model changes."""
        contents = [path.read_bytes() for path in self.files(name).values()]
        return hashlib.sha1(b"".join(contents)).hexdigest()

    def files(self, name: str) -> dict[str, Path]:
        """The files of a model, those in its folders too, by their names in the repository."""
        folder = self.models[name]
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        while self.hangs:
            time.sleep(0.1)
        path = request.path.partition("?")[0].strip("/").removeprefix("api/models/")
        name = "/".join(path.split("/")[:2])
        rest = path.removeprefix(name).strip("/").split("/")
        if name in self.refusals or name not in self.models:
            status, code = self.refusals.get(name, (404, "RepoNotFound"))
            send(request, b"{}", status, {"X-Error-Code": code})
            return
        files = self.files(name)
        if rest[0] == "tree":
            tree = [
                {"type": "file", "path": key, "size": file.stat().st_size, "oid": oid(file)}
                for key, file in files.items()
            ]
            send(request, json.dumps(tree).encode())
        elif rest[0] == "resolve":
            file = files["/".join(rest[2:])]
            size = str(file.stat().st_size)
            about = {"ETag": f'"{oid(file)}"', "X-Repo-Commit": self.commit(name), "X-Linked-Size": size}
            send(request, file.read_bytes(), headers=about, half=file.name == self.truncated)
        else:
            siblings = [{"rfilename": key} for key in files]
            send(request, json.dumps({"id": name, "sha": self.commit(name), "siblings": siblings}).encode())


def point_at(hub: Hub, patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Have huggingface_hub ask ``hub`` alone, and keep in ``cache`` what it gets."""
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setenv("NO_PROXY", "127.0.0.1")


def oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def send(
    request: BaseHTTPRequestHandler,
    content: bytes,
    status: int = 200,
    headers: dict[str, str] | None = None,
    half: bool = False,
) -> None:
    asked = request.headers.get("Range", "bytes=0-").removeprefix("bytes=")
    first = int(asked.partition("-")[0])
    content, about = content[first:], dict(headers or {})
    if first:
        status, about["Content-Range"] = 206, f"bytes {first}-{first + len(content) - 1}/{first + len(content)}"
    request.send_response(status)
    for key, value in {"Content-Length": str(len(content)), "Connection": "close", **about}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(content[: len(content) // 2] if half else content)
    request.close_connection = True
