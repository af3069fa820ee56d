"""A small server that speaks as much of the Hugging Face hub's protocol as downloads need, on this machine.

Models and data sets; the redirect of a name to its owner's; commits, etags and HEAD; large files from another address,
as the hub's storage has them; parts of files.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

LARGE = (".safetensors", ".parquet")
"""Files that the hub keeps in another place, and sends there for."""
STORAGE = "storage"


class Hub:
    """Serves folders as models and data sets.

    Attributes:
        models: folder by name.
        datasets: likewise.
        aliases: name → the name that it is redirected to.
        refusals: name → HTTP status and the hub's error code, instead of the model or data set.
        hangs: whether the server accepts requests and never answers.
        truncated: name of a file of which only half is sent.
        requests: what was asked.
    """

    def __init__(self) -> None:
        self.models: dict[str, Path] = {}
        self.datasets: dict[str, Path] = {}
        self.aliases: dict[str, str] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.hangs = False
        self.truncated = ""
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            do_GET = do_POST = do_HEAD

            def log_message(self, *arguments: Any) -> None:
                hub.requests.append(f"{self.command} {self.path}")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        port = self.server.server_address[1]
        self.url, self.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}/{STORAGE}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.hangs = False
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name: str) -> str:
        """Another one whenever a file of the model or data set changes."""
        contents = [path.read_bytes() for path in self.files(name).values()]
        return hashlib.sha1(b"".join(contents)).hexdigest()

    def files(self, name: str) -> dict[str, Path]:
        """The files of a repository, those in its folders too, by their names in it."""
        folder = (self.models | self.datasets)[name]
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        while self.hangs:
            time.sleep(0.1)
        path = unquote(request.path.partition("?")[0]).strip("/")
        is_api, path = path.startswith("api/"), path.removeprefix("api/")
        is_dataset = path.startswith("datasets/")
        path = path.removeprefix("datasets/").removeprefix("models/")
        if path.startswith(f"{STORAGE}/"):
            name, file = path.removeprefix(f"{STORAGE}/").split(":")
            content = self.files(name)[file]
            send(request, content.read_bytes(), half=content.name == self.truncated)
            return
        name, rest = self.named(path)
        if name in self.aliases:
            send(request, b"", 307, {"Location": f"/{request.path.strip('/').replace(name, self.aliases[name], 1)}"})
            return
        known = self.datasets if is_dataset else self.models
        if name in self.refusals or name not in known:
            status, code = self.refusals.get(name, (404, "RepoNotFound"))
            send(request, b"{}", status, {"X-Error-Code": code})
        elif is_api:
            self.describe(request, name, rest, body)
        else:
            self.give(request, name, rest)

    def named(self, path: str) -> tuple[str, list[str]]:
        """The repository that a path begins with, and the rest of the path."""
        known = {**self.models, **self.datasets, **self.aliases, **self.refusals}
        name = next((name for name in known if f"{path}/".startswith(f"{name}/")), "/".join(path.split("/")[:2]))
        return name, path.removeprefix(name).strip("/").split("/")

    def describe(self, request: BaseHTTPRequestHandler, name: str, rest: list[str], body: bytes) -> None:
        """What the hub's interface says of a repository, of its files, or of some of them."""
        files = self.files(name)
        if rest[0] == "tree":
            inner = "".join(f"{part}/" for part in rest[2:])
            within = [key for key in files if key.startswith(inner)]
            if "recursive=true" not in request.path.lower():
                within = list(dict.fromkeys(inner + key.removeprefix(inner).split("/")[0] for key in within))
            send_json(request, [described(key, files.get(key)) for key in within])
        elif rest[0] == "paths-info":
            wanted = json.loads(body)["paths"]
            found = [key for key in wanted if any(f"{file}/".startswith(f"{key}/") for file in files)]
            send_json(request, [described(key, files.get(key)) for key in found])
        else:
            siblings = [{"rfilename": key} for key in files]
            about = {"id": name, "sha": self.commit(name), "siblings": siblings, "private": False, "tags": []}
            send_json(request, about)

    def give(self, request: BaseHTTPRequestHandler, name: str, rest: list[str]) -> None:
        """A file; a large one from the storage."""
        key = "/".join(rest[2:])
        if rest[0] != "resolve" or key not in self.files(name):
            send(request, b"Entry not found", 404, {"X-Error-Code": "EntryNotFound"})
            return
        file = self.files(name)[key]
        size, etag = str(file.stat().st_size), f'"{oid(file)}"'
        if file.suffix not in LARGE:
            about = {"ETag": etag, "X-Repo-Commit": self.commit(name)}
            send(request, file.read_bytes(), headers=about, half=file.name == self.truncated)
            return
        place = f"{self.storage}/{name}:{key}"
        about = {"X-Linked-Etag": etag, "X-Linked-Size": size, "X-Repo-Commit": self.commit(name), "Location": place}
        send(request, b"", 302, about)


def point_at(hub: Hub, patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Have huggingface_hub ask ``hub`` alone, and keep in ``cache`` what it gets."""
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")


def described(key: str, file: Path | None) -> dict[str, Any]:
    """What the hub says of a file, or of a folder."""
    if file is None:
        return {"type": "directory", "path": key, "oid": "0" * 40}
    about = {"type": "file", "path": key, "size": file.stat().st_size, "oid": oid(file)}
    return about | ({"lfs": {"oid": oid(file), "size": about["size"], "pointerSize": 1}} if key.endswith(LARGE) else {})


def oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def send_json(request: BaseHTTPRequestHandler, content: Any) -> None:
    send(request, json.dumps(content).encode(), headers={"Content-Type": "application/json"})


def send(
    request: BaseHTTPRequestHandler,
    content: bytes,
    status: int = 200,
    headers: dict[str, str] | None = None,
    half: bool = False,
) -> None:
    about = dict(headers or {})
    first, _, last = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
    if status == 200 and "Range" in request.headers:
        end = int(last) + 1 if last else len(content)
        status, about["Content-Range"] = 206, f"bytes {first}-{end - 1}/{len(content)}"
        content = content[int(first) : end]
    request.send_response(status)
    for key, value in {"Content-Length": str(len(content)), "Connection": "close", **about}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content[: len(content) // 2] if half else content)
    request.close_connection = True
