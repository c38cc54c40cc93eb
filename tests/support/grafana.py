"""A Grafana for tests: a real HTTP server that checks tokens, stores what is pushed and answers as Grafana 11 does.

Paths, status codes and messages follow https://grafana.com/docs/grafana/v11.6/developers/http_api/.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.running_server import running_server

ADMIN, EDITOR = "glsa_admin", "glsa_editor"
_ADMIN_ONLY = ("/api/datasources", "/api/v1/provisioning")
Body = dict[str, Any]
Answer = tuple[int, Any]


@dataclass
class FakeGrafana:
    """The content of the fake Grafana, which tests may read and change."""

    version: str = "11.6.0"
    data_sources: dict[str, Body] = field(default_factory=dict)
    folders: dict[str, Body] = field(default_factory=dict)
    boards: dict[str, Body] = field(default_factory=dict)  # uid -> {"dashboard", "folderUid"}
    contact_points: dict[str, Body] = field(default_factory=dict)
    annotations: list[Body] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)  # method and path of each accepted change
    before_write: Callable[[str], None] = lambda _: None  # called with the path before each change
    url: str = ""

    def answer(self, method: str, path: str, query: dict[str, list[str]], token: str, body: Body) -> Answer:
        if token not in (ADMIN, EDITOR):
            return 401, {"message": "Invalid API key", "messageId": "api-key.invalid", "statusCode": 401}
        if token == EDITOR and method != "GET" and path.startswith(_ADMIN_ONLY):
            return 403, {"message": "You'll need additional permissions to perform this action."}
        if method != "GET":
            self.before_write(path)
        for route, handle in self._routes().items():
            wanted, _, pattern = route.partition(" ")
            if method == wanted and (found := re.fullmatch(pattern, path)):
                status, given = handle(*found.groups(), query if method == "GET" else body)
                if method != "GET" and status < 300:
                    self.writes.append(f"{method} {path}")
                return status, given
        return 404, {"message": "Not found"}

    def _routes(self) -> dict[str, Callable[..., Answer]]:
        return {
            "GET /api/frontend/settings": lambda _: (200, {"buildInfo": {"version": self.version}}),
            "GET /api/datasources/uid/([^/]+)": self._get_data_source,
            "POST /api/datasources": self._add_data_source,
            "PUT /api/datasources/uid/([^/]+)": self._change_data_source,
            "GET /api/folders/([^/]+)": self._get_folder,
            "POST /api/folders": self._add_folder,
            "GET /api/dashboards/uid/([^/]+)": self._get_board,
            "POST /api/dashboards/db": self._save_board,
            "GET /api/v1/provisioning/contact-points": self._get_contact_points,
            "POST /api/v1/provisioning/contact-points": self._add_contact_point,
            "PUT /api/v1/provisioning/contact-points/([^/]+)": self._change_contact_point,
            "GET /api/annotations": self._find_annotations,
            "POST /api/annotations": self._add_annotation,
        }

    def _get_data_source(self, uid: str, _: Any) -> Answer:
        if uid not in self.data_sources:
            return 404, {"message": "Data source not found"}
        return 200, self.data_sources[uid]

    def _add_data_source(self, body: Body) -> Answer:
        if any(known["name"] == body["name"] for known in self.data_sources.values()):
            return 409, {"message": "data source with the same name already exists"}
        made = {"id": len(self.data_sources) + 1, "orgId": 1, "readOnly": False, "isDefault": False, **body}
        self.data_sources[body["uid"]] = made
        return 200, {"datasource": made, "id": made["id"], "message": "Datasource added", "name": body["name"]}

    def _change_data_source(self, uid: str, body: Body) -> Answer:
        if uid not in self.data_sources:
            return 404, {"message": "Data source not found"}
        if self.data_sources[uid]["readOnly"]:
            return 403, {"message": "Cannot update read-only data source"}
        self.data_sources[uid] |= body
        return 200, {"datasource": self.data_sources[uid], "message": "Datasource updated"}

    def _get_folder(self, uid: str, _: Any) -> Answer:
        return (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})

    def _add_folder(self, body: Body) -> Answer:
        if body["uid"] in self.folders:
            return 409, {"message": "a folder with that UID already exists"}
        self.folders[body["uid"]] = {"id": len(self.folders) + 1, "version": 1, **body}
        return 200, self.folders[body["uid"]]

    def _get_board(self, uid: str, _: Any) -> Answer:
        if uid not in self.boards:
            return 404, {"message": "Dashboard not found"}
        kept = self.boards[uid]
        return 200, {"dashboard": kept["dashboard"], "meta": {"folderUid": kept["folderUid"], "slug": uid}}

    def _save_board(self, body: Body) -> Answer:
        board, folder = body["dashboard"], body.get("folderUid", "")
        if folder and folder not in self.folders:
            return 400, {"message": "folder not found"}
        known = self.boards.get(board["uid"])
        if known and not body.get("overwrite"):
            if board.get("id") is None:
                return 412, {"message": "A dashboard with the same uid already exists", "status": "name-exists"}
            if board.get("version") != known["dashboard"]["version"]:
                message = "The dashboard has been changed by someone else"
                return 412, {"message": message, "status": "version-mismatch"}
        number = known["dashboard"]["id"] if known else len(self.boards) + 1
        version = known["dashboard"]["version"] + 1 if known else 1
        self.boards[board["uid"]] = {
            "dashboard": {**board, "id": number, "version": version},
            "folderUid": folder,
        }
        return 200, {"id": number, "uid": board["uid"], "status": "success", "version": version}

    def _get_contact_points(self, _: Any) -> Answer:
        shown = json.loads(json.dumps(list(self.contact_points.values())))
        for point in shown:
            point["settings"]["authorization_credentials"] = "[REDACTED]"
        return 200, shown

    def _add_contact_point(self, body: Body) -> Answer:
        if body["uid"] in self.contact_points:
            return 400, {"message": "contact point already exists"}
        self.contact_points[body["uid"]] = body
        return 202, body

    def _change_contact_point(self, uid: str, body: Body) -> Answer:
        if uid not in self.contact_points:
            return 404, {"message": f"contact point with uid '{uid}' not found"}
        self.contact_points[uid] = body
        return 202, {"message": "contactpoint updated"}

    def _find_annotations(self, query: dict[str, list[str]]) -> Answer:
        start, end = (int(query.get(name, [default])[0]) for name, default in (("from", "0"), ("to", "9" * 15)))
        tags = set(query.get("tags", []))
        found = (kept for kept in self.annotations if start <= kept["time"] <= end and tags <= set(kept["tags"]))
        return 200, list(itertools.islice(found, int(query.get("limit", ["100"])[0])))

    def _add_annotation(self, body: Body) -> Answer:
        if not body.get("text"):
            return 400, {"message": "Failed to save annotation"}
        self.annotations.append({"id": len(self.annotations) + 1, **body})
        return 200, {"id": len(self.annotations), "message": "Annotation added"}


@contextmanager
def running(grafana: FakeGrafana) -> Iterator[FakeGrafana]:
    """Serve `grafana` on a free port and set its `url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet; otherwise each answer waits 40 ms for an acknowledgement

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            parts = urlsplit(self.path)
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            status, given = grafana.answer(self.command, parts.path, parse_qs(parts.query), token, body)
            text = json.dumps(given).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json; charset=UTF-8")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - http.server requires these names

        def log_message(self, *_: object) -> None: ...

    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        server.daemon_threads = True  # a client may keep its connection
        grafana.url = f"http://127.0.0.1:{server.server_port}"
        yield grafana
