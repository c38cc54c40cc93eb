"""What an observer records of answers, and how labels are joined to them."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from contract.http import CALLER_HEADER
from contract.own_answers import OwnAnswers
from kanaria.stack.observer_feedback import feedback_app
from kanaria.stack.observer_records import KeptRecords, RecordSettings
from observer.reading import NO_ROW, Said
from observer.records import Asked
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("serve")

LABELS = OwnAnswers.model_validate({"/detect": {"label": "label"}})
NUMBERS = OwnAnswers.model_validate({"/price": {"number": "price"}})
COLUMNS = OwnAnswers.model_validate(
    {"/detect": {"label": "label", "features": {"age": "age"}, "words": {"country": "country"}}}
)


class Observed:
    """The records of an observer in a folder."""

    def __init__(self, folder: Path, *, predictions_mb: int = 1) -> None:
        self.registry, self.folder = CollectorRegistry(), folder
        settings = RecordSettings(folder / "answers", folder / "predictions", predictions_mb * 1_000_000, b"key")
        self.records = KeptRecords(settings, self.registry)
        self.records.expect(LABELS)

    def tell(self, body: Any, *, method: str = "POST", caller: str | None = None) -> httpx.Response:
        """Send a label, as the gateway would."""
        return asyncio.run(self._tell(body, method, {CALLER_HEADER: caller} if caller else {}))

    async def _tell(self, body: Any, method: str, headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(feedback_app(self.records))
        async with httpx.AsyncClient(transport=transport, base_url="http://observer") as client:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await client.request(
                method, "/feedback", content=content, headers={"x-request-id": "asks", **headers}
            )

    def counts(self, metric: str) -> dict[str, int]:
        """Counts by version and outcome, without zeros."""
        families = text_string_to_metric_families(generate_latest(self.registry).decode())
        samples = (sample for family in families for sample in family.samples if sample.name == metric)
        return {f"{each.labels['version']} {each.labels['outcome']}": int(each.value) for each in samples if each.value}

    def lines(self, version: str) -> list[Any]:
        """The lines of the prediction log."""
        found = (self.folder / "predictions" / version).glob("*.jsonl")
        return [json.loads(line) for path in found for line in path.read_text().splitlines()]


@pytest.fixture
def observed(tmp_path: Path) -> Iterator[Observed]:
    made = Observed(tmp_path)
    yield made
    made.records.close()


def truth(request: str, *labels: object) -> dict[str, object]:
    return {"request_id": request, "labels": list(labels)}


def test_a_label_is_joined_to_the_answer_and_counted_once(observed: Observed) -> None:
    observed.records.record("m:v1", Asked("a"), Said("spam", 0.9), NO_ROW)
    observed.records.record("m:v2", Asked("b"), Said("spam"), NO_ROW)
    assert observed.tell(truth("a", "spam")).json() == {"request_id": "a", "counted": True}
    assert observed.tell(truth("b", "ham")).json()["counted"] is True
    assert observed.tell(truth("b", "spam")).json()["counted"] is False
    expected = {"m:v1 correct": 1, "m:v2 wrong": 1}
    eventually(lambda: observed.counts("kanaria_feedback_total") == expected)


def test_a_label_matches_only_answers_of_the_callers_own_key(observed: Observed) -> None:
    """A caller who guessed another caller's id could label that answer first, or make its label fail."""
    observed.records.record("m:v1", Asked("a", "shop"), Said("spam"), NO_ROW)
    assert [observed.tell(truth("a", "ham"), caller=other).status_code for other in ("bank", "default", None)] == [
        404
    ] * 3
    observed.records.record("m:v2", Asked("a", "bank"), Said("ham"), NO_ROW)  # another key: another request
    observed.records.record("m:v1", Asked("a", "bank"), Said("eggs"), NO_ROW)
    assert observed.tell(truth("a", "spam"), caller="shop").json()["counted"] is True
    eventually(lambda: observed.counts("kanaria_feedback_total") == {"m:v1 correct": 1})


