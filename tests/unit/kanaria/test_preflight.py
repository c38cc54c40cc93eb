"""Replaying golden requests against a version over HTTP: every way in which an answer can differ is found."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from contract.answer_types import Labels
from contract.model_files import GOLDEN_FILE, Feature, Schema
from contract.recorded import RecordedFolder, RecordedRequest
from contract.records import write_lines
from kanaria.cli import app
from kanaria.settings import Settings
from kanaria.stack.bentos import service_of
from kanaria.stack.compatibility import GoldenRequest
from kanaria.stack.ports import free_port
from kanaria.stack.preflight import SHOWN_DIFFERENCES, LocalPreflight, memory_mb, replay
from rollout.explain.why import preflight_lines
from rollout.fleet import Backend
from rollout.ledger.events import StableSet
from rollout.ledger.findings import PreflightResult
from rollout.ledger.ledger import Ledger
from rollout.spec import parse_spec
from tests.support.running_server import running_server

TAG = "m:2"
GOLDEN = GoldenRequest(
    features=[[1.0], [2.0]],
    predictions=[{"label": "a", "confidence": 0.9}, {"label": "b", "confidence": 0.5}],
)
RIGHT = {"request_id": "x", "version": TAG, "predictions": GOLDEN.predictions}


@contextmanager
def answering(answer: dict[str, Any] | bytes, status: int = 200) -> Iterator[Backend]:
    """A version that gives the same answer to every request."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        server.daemon_threads = True
        yield Backend(TAG, "127.0.0.1", server.server_port)


def with_row(**fields: object) -> dict[str, Any]:
    """The right answer with its second row changed."""
    return RIGHT | {"predictions": [GOLDEN.predictions[0], {**GOLDEN.predictions[1], **fields}]}


@pytest.mark.parametrize("answer", [RIGHT, with_row(confidence=0.5004), with_row(more="is fine"), RIGHT | {"extra": 1}])
def test_expected_answers_pass(answer: dict[str, Any]) -> None:
    """Numbers within the tolerance and new fields pass too."""
    with answering(answer) as canary:
        replayed = replay(canary, [GOLDEN, GOLDEN])
    assert (replayed.differences, len(replayed.took_ms)) == ((), 2)


@pytest.mark.parametrize(
    ("answer", "status", "difference"),
    [
        (with_row(label="c"), 200, "row 1: `label` is 'c', expected 'b'"),
        (with_row(confidence=0.52), 200, "row 1: `confidence` is 0.52, expected 0.5"),
        (with_row(confidence="0.5"), 200, "row 1: `confidence` is '0.5', expected 0.5"),
        (RIGHT | {"predictions": [{"label": "a"}, GOLDEN.predictions[1]]}, 200, "row 0 lacks `confidence`"),
        (RIGHT | {"predictions": []}, 200, "0 answers to 2 rows"),
        (RIGHT | {"version": "m:1"}, 200, "answered by m:1"),
        (b"{", 200, "the answer breaks the contract"),
        ({"predictions": "none"}, 200, "the answer breaks the contract"),
        ({"title": "no"}, 500, 'HTTP 500, {"title": "no"}'),
    ],
)
def test_an_answer_that_differs_is_shown(answer: dict[str, Any] | bytes, status: int, difference: str) -> None:
    """The message has the number of its request."""
    with answering(answer, status) as canary:
        found = replay(canary, [GOLDEN]).differences
    assert found[0].startswith(f"golden request 0: {difference}")


def test_a_missing_answer_ends_the_replay() -> None:
    """A version that hung or closed the connection is not asked again."""
    found = replay(Backend(TAG, "127.0.0.1", free_port()), [GOLDEN] * 3).differences
    assert (len(found), "golden request 0 got no answer" in found[0]) == (1, True)


def test_a_model_without_golden_requests_does_not_pass() -> None:
    """No data is never a pass."""
    assert replay(Backend(TAG, "127.0.0.1", free_port()), []).differences


def test_memory_is_that_of_the_whole_process_tree() -> None:
    """It is known for this process and unknown for one that is gone."""
    own = memory_mb(os.getpid())
    assert (own is not None and own > 10, memory_mb(2**22 + 1)) == (True, None)


def test_a_broken_model_folder_is_a_difference(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The release learns the reason and rolls back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("empty")))
        result = LocalPreflight({}.get, service_of).check(Backend(TAG, "127.0.0.1", free_port()), "m:1")
    assert "there is no Bento m:2" in result.differences[0]


MANIFEST = """
schema:
  routes:
  - {route: /detect, output: {properties: {label: {type: string}}}}
  - {route: /rare, output: {type: object}}
services: []
"""
WITHOUT_RARE = MANIFEST.replace("  - {route: /rare, output: {type: object}}\n", "")
ANSWERED = {"label": "en", "confidence": 0.9}


def of_service(
    folder: Path, plan: str, *, canary: dict[str, Any], manifest: str = MANIFEST, record: bool = True
) -> PreflightResult:
    """The preflight of `m:2` against `m:1`, which both lack the contract; requests to both routes are recorded."""
    for version, text in (("1", MANIFEST), ("2", manifest)):
        bento = folder / "bentos" / "m" / version
        bento.mkdir(parents=True)
        (bento / "bento.yaml").write_text(text)
    for route in ("/detect", "/rare") if record else ():
        RecordedFolder(folder / "recorded").keep(
            RecordedRequest(
                at_s=0.0, version="m:1", route=route, method="POST", path=route, headers={}, body=b"{}", status=200,
                media_type="application/json", encoding="", answer=json.dumps(ANSWERED).encode(), answer_digest="00",
            )
        )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, answering(ANSWERED) as stable, answering(canary) as own:
        patch.setenv("BENTOML_HOME", str(folder))
        preflight = LocalPreflight({}.get, service_of, Settings(home=folder))
        beside = Backend("m:1", stable.host, stable.port)
        return preflight.check(own, "m:1", parse_spec(plan), beside=beside)


