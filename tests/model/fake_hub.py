"""A hub on loopback: it answers huggingface_hub over real HTTP, with the real hub's headers and status codes.

It stands in for a service that tests must not depend on. Large files are redirected to another host name, as the real
hub redirects them to its storage.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MEMBER_TOKEN = "hf_member"  # of somebody who accepted the conditions of gated repositories


@dataclass
class Repository:
    """Files of each commit, and what the branches are at."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False


class FakeHub:
    """The server and its repositories; `requests` holds `METHOD /path` of everything that was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.status: int | None = None  # answer everything with this
        self.token_is_valid = True
        self.corrupt: set[str] = set()  # file names whose content is not what their hash says
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def commit(self, repository: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Put files on a branch and return the commit, which depends on their content alone."""
        digest = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        entry = self.repositories.setdefault(repository, Repository())
        entry.commits[digest] = dict(files)
        entry.branches[branch] = digest
        return digest

    def close(self) -> None:
        """Stop answering; afterwards the port is closed."""
        self._server.shutdown()
        self._server.server_close()

    def content(self, name: str, content: bytes) -> bytes:
        """The bytes that are sent for a file."""
        return b"\0" * len(content) if name in self.corrupt else content


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {path}")
            parts = [unquote(part) for part in path.strip("/").split("/")]
            if hub.status is not None:
                self._send(hub.status, b"out of order")
            elif not hub.token_is_valid:
                self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
            elif parts[0] == "storage":
                self._send_stored(parts[1])
            elif parts[:2] == ["api", "models"]:
                self._send_info("/".join(parts[2:4]), parts[5] if parts[4:5] == ["revision"] else "main")
            elif parts[2:3] == ["resolve"]:
                self._send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            else:
                self._send(404, b"")

        def _find(self, repository: str, revision: str) -> str | None:
            """Return the commit, or answer with the hub's error and return None."""
            entry = hub.repositories.get(repository)
            if entry is None:
                # The real hub says 401 to those without a token: it does not tell what is private.
                self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
                return None
            commit = entry.branches.get(revision, revision)
            if commit not in entry.commits:
                self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
                return None
            return commit

        def _send_info(self, repository: str, revision: str) -> None:
            if (commit := self._find(repository, revision)) is None:
                return
            siblings = []
            for name, content in hub.repositories[repository].commits[commit].items():
                sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": _git_hash(content)}
                if _is_large(name):
                    sha256 = hashlib.sha256(content).hexdigest()
                    sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
                siblings.append(sibling)
            answer = {"id": repository, "sha": commit, "siblings": siblings, "tags": [], "private": False}
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def _send_file(self, repository: str, revision: str, name: str) -> None:
            if (commit := self._find(repository, revision)) is None:
                return
            is_member = self.headers["Authorization"] == f"Bearer {MEMBER_TOKEN}"
            if hub.repositories[repository].gated and not is_member:
                self._send(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
                return
            content = hub.repositories[repository].commits[commit].get(name)
            headers = {"X-Repo-Commit": commit}
            if content is None:
                self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
            elif _is_large(name):
                sha256 = hashlib.sha256(content).hexdigest()
                headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
                # Another host name than the endpoint's: huggingface_hub treats the two differently.
                self._send(302, b"", {**headers, "Location": f"http://localhost:{hub.port}/storage/{sha256}"})
            else:
                self._send(200, hub.content(name, content), {**headers, "ETag": f'"{_git_hash(content)}"'})

        def _send_stored(self, sha256: str) -> None:
            for entry in hub.repositories.values():
                for files in entry.commits.values():
                    for name, content in files.items():
                        if hashlib.sha256(content).hexdigest() == sha256:
                            self._send(200, hub.content(name, content), {"ETag": f'"{sha256}"'})
                            return
            self._send(404, b"")

        def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")  # so that a hub which is closed answers nobody
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    return Handler


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