def test_the_first_answer_to_an_id_stays(observed: Observed) -> None:
    observed.records.record("m:v1", Asked("a", "shop"), Said("spam"), NO_ROW)
    observed.records.record("m:v1", Asked("a", "shop"), Said("ham"), NO_ROW)
    assert observed.tell(truth("a", "spam"), caller="shop").json()["counted"] is True
    eventually(lambda: observed.counts("kanaria_feedback_total") == {"m:v1 correct": 1})


def test_a_label_for_an_unobserved_answer_is_refused_with_the_reason_and_counted(
    observed: Observed,
) -> None:
    observed.records.record("m:v1", Asked("a"), Said("spam"), NO_ROW)
    answer = observed.tell(truth("b", "spam"))
    assert answer.status_code == 404
    assert "there is no answer to request b" in answer.json()["detail"]
    assert "see `observe` in the plan" in answer.json()["detail"]
    assert "kanaria_observer_unknown_labels_total 1.0" in generate_latest(observed.registry).decode()
    assert observed.counts("kanaria_feedback_total") == {}


def test_labels_distinguish_two_versions_that_answered_one_request(observed: Observed) -> None:
    """This is the case in the shadow step.

    Differing answers are not counted here, because whole answers are compared.
    """
    for version, label in (("m:v1", "spam"), ("m:v2", "ham")):
        observed.records.record(version, Asked("a"), Said(label), NO_ROW)
    observed.tell(truth("a", "spam"))
    expected = {"m:v1 better": 1, "m:v2 worse": 1}
    eventually(lambda: observed.counts("kanaria_paired_labels_total") == expected)
    assert "kanaria_disagreement" not in generate_latest(observed.registry).decode()


def test_the_answer_to_a_copied_request_is_only_compared(observed: Observed) -> None:
    """It is neither a labelled prediction of its version nor a row of the prediction log."""
    observed.records.record("m:v1", Asked("a"), Said("spam"), NO_ROW)
    observed.records.record("m:v2", Asked("a"), Said("ham"), NO_ROW, is_copy=True)
    observed.tell(truth("a", "spam"))
    expected = {"m:v1 better": 1, "m:v2 worse": 1}
    eventually(lambda: observed.counts("kanaria_paired_labels_total") == expected)
    assert observed.counts("kanaria_feedback_total") == {"m:v1 correct": 1}
    observed.records.close()
    assert (len(observed.lines("m@v1")), len(observed.lines("m@v2"))) == (1, 0)


def test_an_answer_without_a_label_is_always_wrong(observed: Observed) -> None:
    observed.records.record("m:v1", Asked("a"), Said(), NO_ROW)
    assert observed.tell(truth("a", "spam")).is_success
    eventually(lambda: observed.counts("kanaria_feedback_total") == {"m:v1 wrong": 1})


@pytest.mark.parametrize(
    ("label", "told", "outcome"), [("3", 3, "correct"), ("true", True, "correct"), ("3", 4, "wrong")]
)
def test_a_label_may_be_sent_as_a_number_or_a_boolean(
    observed: Observed, label: str, told: object, outcome: str
) -> None:
    observed.records.record("m:v1", Asked("a"), Said(label), NO_ROW)
    assert observed.tell(truth("a", told)).is_success
    eventually(lambda: observed.counts("kanaria_feedback_total") == {f"m:v1 {outcome}": 1})


def test_a_number_within_the_tolerance_is_right(observed: Observed) -> None:
    observed.records.expect(NUMBERS)
    for request, told in (("a", 101), ("b", 200.0)):
        observed.records.record("m:v1", Asked(request), Said(100.0), NO_ROW)
        assert observed.tell(truth(request, told)).is_success
    eventually(lambda: observed.counts("kanaria_feedback_total") == {"m:v1 correct": 1, "m:v1 wrong": 1})
    assert observed.tell(truth("a", "100")).status_code == 422