def test_recorded_requests_are_replayed_only_if_the_plan_asks_for_it(tmp_path: Path) -> None:
    """A replayed request may change data."""
    result = of_service(tmp_path, "", canary={})
    assert (result.differences, result.recorded_requests) == ((), 0)
    assert "its plan has no `golden: recorded`, so its answers are first seen under traffic" in result.remarks[-1]


def test_a_field_that_callers_would_miss_fails_the_version(tmp_path: Path) -> None:
    """The fields of each route are compared; `why` reports it like a failed golden request."""
    result = of_service(tmp_path, "golden: recorded", canary={"label": "en"})
    assert [difference.partition(";")[0] for difference in result.differences] == [
        "its answers at /detect lack `confidence`",
        "its answers at /rare lack `confidence`",
    ]
    assert result.recorded_requests == 2


def test_routes_are_left_out_and_losses_allowed_by_name(tmp_path: Path) -> None:
    """Allowed losses are reported."""
    plan = "golden: {requests: recorded, leave_out: [/rare]}\nmay_break: [/detect confidence]"
    result = of_service(tmp_path, plan, canary={"label": "en"})
    assert (result.differences, result.recorded_requests, len(result.allowed)) == ((), 1, 1)
    said = list(preflight_lines(result, "m:1"))
    assert said[0].startswith("Its answers at /detect lack `confidence`; on stable it is a number")
    assert said[0].endswith("which its plan allows.")
    assert not any("accepts every request" in line for line in said)


def test_a_misspelt_route_to_leave_out_stops_the_replay(tmp_path: Path) -> None:
    """The requests that the person meant may be the ones that must not run twice."""
    result = of_service(tmp_path, "golden: {requests: recorded, leave_out: [/rares]}", canary={})
    assert (result.differences, result.recorded_requests) == ((), 0)
    why = "because `leave_out` names /rares, a route of neither version (theirs are /detect, /rare)"
    assert why in result.remarks[-1]


def test_the_command_refuses_a_misspelt_route_to_leave_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses before anything starts. For a plan, `kanaria validate` checks the routes of stable."""
    of_service(tmp_path, "", canary={})
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path))
    given = ("preflight", "m:2", "--against", "m:1", "--recorded", "--leave-out")
    done = CliRunner().invoke(app, [*given, "/rares"])
    assert (done.exit_code, "no version has that route; did you mean `/rare`?" in done.output) == (2, True)

    ledger = Ledger(tmp_path / "ledger.db")
    ledger.append(StableSet(at_s=1, tag="m:1"))
    ledger.close()
    plan = tmp_path / "plan.yaml"
    for route, is_told in (("/rares", True), ("/rare", False)):
        plan.write_text(f"golden: {{requests: recorded, leave_out: [{route}]}}")
        validated = CliRunner().invoke(app, ["validate", str(plan)])
        assert (validated.exit_code, f"requests to {route} are to be left out" in validated.output) == (0, is_told)


def test_only_routes_that_both_versions_have_are_compared(tmp_path: Path) -> None:
    """A route may disappear if the plan says so, and so may the requests to it."""
    gone = of_service(tmp_path / "a", "golden: recorded", canary=ANSWERED, manifest=WITHOUT_RARE)
    assert gone.differences == ("it has no route /rare",)
    plan = "golden: recorded\nmay_break: [/rare]"
    allowed = of_service(tmp_path / "b", plan, canary=ANSWERED, manifest=WITHOUT_RARE)
    assert (allowed.differences, allowed.allowed) == ((), ("it has no route /rare",))


def test_a_plan_that_needs_recorded_requests_and_has_none_says_so(tmp_path: Path) -> None:
    """A lack of traffic is not a fault of the version."""
    result = of_service(tmp_path, "golden: recorded", canary=ANSWERED, record=False)
    assert (result.differences, result.recorded_requests) == ((), 0)
    assert "no request to /detect, /rare is recorded: `kanaria record` keeps some" in result.remarks[0]
    assert "nothing is recorded, so its answers are first seen under traffic" in result.remarks[1]


def test_a_long_list_of_differences_is_cut_and_counted(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A model that is wrong everywhere must not fill the ledger."""
    home = tmp_path_factory.mktemp("store")
    model, bento = home / "models" / "m" / "2", home / "bentos" / "m" / "2"
    for folder in (model, bento):
        folder.mkdir(parents=True)
    (model / "model.yaml").touch()
    Schema(features=(Feature(name="x", minimum=0, maximum=9),), answer=Labels(labels=("a", "b"))).write(model)
    write_lines(model / GOLDEN_FILE, [GOLDEN] * 10)
    (bento / "bento.yaml").write_text("args: {implementation: 'a:B'}\nservices: [{models: [{tag: 'm:2'}]}]")
    with pytest.MonkeyPatch.context() as patch, answering(with_row(label="c")) as canary:
        patch.setenv("BENTOML_HOME", str(home))
        result = LocalPreflight({TAG: os.getpid()}.get, service_of).check(canary, None)
    assert (len(result.differences), result.differences[-1]) == (SHOWN_DIFFERENCES + 1, "and 7 more like these")
    assert (result.golden_requests, (result.memory_mb or 0) > 10, (result.p50_ms or 0) > 0) == (10, True, True)
