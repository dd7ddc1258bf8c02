"""A small Hugging Face Hub on this machine: the parts of its HTTP API that the real client uses for models.

Repositories live in memory. ``failures`` makes chosen requests fail: by status, by a cut connection, by a hang.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_TestTokenOfTheLocalServer0123456789"
LFS_FROM = 2_000  # bytes


@dataclass
class Repository:
    """Commits by branch; a commit is all files by name."""

    private: bool
    branches: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)

    def files(self, revision: str) -> tuple[str, dict[str, bytes]]:
        if revision in self.branches:
            return self.branches[revision][-1]
        for commits in self.branches.values():
            for commit, files in commits:
                if commit == revision:
                    return commit, files
        raise KeyError(revision)


@dataclass
class Hub:
    """What the server holds, and how it is to misbehave.

    :ivar failures: path pattern to a status, ``"cut"``, or seconds to hang
    """

    user: str = "ada"
    role: str = "write"
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    failures: dict[str, Any] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def put(self, name: str, files: dict[str, bytes]) -> None:
        """A repository as someone else left it."""
        self.repositories[name] = Repository(False, {"main": [(_commit_id(files), files)]})


def _commit_id(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1(str(time.time_ns()).encode())
    for name in sorted(files):
        digest.update(name.encode() + files[name])
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, value: Any = None, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, text)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _fails(self, path: str, body: bytes) -> bool:
        for pattern, how in self.hub.failures.items():
            if not re.search(pattern, f"{self.command} {path}"):
                continue
            if how == "cut":
                self.close_connection = True
                self.connection.close()
            elif isinstance(how, float):
                time.sleep(how)
                self._send(500, {"error": "late"})
            else:
                status, headers = how if isinstance(how, tuple) else (how, {})
                self._send(status, {"error": f"status {status}"}, headers)
            return True
        return False

    def _answer(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.hub.requests.append(f"{self.command} {path}")
        if self._fails(path, body):
            return
        authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                getattr(self, method)(authorized, body, *match.groups())
                return
        self._send(404, {"error": "no such route"})

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _answer

    # -- who, create, delete

    def whoami(self, authorized: bool, body: bytes) -> None:
        if not authorized:
            self._send(401, {"error": "Invalid credentials"})
            return
        token = {"displayName": "test", "role": self.hub.role}
        self._send(200, {"type": "user", "name": self.hub.user, "orgs": [], "auth": {"accessToken": token}})

    def create(self, authorized: bool, body: bytes) -> None:
        if not authorized:
            self._send(401, {"error": "Invalid credentials"})
            return
        asked = json.loads(body)
        name = f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repositories:
            self._send(409, {"error": "You already created this model repo", **url})
            return
        first = {".gitattributes": b"*.zip filter=lfs\n"}
        self.hub.repositories[name] = Repository(
            asked.get("visibility") == "private", {"main": [(_commit_id(first), first)]}
        )
        self._send(200, url)

    def validate(self, authorized: bool, body: bytes) -> None:
        assert "content" in json.loads(body)
        self._send(200, {"errors": [], "warnings": []})

    def delete(self, authorized: bool, body: bytes) -> None:
        asked = json.loads(body)
        self.hub.repositories.pop(f"{asked.get('organization') or self.hub.user}/{asked['name']}", None)
        self._send(200, {})

    def branch(self, authorized: bool, body: bytes, name: str, branch: str) -> None:
        repository = self.hub.repositories[name]
        if branch in repository.branches:
            self._send(409, {"error": "Reference already exists"})
            return
        repository.branches[branch] = [repository.branches["main"][-1]]
        self._send(200, {})

    def delete_branch(self, authorized: bool, body: bytes, name: str, branch: str) -> None:
        del self.hub.repositories[name].branches[branch]
        self._send(200, {})

    # -- reading

    def refs(self, authorized: bool, body: bytes, name: str) -> None:
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commits[-1][0]}
            for branch, commits in self.hub.repositories[name].branches.items()
        ]
        self._send(200, {"branches": branches, "converts": [], "tags": []})

    def _found(self, name: str, revision: str, authorized: bool) -> tuple[str, dict[str, bytes]] | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not authorized):
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        try:
            return repository.files(revision)
        except KeyError:
            self._send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
            return None

    def info(self, authorized: bool, body: bytes, name: str, revision: str | None = None) -> None:
        found = self._found(name, revision or "main", authorized)
        if found is not None:
            siblings = [{"rfilename": file, "size": len(content)} for file, content in found[1].items()]
            private = self.hub.repositories[name].private
            self._send(200, {"id": name, "sha": found[0], "private": private, "siblings": siblings, "tags": []})

    def tree(self, authorized: bool, body: bytes, name: str, revision: str) -> None:
        found = self._found(name, revision, authorized)
        if found is not None:
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in found[1].items()
            ]
            self._send(200, entries)

    def resolve(self, authorized: bool, body: bytes, name: str, revision: str, file: str) -> None:
        found = self._found(name, revision, authorized)
        if found is None:
            return
        commit, files = found
        if file not in files:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        tag = hashlib.sha256(files[file]).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": commit, "Content-Length": str(len(files[file]))}
        self._send(200, files[file], headers)

    # -- writing

    def preupload(self, authorized: bool, body: bytes, name: str, revision: str) -> None:
        if not authorized:
            self._send(401, {"error": "Invalid credentials"})
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= LFS_FROM else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def batch(self, authorized: bool, body: bytes, name: str) -> None:
        objects = [
            {
                "oid": entry["oid"],
                "size": entry["size"],
                **(
                    {}
                    if entry["oid"] in self.hub.large
                    else {"actions": {"upload": {"href": f"{self.hub.url}/upload/{entry['oid']}", "header": {}}}}
                ),
            }
            for entry in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})

    def upload(self, authorized: bool, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self._send(200, {})

    def commit(self, authorized: bool, body: bytes, name: str, revision: str) -> None:
        if not authorized:
            self._send(401, {"error": "Invalid credentials"})
            return
        commits = self.hub.repositories[name].branches[revision]
        files = dict(commits[-1][1])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"])
        commit = _commit_id(files)
        commits.append((commit, files))
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self._send(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    (r"GET /api/whoami-v2", "whoami"),
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (r"DELETE /api/repos/delete", "delete"),
    (rf"POST /api/models/{_NAME}/branch/(.+)", "branch"),
    (rf"DELETE /api/models/{_NAME}/branch/(.+)", "delete_branch"),
    (rf"GET /api/models/{_NAME}/refs", "refs"),
    (rf"POST /api/models/{_NAME}/preupload/(.+)", "preupload"),
    (rf"POST /api/models/{_NAME}/commit/(.+)", "commit"),
    (rf"GET /api/models/{_NAME}/tree/(.+)", "tree"),
    (rf"GET /api/models/{_NAME}/revision/(.+)", "info"),
    (rf"GET /api/models/{_NAME}", "info"),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /upload/(.+)", "upload"),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/([^/]+)/(.+)", "resolve"),
)


@contextmanager
def serving() -> Iterator[Hub]:
    """A server of its own, on a free port."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
