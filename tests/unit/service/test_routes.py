"""The two endpoints as ASGI apps without a server: what a client gets when something behind them fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import torch
from prometheus_client import REGISTRY

from contract.answer_types import Labels
from contract.model_files import Feature, Schema
from service.contract import Model
from service.logs.answers import AnswerLog
from service.server.batching import Batcher
from service.server.http import MAX_BODY_BYTES, Handlers, Route, _connection
from service.server.metrics import Metrics
from service.server.parsing import BodyParser

VERSION = "numbers:1"
KIND = Labels(labels=("even", "odd"))


class Parity(Model):
    """Classifies numbers as even or odd, and fails on 13."""

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        if (batch == 13).any():
            raise RuntimeError("secret of the model")
        return torch.nn.functional.one_hot(batch[:, 0].long() % 2, 2).float()


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    """One set of series: Prometheus allows only one per process."""
    return Metrics(VERSION, "numbers:m", KIND)


class Served:
    """The routes of a real model; a test may choose the limits."""

    def __init__(self, folder: Path, metrics: Metrics, opened: ExitStack) -> None:
        Schema(features=(Feature(name="number", minimum=0, maximum=99),), answer=KIND).write(folder)
        self.model, self.metrics, self.opened, self.answers_folder = Parity(folder), metrics, opened, folder

    def post(
        self,
        path: str,
        content: bytes | AsyncIterator[bytes],
        *,
        max_waiting_rows: int = 100,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        answers = self.opened.enter_context(
            AnswerLog(
                self.answers_folder,
                VERSION,
                count_feedback=self.metrics.of_labels.count_feedback,
                count_labels=self.metrics.of_labels.count_labels,
                count_disagreement=self.metrics.count_disagreement,
                count_pairs=self.metrics.of_labels.count_pairs,
                count_dropped=self.metrics.count_dropped,
                count_failure=lambda: self.metrics.count_log_failure("answers"),
                labels=KIND.labels,
            )
        )
        count = self.metrics.count_predictions
        batcher = self.opened.enter_context(Batcher(self.model, max_waiting_rows=max_waiting_rows, count=count))
        handlers = Handlers(VERSION, BodyParser(self.model.schema), batcher, answers)
        route = {
            "/predict": Route("/predict", VERSION, handlers.predict, self.metrics),
            "/feedback": Route("/feedback", VERSION, handlers.feedback, self.metrics),
        }[path]

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(route, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.post(path, content=content, headers=headers)

        return asyncio.run(ask())


@pytest.fixture
def served(tmp_path: Path, metrics: Metrics) -> Iterator[Served]:
    with ExitStack() as opened:
        yield Served(tmp_path, metrics, opened)


def test_a_model_error_is_a_500_without_its_details(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """The client gets an id; the log has the same id and the stack trace."""
    answer = served.post("/predict", b'{"features": [[13]]}')
    problem, logged = answer.json(), capsys.readouterr().out
    assert (answer.status_code, problem["status"], "secret" in answer.text) == (500, 500, False)
    assert ("request_failed" in logged, "secret of the model" in logged, problem["request_id"] in logged) == (
        True,
        True,
        True,
    )


def test_a_copied_request_is_answered_but_not_counted(served: Served) -> None:
    """It counts neither as a request nor in the times, classes and confidences, even if it fails."""
    before = counted()
    for body in (b'{"features": [[2]]}', b'{"features": [[3], [4]]}', b"{}", b'{"features": [[13]]}'):
        served.post("/predict", body, headers={"x-kanaria-copy": "compare"})
    assert counted() == before
    answer = served.post("/predict", b'{"features": [[2]]}', headers={"x-kanaria-copy": "compare"})
    assert answer.json()["predictions"][0]["label"] == "even"
    served.post("/predict", b'{"features": [[2]]}')
    assert sum(counted().values()) > sum(before.values())


def counted() -> dict[tuple[str, ...], float]:
    """The counts of requests and predictions, by series and labels."""
    counts = ("kanaria_request", "kanaria_prediction", "kanaria_confidence")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith(counts) and not sample.name.endswith("_created")
    }


@pytest.mark.parametrize(
    ("client", "known"),
    [(("127.0.0.1", 4711), True), (("10.0.0.7", 0), False), (None, False), (("", 0), False), (("::1", 1), True)],
)
def test_a_connection_is_identified_by_its_port(client: tuple[str, int] | None, known: bool) -> None:
    """Behind a proxy that names the client in headers all connections look alike, so no request counts as alone."""
    assert (_connection({"type": "http", "client": client}) is not None) is known
    assert _connection({"type": "http"}) is None


def test_rows_beyond_the_queue_limit_get_a_503_with_retry_after(served: Served) -> None:
    """The answer is a problem with a Retry-After header."""
    answer = served.post("/predict", b'{"features": [[1], [2]]}', max_waiting_rows=1)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_label_outside_the_schema_gets_a_422_that_names_it(served: Served) -> None:
    """The sender made a mistake; the label counts neither as right nor as wrong."""
    given = served.post("/predict", b'{"features": [[3]]}').json()["request_id"]
    for label in ("seven", "\u001b[2J", "", "odd "):
        answer = served.post("/feedback", json.dumps({"request_id": given, "labels": [label]}).encode())
        assert (answer.status_code, answer.json()["pointer"]) == (422, "#/labels")
        assert repr(label) in answer.json()["detail"]
    assert served.post("/feedback", json.dumps({"request_id": given, "labels": ["odd"]}).encode()).status_code == 200


def test_feedback_gets_a_503_while_answers_cannot_be_read(served: Served) -> None:
    """A disk failure is the service's fault, not the caller's."""
    served.answers_folder = served.answers_folder / "schema.json"  # a file in place of the folder
    answer = served.post("/feedback", b'{"request_id": "a", "labels": ["odd"]}')
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_predictions_work_without_a_folder_for_answers(served: Served) -> None:
    """A request is answered even if its answer cannot be recorded."""
    served.answers_folder = served.answers_folder / "schema.json"
    assert served.post("/predict", b'{"features": [[3]]}').json()["predictions"][0]["label"] == "odd"


def test_a_body_of_unknown_length_is_refused_at_the_limit(served: Served) -> None:
    """A client that streams without end is refused at 4 MiB."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(2 * MAX_BODY_BYTES // 65_536):
            yield b" " * 65_536

    assert served.post("/predict", endless()).status_code == 413