def test_a_label_that_arrives_before_its_answer_may_be_sent_again(observed: Observed) -> None:
    observed.records.record("m:v1", Asked("other"), Said("spam"), NO_ROW)
    refused = observed.tell(truth("a", "spam"))
    assert (refused.status_code, refused.headers["content-type"]) == (404, "application/problem+json")
    assert "no answer to request a" in refused.json()["detail"]
    observed.records.record("m:v1", Asked("a"), Said("spam"), NO_ROW)
    assert observed.tell(truth("a", "spam")).json()["counted"] is True


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"no json", 422, "JSON"),
        ([], 422, "x-request-id of an answer"),
        (truth("a"), 422, "at least 1"),
        (truth("a", "x", "y"), 422, "at most 1"),
        (truth("a", None), 422, "expected a label"),
        (truth("a", ["x"]), 422, "expected a label"),
        (truth("a", 0.5), 422, "expected a label"),
        (truth("a", "x" * 4000), 422, "expected a label"),
        ({"request_id": 3, "labels": ["x"]}, 422, "request_id"),
        ({"request_id": "a", "labels": ["x"], "more": 1}, 422, "more"),
        (b" " * 20_000, 413, "larger than"),
    ],
)
def test_an_invalid_label_is_refused_with_the_reason(observed: Observed, body: Any, status: int, says: str) -> None:
    observed.records.record("m:v1", Asked("a"), Said("spam"), NO_ROW)
    answer = observed.tell(body)
    assert (answer.status_code, answer.json()["request_id"]) == (status, "asks")
    assert says in answer.json()["detail"]


def test_before_the_first_answer_labels_must_wait(observed: Observed) -> None:
    answer = observed.tell(truth("a", "spam"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert observed.tell(b"", method="GET").status_code == 405


def test_only_the_declared_columns_of_requests_are_kept(observed: Observed, tmp_path: Path) -> None:
    """They have the format of a model's prediction log."""
    observed.records.expect(COLUMNS)
    observed.records.record("m:v1", Asked("a"), Said("spam", 0.9), (41.0, "jp"))
    observed.records.record("m:v1", Asked("b"), Said(), (None, None))
    observed.records.close()
    folder = tmp_path / "predictions" / "m@v1"
    columns = json.loads((folder / "columns.json").read_text())
    assert columns == {
        "version": "m:v1",
        "model": "",
        "features": ["age", "country"],
        "words": ["country"],
        "hashed": [],
    }
    first, second = observed.lines("m@v1")
    assert first["request"] == {"features": [[41.0, "jp"]]}
    assert first["answer"] == {
        "request_id": "a",
        "version": "m:v1",
        "predictions": [{"label": "spam", "confidence": 0.9}],
    }
    assert second["request"] == {"features": [[None, None]]}
    assert (folder.stat().st_mode & 0o077, next(folder.glob("*.jsonl")).stat().st_mode & 0o077) == (0, 0)


def test_rows_of_earlier_columns_do_not_stay_beside_new_ones(observed: Observed) -> None:
    """Nothing would tell them apart."""
    observed.records.record("m:v1", Asked("a"), Said("spam"), NO_ROW)
    observed.records.expect(COLUMNS)
    observed.records.record("m:v1", Asked("b"), Said("spam"), (1.0, "jp"))
    observed.records.close()
    assert [line["answer"]["request_id"] for line in observed.lines("m@v1")] == ["b"]


def test_without_a_prediction_log_answers_are_kept_only_for_labels(tmp_path: Path) -> None:
    observed = Observed(tmp_path, predictions_mb=0)
    observed.records.record("m:v1", Asked("a"), Said("spam"), NO_ROW)
    assert observed.tell(truth("a", "spam")).is_success
    observed.records.close()
    assert not (tmp_path / "predictions").exists()


def test_many_versions_keep_few_files_open(observed: Observed, tmp_path: Path) -> None:
    for number in range(10):
        observed.records.record(f"m:v{number}", Asked("a"), Said("spam"), NO_ROW)
    assert len(list((tmp_path / "answers").glob("*.spool"))) <= 10
    observed.records.close()
    with closing(sqlite3.connect(tmp_path / "answers" / "answers.db")) as table:
        assert table.execute("SELECT count(*) FROM answers").fetchone() == (10,)
