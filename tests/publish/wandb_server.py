"""A W&B server on loopback, as much of one as a run needs: it keeps runs, their history and their artifacts."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ServerRun:
    """What the server knows of a run; `config` is in W&B's own form, {"key": {"value": ...}}."""

    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


class WandbServer:
    """Keeps runs by name, artifacts as they were asked for, and the name of every GraphQL operation.

    Without `takes_history` it greets a run and then falls silent. The next requests that bring history get the answers
    of `failures`, if there are any; each answer comes after `delay_s`. Only `keys` are let in, where there are some.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServerRun] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.operations: list[str] = []
        self.takes_history = True
        self.failures: list[int] = []
        self.delay_s = 0.0
        self.keys: set[str] = set()
        self.uploads: list[str] = []
        self.uses: list[tuple[str, str]] = []
        self.views: dict[str, dict[str, Any]] = {}
        self._closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"wandb": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def lets_in(self, authorisation: str) -> bool:
        key = base64.b64decode(authorisation.removeprefix("Basic ")).decode().removeprefix("api:")
        return not self.keys or key in self.keys

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/file_stream"):
            if not self.takes_history:
                self._closing.wait()  # never answers
            return self._take_stream(path.split("/")[-2], body)
        operation = body.get("operationName") or body["query"].split("(")[0].split()[-1]
        self.operations.append(operation)
        method = getattr(self, "_on_" + re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", operation).lower(), None)
        return {"data": method(body.get("variables") or {}) if method else {}}

    def _take_stream(self, run: str, body: dict[str, Any]) -> dict[str, Any]:
        files = body.get("files") or {}
        for line in files.get("wandb-history.jsonl", {}).get("content", []):
            self.runs[run].history.append(json.loads(line))
        for line in files.get("wandb-summary.json", {}).get("content", []):
            self.runs[run].summary = json.loads(line)
        return {"limits": {}}

    def _on_run_resume_status(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(variables["name"])
        return {"model": {"id": "p", "name": "gradients", "entity": _ENTITY, "bucket": run and _bucket(variables, run)}}

    def _on_upsert_bucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        inserted = variables["name"] not in self.runs
        run = self.runs.setdefault(variables["name"], ServerRun())
        run.fields |= {key: value for key, value in variables.items() if value is not None}
        run.config |= json.loads(variables.get("config") or "{}")
        run.tags = variables.get("tags") or run.tags
        return {"upsertBucket": {"bucket": _bucket(variables, run), "inserted": inserted}}

    def _on_viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "u", "username": "someone", "entity": "team", "flags": "{}", "teams": {"edges": []}}}

    def _on_project_views(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Say which views of a type there are, one a page."""
        mine = [view for view in self.views.values() if view["type"] == variables["viewType"]]
        first = int(variables.get("cursor") or 0)
        edges = [
            {"node": {name: view[name] for name in ("id", "name", "displayName")}} for view in mine[first : first + 1]
        ]
        page = {"endCursor": str(first + 1), "hasNextPage": first + 1 < len(mine)}
        return {"project": {"allViews": {"edges": edges, "pageInfo": page}}}

    def _on_upsert_view(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Make a view where no id is given, or change the one that has it; leave a name that is not given."""
        inserted = variables.get("id") is None
        identity = variables.get("id") or f"Vmlldzo{len(self.views)}"
        given = {key: value for key, value in variables.items() if value is not None}
        view = self.views.get(identity, {"name": f"name{len(self.views)}"}) | given | {"id": identity}
        self.views[identity] = view
        return {"upsertView": {"view": view, "inserted": inserted}}

    def _on_artifact_type(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def _on_create_run_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.uploads += variables["files"]
        files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _on_create_artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Say that the server has this very content already, so that nothing is uploaded."""
        asked = variables["input"]
        self.artifacts[asked["artifactCollectionName"]] = asked
        identity = asked["artifactCollectionName"]
        return {"createArtifact": {"artifact": {"id": identity, "state": "COMMITTED", "artifactSequence": {"id": "s"}}}}

    def _on_artifact_byid(self, variables: dict[str, Any]) -> dict[str, Any]:
        asked = self.artifacts[variables["id"]]
        return {"artifact": _ARTIFACT | {"id": variables["id"], "digest": asked["digest"]}}


_ENTITY = {"id": "e", "name": "team"}
_PROJECT = {"id": "p", "internalId": "p", "name": "gradients", "entity": _ENTITY}

_ARTIFACT = {
    "artifactSequence": {"name": "any", "project": _PROJECT},
    "artifactType": {"name": "any"},
    "versionIndex": 0,
    "description": None,
    "metadata": None,
    "ttlDurationSeconds": -2,
    "ttlIsInherited": True,
    "tags": [],
    "historyStep": None,
    "state": "COMMITTED",
    "size": 0,
    "commitHash": None,
    "fileCount": 0,
    "createdAt": "2024-01-01T00:00:00Z",
    "updatedAt": None,
    "aliases": [],
}


def _bucket(variables: dict[str, Any], run: ServerRun) -> dict[str, Any]:
    return {
        "id": variables["name"],
        "name": variables["name"],
        "displayName": run.fields.get("displayName"),
        "project": _PROJECT,
        "config": json.dumps(run.config),
        "tags": run.tags,
        "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": len(run.history),
        "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
        "logLineCount": 0,
        "eventsLineCount": 0,
        "eventsTail": "[]",
        "wandbConfig": json.dumps({"t": {}}),
    }


class _Handler(BaseHTTPRequestHandler):
    wandb: WandbServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        time.sleep(self.wandb.delay_s)
        if self.path == "/upload":
            status, answer = 200, {}
        elif not self.wandb.lets_in(self.headers.get("Authorization", "")):
            status, answer = 401, {"errors": [{"message": "user is not logged in"}]}
        elif self.path.endswith("/file_stream") and b"wandb-history" in data and self.wandb.failures:
            status, answer = self.wandb.failures.pop(0), {}
        else:
            status, answer = 200, self.wandb.answer(self.path, json.loads(data))
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST
