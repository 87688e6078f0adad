"""A server on this machine that stands in for Hugging Face's hub: a few models, and all that can go wrong with them.

It speaks what huggingface_hub asks for: HEAD and GET of /{repo}/resolve/{revision}/{file} with ETag and X-Repo-Commit;
large files (safetensors) are redirected to another host, as the hub does, with X-Linked-Etag and X-Linked-Size; Range.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """Files of one commit, by name; `refs` are branches and tags that name it."""

    files: dict[str, bytes]
    commit: str = COMMIT
    refs: tuple[str, ...] = ("main",)

    def etag(self, name: str) -> str:
        content = self.files[name]
        if name.endswith(".safetensors"):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """`cuts[file]`: after how many bytes each coming answer breaks off; `wrong[file]`: what is sent in its place."""

    repos: dict[str, Repo] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    wrong: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, file, Range
    port: int = 0

    def __enter__(self) -> Hub:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gets(self, file: str) -> list[str | None]:
        """The Range of every GET of this file, in order."""
        return [span for method, name, span in self.requests if method == "GET" and name == file]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        cdn = parts[0] == "cdn"
        parts = parts[1:] if cdn else parts
        if len(parts) < 5 or parts[2] != "resolve":
            return self._refuse("RepoNotFound")
        name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        self.hub.requests.append((self.command, file, self.headers.get("Range")))
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._refuse("RepoNotFound")
        if revision not in (repo.commit, *repo.refs):
            return self._refuse("RevisionNotFound")
        if file not in repo.files:
            return self._refuse("EntryNotFound", repo.commit)
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{repo.etag(file)}"'}
        if file.endswith(".safetensors") and not cdn:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(repo.files[file]))}
            headers["Location"] = f"http://localhost:{self.hub.port}/cdn{self.path}"
            return self._send(302, headers, b"", body)
        content = self.hub.wrong.get(file, repo.files[file])
        span = self.headers.get("Range")
        if span and body:
            start = int(span.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._send(206, headers, content[start:], body, file)
        return self._send(200, headers, content, body, file)

    def _refuse(self, code: str, commit: str | None = None) -> None:
        headers = {"X-Error-Code": code} | ({"X-Repo-Commit": commit} if commit else {})
        self._send(404, headers, b"", True)

    def _send(self, status: int, headers: dict[str, str], content: bytes, body: bool, file: str = "") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and self.hub.cuts.get(file):
            content = content[: self.hub.cuts[file].pop(0)]
            self.close_connection = True
        if body:
            self.wfile.write(content)