def asked(served: Served, by: str, *numbers: int) -> None:
    """Send a request with the id that all callers in these tests use."""
    headers = {"x-request-id": "order-1", "x-kanaria-caller": by}
    body = json.dumps({"features": [[number] for number in numbers]}).encode()
    assert served.post("/predict", body, headers=headers).status_code == 200


def labelled(served: Served, by: str, *labels: str) -> tuple[int, bool | None]:
    body = json.dumps({"request_id": "order-1", "labels": labels}).encode()
    answer = served.post("/feedback", body, headers={"x-kanaria-caller": by})
    return answer.status_code, answer.json().get("counted")


def test_an_answer_belongs_to_the_key_that_received_it(served: Served) -> None:
    """For another key the id is unknown, and its attempts do not affect the owner's feedback."""
    asked(served, "shop", 2)
    assert [labelled(served, by, "odd") for by in ("mallory", "default")] == [(404, None), (404, None)]
    assert labelled(served, "shop", "even") == (200, True)


def test_another_key_with_the_same_request_id_cannot_make_a_label_fail(served: Served) -> None:
    """Each key has its own answer with its own number of rows, in any order."""
    asked(served, "mallory", 1, 2)
    asked(served, "shop", 2)
    asked(served, "mallory", 1, 2, 3)
    assert labelled(served, "shop", "even") == (200, True)
    assert labelled(served, "mallory", "odd", "even") == (200, True)


@pytest.mark.parametrize("by", ["shop", "default"])
def test_the_first_answer_to_a_request_id_is_kept(served: Served, by: str) -> None:
    """A second request with the same id does not replace it."""
    asked(served, by, 2)
    asked(served, by, 1, 2)
    assert labelled(served, by, "odd", "even") == (422, None)
    assert labelled(served, by, "even") == (200, True)


def test_a_version_without_a_gateway_has_one_default_caller(served: Served) -> None:
    """This was true for all versions before keys had names."""
    served.post("/predict", b'{"features": [[2]]}', headers={"x-request-id": "order-1"})
    assert labelled(served, "default", "even") == (200, True)
