"""A hub in miniature, over real HTTP: repositories, commits, LFS uploads; it counts requests."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class Hub:
    """Repositories by id: files, whether private, commit."""

    def __init__(self) -> None:
        self.repos: dict[str, dict] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.url = ""

    def add(self, repo: str, files: dict[str, bytes], private: bool = True) -> str:
        self.repos[repo] = {"files": dict(files), "private": private}
        return self.commit(repo)

    def commit(self, repo: str) -> str:
        """A commit is named by what is in it."""
        digest = hashlib.sha1(repo.encode())
        for name, content in sorted(self.repos[repo]["files"].items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()

    def fetched(self) -> set[str]:
        """Files whose content was asked for."""
        found = {r for r in self.requests if r.startswith("GET ") and "/resolve/" in r}
        return {unquote(r.rsplit("/", 1)[1]) for r in found}


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def reply(self, value, status=200, headers=None, body=True) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(key, text)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def missing(self, code: str, body=True) -> None:
        self.reply({"error": code}, 404, {"X-Error-Code": code}, body)

    def read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def handle_one(self, method: str) -> None:
        content, path = self.read(), unquote(self.path.partition("?")[0])
        self.hub.requests.append(f"{method} {self.path}")
        for pattern, action in ROUTES:
            if found := re.fullmatch(pattern, f"{method} {path}"):
                action(self, content, *found.groups())
                return
        self.missing("NoRoute")

    def do_GET(self) -> None:
        self.handle_one("GET")

    def do_HEAD(self) -> None:
        self.handle_one("HEAD")

    def do_POST(self) -> None:
        self.handle_one("POST")

    def do_PUT(self) -> None:
        self.handle_one("PUT")

    def info(self, _, repo, _rest=None, revision=None) -> None:
        if repo not in self.hub.repos:
            return self.missing("RepoNotFound")
        commit, about = self.hub.commit(repo), self.hub.repos[repo]
        if revision not in (None, "main", commit):
            return self.missing("RevisionNotFound")
        siblings = [{"rfilename": name} for name in sorted(about["files"])]
        private = about["private"]
        return self.reply({"id": repo, "sha": commit, "private": private, "siblings": siblings})

    def tree(self, _, repo) -> None:
        files = self.hub.repos[repo]["files"]
        about = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
        self.reply(
            [{"type": "file", "path": n, "size": len(files[n]), "oid": o} for n, o in about.items()]
        )

    def resolve(self, _, method, repo, revision, name) -> None:
        body = method == "GET"
        files = self.hub.repos.get(repo, {}).get("files", {})
        if name not in files:
            return self.missing("EntryNotFound", body)
        content, commit = files[name], self.hub.commit(repo)
        tag = hashlib.sha256(content).hexdigest()
        return self.reply(content, 200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit}, body=body)

    def create(self, content) -> None:
        asked = json.loads(content)
        repo = f"{asked['organization']}/{asked['name']}"
        address = {"url": f"{self.hub.url}/{repo}"}
        if repo in self.hub.repos:
            return self.reply({"error": "exists"} | address, 409)
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.add(repo, {".gitattributes": b"x"}, private)
        return self.reply(address)

    def validate(self, _) -> None:
        self.reply({"errors": [], "warnings": []})

    def preupload(self, content, _repo) -> None:
        names = [f["path"] for f in json.loads(content)["files"]]
        modes = [
            {"path": n, "uploadMode": "lfs" if n.endswith(".safetensors") else "regular"}
            for n in names
        ]
        self.reply({"files": [m | {"shouldIgnore": False} for m in modes]})

    def batch(self, content, _repo) -> None:
        upload = {"href": f"{self.hub.url}/blobs/"}
        objects = [
            o | {"actions": {"upload": {"href": upload["href"] + o["oid"]}}}
            for o in json.loads(content)["objects"]
        ]
        self.reply({"transfer": "basic", "objects": objects})

    def blob(self, content, oid) -> None:
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.blobs[oid] = content
        self.reply({})

    def commit(self, content, repo) -> None:
        for line in content.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                self.hub.repos[repo]["files"][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                self.hub.repos[repo]["files"][value["path"]] = self.hub.blobs[value["oid"]]
        commit = self.hub.commit(repo)
        self.reply({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (rf"GET /api/models/{REPO}(/revision/([\w.-]+))?", Handler.info),
    (rf"GET /api/datasets/{REPO}(/revision/([\w.-]+))?", Handler.info),
    (rf"GET /api/datasets/{REPO}/tree/[\w.-]+", Handler.tree),
    (rf"(GET|HEAD) /(?:datasets/)?{REPO}/resolve/([\w.-]+)/(.+)", Handler.resolve),
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"POST /api/models/{REPO}/preupload/main", Handler.preupload),
    (rf"POST /{REPO}.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /blobs/(\w+)", Handler.blob),
    (rf"POST /api/models/{REPO}/commit/main", Handler.commit),
)


@contextmanager
def running():
    """The hub, listening on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def on(monkeypatch, cache):
    """The client talks to the miniature hub, keeps its cache at ``cache``, and has no secrets."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "made-up")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        close_session()
        try:
            yield hub
        finally:
            close_session()
