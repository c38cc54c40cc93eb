"""Replaying golden requests against a version over HTTP: every way in which an answer can differ is found."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from contract.answer_types import Labels
from contract.model_files import GOLDEN_FILE, Feature, Schema
from contract.records import write_lines
from kanaria.stack.bentos import service_of
from kanaria.stack.compatibility import GoldenRequest
from kanaria.stack.ports import free_port
from kanaria.stack.preflight import SHOWN_DIFFERENCES, LocalPreflight, memory_mb, replay
from rollout.fleet import Backend

TAG = "m:2"
GOLDEN = GoldenRequest(
    features=[[1.0], [2.0]],
    predictions=[{"label": "a", "confidence": 0.9}, {"label": "b", "confidence": 0.5}],
)
RIGHT = {"request_id": "x", "version": TAG, "predictions": GOLDEN.predictions}


@contextmanager
def answering(answer: dict[str, Any] | bytes, status: int = 200) -> Iterator[Backend]:
    """A version that says the same to everything."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Backend(TAG, "127.0.0.1", server.server_port)
        finally:
            server.shutdown()
            thread.join()


def with_row(**fields: object) -> dict[str, Any]:
    """The right answer, its second row changed."""
    return RIGHT | {"predictions": [GOLDEN.predictions[0], {**GOLDEN.predictions[1], **fields}]}


@pytest.mark.parametrize("answer", [RIGHT, with_row(confidence=0.5004), with_row(more="is fine"), RIGHT | {"extra": 1}])
def test_answers_as_expected_pass(answer: dict[str, Any]) -> None:
    """Numbers within the tolerance, and new fields."""
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
    """With the number of its request."""
    with answering(answer, status) as canary:
        found = replay(canary, [GOLDEN]).differences
    assert found[0].startswith(f"golden request 0: {difference}")


def test_no_answer_ends_the_replay() -> None:
    """What hangs or hung up is not asked again."""
    found = replay(Backend(TAG, "127.0.0.1", free_port()), [GOLDEN] * 3).differences
    assert (len(found), "golden request 0 got no answer" in found[0]) == (1, True)


def test_a_model_without_golden_requests_does_not_pass() -> None:
    """No data is never a pass."""
    assert replay(Backend(TAG, "127.0.0.1", free_port()), []).differences


def test_memory_is_that_of_the_whole_process_tree() -> None:
    """Of this very process it is known, of one that is gone it is not."""
    own = memory_mb(os.getpid())
    assert (own is not None and own > 10, memory_mb(2**22 + 1)) == (True, None)


def test_a_broken_model_folder_is_a_difference(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A release is told why, and rolls back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("empty")))
        result = LocalPreflight({}.get, service_of).check(Backend(TAG, "127.0.0.1", free_port()), "m:1")
    assert "there is no Bento m:2" in result.differences[0]


def test_a_long_list_of_differences_is_cut_and_counted(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A model that is wrong everywhere fills no ledger."""
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
