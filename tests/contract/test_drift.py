"""Drift reports read what the service writes: the prediction log, the answers and the model's files."""

import asyncio
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import orjson
import pytest

from contract.answer_types import Labels, Number, Prediction
from contract.answers_table import ANSWERS_FILE
from contract.model_files import REFERENCE_FILE, Feature, Schema
from contract.reference_file import MAX_REFERENCE_ROWS, write_reference
from monitoring.drift.compare import Logs, Period, data_drift, release_drift
from monitoring.drift.errors import AnswersUnreadable, NoLog, NoReference
from monitoring.drift.prediction_log import read_predictions
from monitoring.drift.reference import read_reference
from monitoring.drift.result import State
from monitoring.drift.rule import Rule
from monitoring.drift.sample import MISSING, draw, version_logs
from monitoring.drift.truth import answered
from service.logs.answers import AnswerLog, Feedback
from service.logs.predictions import PredictionLog
from tests.support.drift_pages import write_report
from tests.support.drifting import people, write_log, write_model

pytestmark = pytest.mark.needs("monitoring")

ALWAYS = Period(0.0, 4e9)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def logs(folder: Path) -> Logs:
    return Logs(predictions=folder / "predictions", answers=folder / "answers")


def single(rng: np.random.Generator, requests: int, *, older: float = 0.0) -> list[np.ndarray]:
    return list(people(rng, requests, older=older).reshape(requests, 1, 3))


def test_a_reference_excludes_columns_that_are_not_logged(tmp_path: Path, rng: np.random.Generator) -> None:
    """A private column is not in the reference; a feature named like a field of the answer gets a prefix."""
    write_model(tmp_path, people(rng, 300))
    assert set(read_reference(tmp_path).columns) == {"label", "confidence", "age", "feature.label"}


def test_a_reference_is_bounded(tmp_path: Path, rng: np.random.Generator) -> None:
    """The sample is the same each time, so repeated training gives the same signed files."""
    rows = people(rng, MAX_REFERENCE_ROWS + 500)
    write_model(tmp_path / "a", rows)
    write_model(tmp_path / "b", rows)
    first, second = ((tmp_path / name / REFERENCE_FILE).read_bytes() for name in "ab")
    assert (first.count(b"\n"), first == second) == (MAX_REFERENCE_ROWS, True)


def test_traffic_like_the_reference_is_not_drift(tmp_path: Path, rng: np.random.Generator) -> None:
    """Every column of the log is compared with the same column of the reference."""
    model = write_model(tmp_path / "model", people(rng, 1000))
    write_log(tmp_path / "predictions", "people:1", single(rng, 600))
    result = data_drift(logs(tmp_path), "people:1", model, ALWAYS, Rule()).result
    assert (result.state, result.rows, result.logged_requests) == (State.NO_DRIFT, 600, 600)
    assert {column.column for column in result.columns} == {"label", "confidence", "age", "feature.label"}
    assert result.left_out == ("`error`: 0 rows, 100 are needed",)


def test_rounding_to_single_precision_is_not_drift(tmp_path: Path) -> None:
    """The log holds 36.1 as it was sent, and the reference holds it as the model received it."""
    rows = np.tile(np.array([36.1, 5, 0.1], np.float32), (300, 1))
    model = write_model(tmp_path / "model", rows)
    write_log(tmp_path / "predictions", "people:1", list(rows.reshape(300, 1, 3)))
    (segment,) = tmp_path.glob("predictions/*/*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b"36.099998474121094", b"36.1"))
    result = data_drift(logs(tmp_path), "people:1", model, ALWAYS, Rule()).result
    assert (result.state, {column.score for column in result.columns}) == (State.NO_DRIFT, {0.0})


def test_different_traffic_is_reported_column_by_column(tmp_path: Path, rng: np.random.Generator) -> None:
    """Older people change the age, and with it the model's answers."""
    model = write_model(tmp_path / "model", people(rng, 1000))
    write_log(tmp_path / "predictions", "people:1", single(rng, 600, older=10))
    result = data_drift(logs(tmp_path), "people:1", model, ALWAYS, Rule()).result
    assert (result.state, [column.column for column in result.drifted]) == (State.DRIFT, ["age", "label"])
    assert (
        "in 2 of 4 columns from the data that people:1 was tested on (1 rose, 1 changed): `age` mean 4"
        in result.sentence
    )


def test_too_few_rows_are_a_separate_state(tmp_path: Path, rng: np.random.Generator) -> None:
    """The size of the difference does not matter."""
    model = write_model(tmp_path / "model", people(rng, 1000))
    write_log(tmp_path / "predictions", "people:1", single(rng, 99, older=40))
    result = data_drift(logs(tmp_path), "people:1", model, ALWAYS, Rule()).result
    assert (result.state, result.columns, result.rows) == (State.TOO_FEW_ROWS, (), 99)


def test_a_canary_with_different_answers_is_compared_with_stable(tmp_path: Path, rng: np.random.Generator) -> None:
    """Its confidence differs, but not the requests that both versions received."""
    times = np.linspace(1000, 1300, 400).tolist()
    write_log(tmp_path / "predictions", "people:1", single(rng, 400), at_s=times)
    write_log(tmp_path / "predictions", "people:2", single(rng, 400), at_s=times, unsure=0.2)
    result = release_drift(logs(tmp_path), "people:2", "people:1", ALWAYS, Rule()).result
    assert (result.against, [column.column for column in result.drifted]) == ("people:1", ["confidence"])


def test_traffic_that_drifts_during_a_release_is_not_the_canarys_drift(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """The canary got more of the later traffic, from older people; equal numbers are compared per half minute."""
    early, late = np.linspace(1000, 1599, 1000), np.linspace(1600, 2199, 1000)
    for version, shares in (("people:1", (900, 300)), ("people:2", (100, 700))):
        requests = single(rng, shares[0]) + single(rng, shares[1], older=15)
        times = [*np.sort(rng.choice(early, shares[0])), *np.sort(rng.choice(late, shares[1]))]
        write_log(tmp_path / "predictions", version, requests, at_s=times)
    result = release_drift(logs(tmp_path), "people:2", "people:1", ALWAYS, Rule()).result
    assert (result.state, result.rows > 300) == (State.NO_DRIFT, True)


def test_only_rows_of_the_period_are_drawn(tmp_path: Path, rng: np.random.Generator) -> None:
    """The start of the period is included, its end is not."""
    write_log(tmp_path, "people:1", single(rng, 5), at_s=[10.0, 20.0, 30.0, 40.0, 50.0])
    os.utime(next(tmp_path.glob("*/*.jsonl")), (50, 50))
    assert draw(tmp_path, "people:1", 20.0, 40.0, rows=100).at_s.tolist() == [20.0, 30.0]
    assert len(draw(tmp_path, "people:1", 60.0, 70.0, rows=100)) == 0


def test_a_sample_is_unbiased_and_bounded(tmp_path: Path, rng: np.random.Generator) -> None:
    """500 of 4,000 rows in requests of 1 to 10 rows are drawn; their mean is within four standard errors."""
    sizes = rng.integers(1, 11, 727)
    requests = [people(rng, size) for size in sizes]
    write_log(tmp_path, "people:1", requests)
    sample = draw(tmp_path, "people:1", 0.0, 1e12, rows=500)
    ages = np.concatenate(requests)[:, 0]
    assert (len(sample), sample.logged_requests) == (500, 727)
    assert abs(sample.values["age"].mean() - ages.mean()) < 4 * 10 / np.sqrt(500)
    assert sample.logged_rows == pytest.approx(len(ages), rel=0.15)


def test_only_an_unfinished_line_is_lost(tmp_path: Path, rng: np.random.Generator) -> None:
    """The process that wrote it was killed, or the disk was full."""
    write_log(tmp_path, "people:1", single(rng, 50))
    (segment,) = tmp_path.glob("*/*.jsonl")
    segment.write_bytes(segment.read_bytes() + b'{"at_s":1.0,"request":{"fea')
    assert len(draw(tmp_path, "people:1", 0.0, 1e12, rows=100)) == 50


def test_golden_requests_are_not_traffic(tmp_path: Path, rng: np.random.Generator) -> None:
    """Kanaria's preflight sent them, not a user."""
    write_log(tmp_path, "people:1", single(rng, 3))
    (segment,) = tmp_path.glob("*/*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"people:1-1"', b'"preflight-1"'))
    assert len(draw(tmp_path, "people:1", 0.0, 1e12, rows=100)) == 2


@pytest.mark.parametrize("version", ["people:1", "people:9"])
def test_a_missing_log_is_named(tmp_path: Path, rng: np.random.Generator, version: str) -> None:
    """There is no log at all, or none of that version."""
    if version == "people:9":
        write_log(tmp_path, "people:1", single(rng, 3))
    with pytest.raises(NoLog, match=r"logs of people:1" if version == "people:9" else "send some requests first"):
        draw(tmp_path, version, 0.0, 1e12, rows=10)


def test_a_model_without_a_reference_gets_advice(tmp_path: Path) -> None:
    """Its training did not write one."""
    with pytest.raises(NoReference, match="train it again"):
        read_reference(tmp_path)


PEOPLE = Schema(
    features=(
        Feature(name="sex", categories=("female", "male")),
        Feature(name="port", categories=("C", "Q"), may_be_missing=True),
        Feature(name="age", minimum=0, maximum=120, may_be_missing=True),
    ),
    answer=Labels(labels=("no", "yes")),
)


def passengers(rng: np.random.Generator, rows: int, *, men: float, unknown: float) -> np.ndarray:
    """Rows in the form that a model receives."""
    age = np.where(rng.random(rows) < unknown, np.nan, rng.normal(40, 10, rows))
    port = np.where(rng.random(rows) < unknown, np.nan, rng.integers(0, 2, rows))
    return np.column_stack([rng.random(rows) < men, port, age]).astype(np.float32)


def write_passengers(folder: Path, rows: np.ndarray, *, named: bool) -> None:
    """Log a request for each row as the service does."""
    with PredictionLog(folder, "m:1", "m:1", PEOPLE, max_bytes=10**9, count_dropped=print, count_failure=print) as log:
        for number, row in enumerate(rows):
            answer = orjson.dumps({"request_id": str(number), "predictions": [Prediction("yes", 0.9)]})
            log.record(
                orjson.dumps({"features": [PEOPLE.values(row.tolist())]}), row[None], answer, is_listed=not named
            )


@pytest.mark.parametrize("named", [False, True])
def test_categories_and_missing_values_are_checked_for_drift(
    tmp_path: Path, rng: np.random.Generator, named: bool
) -> None:
    """There are more men and more missing ages; the rows are listed or named."""
    PEOPLE.write(tmp_path)
    rows = passengers(rng, 1000, men=0.5, unknown=0.1)
    write_reference(tmp_path, rows, [Prediction("yes", 0.9)] * 1000, ["yes"] * 1000)
    assert set(read_reference(tmp_path).columns["port"].values) == {"C", "Q", MISSING}
    write_passengers(tmp_path / "predictions", passengers(rng, 1000, men=0.8, unknown=0.5), named=named)
    found = data_drift(logs(tmp_path), "m:1", tmp_path, ALWAYS, Rule())
    said = {column.column: column.says for column in found.result.columns if column.has_drifted}
    assert said.keys() == {"sex", "port", "age"}
    assert said["port"].startswith(f"`{MISSING}` 1")
    assert ("missing 1" in said["age"], "-> 5" in said["age"]) == (True, True), said
    pages = write_report(found, tmp_path / "data.html", tmp_path / "workspace").pages
    assert "<code>sex</code>" in pages[0].read_text().partition("</header>")[0]


def test_a_log_of_an_earlier_version_has_only_numbers(tmp_path: Path) -> None:
    """Its columns.json does not mention words."""
    (tmp_path / "m@1").mkdir()
    (tmp_path / "m@1" / "columns.json").write_text('{"version":"m:1","model":"m:1","features":["age"],"hashed":[]}')
    (tmp_path / "m@1" / "1000-1.jsonl").write_text(
        '{"at_s":1.0,"request":{"features":[[40]]},"answer":{"request_id":"r","predictions":[{"label":"a"}]}}\n'
    )
    assert draw(tmp_path, "m:1", 0.0, 1e12, rows=10).values["age"].tolist() == [40.0]


@pytest.mark.parametrize("left", ["a link to columns", "a link to a segment", "a link to a folder", "a pipe"])
def test_a_link_or_pipe_in_a_log_is_not_followed(tmp_path: Path, rng: np.random.Generator, left: str) -> None:
    """A version can put links into its own log to files that it cannot read itself. A pipe does not block."""
    write_log(tmp_path / "elsewhere", "people:2", single(rng, 5))
    write_log(tmp_path / "predictions", "people:1", single(rng, 5))
    elsewhere, own = tmp_path / "elsewhere" / "people@2", tmp_path / "predictions" / "people@1"
    (segment,) = elsewhere.glob("*.jsonl")
    if left == "a link to columns":
        (tmp_path / "predictions" / "x").mkdir()
        (tmp_path / "predictions" / "x" / "columns.json").symlink_to(elsewhere / "columns.json")
    elif left == "a link to a segment":
        (own / "1-1.jsonl").symlink_to(segment)
    elif left == "a link to a folder":
        (tmp_path / "predictions" / "x").symlink_to(elsewhere)
    else:
        os.mkfifo(own / "1-1.jsonl")
    assert list(version_logs(tmp_path / "predictions")) == ["people:1"]
    assert draw(tmp_path / "predictions", "people:1", 0.0, 1e12, rows=100).logged_requests == 5
    assert len(read_predictions(tmp_path / "predictions", 0.0)) == 5


async def _learn(folder: Path, truths: list[tuple[str, str]]) -> None:
    with AnswerLog(
        folder,
        "people:1",
        count_feedback=print,
        count_labels=print,
        count_disagreement=lambda **_: None,
        count_pairs=print,
        count_dropped=print,
        count_failure=lambda: None,
    ) as log:
        for number, (label, truth) in enumerate(truths):
            log.record(str(number), [label], body=b"")
            assert await log.learn(str(number), [truth]) is Feedback.ACCEPTED
            log.record(f"copy of {number}", [label], body=b"", is_copy=True)  # no user received it
            assert await log.learn(f"copy of {number}", [truth]) is Feedback.ACCEPTED
        log.record("unlabelled", ["yes"], body=b"")


def test_mistakes_are_computed_for_rows_with_feedback(tmp_path: Path) -> None:
    """They are read from the table in which the service matches feedback to its answers."""
    asyncio.run(_learn(tmp_path, [("yes", "yes"), ("yes", "no"), ("no", "no")]))
    known = answered(tmp_path, "people:1", 0.0, 1e12, requests=100)
    assert sorted(known.mistakes.values.tolist()) == [0.0, 0.0, 1.0]
    assert len(answered(tmp_path, "people:2", 0.0, 1e12, requests=100)) == 0
    assert len(answered(tmp_path / "none", "people:1", 0.0, 1e12, requests=100)) == 0


def test_answers_are_read_from_a_table_without_the_copy_column(tmp_path: Path) -> None:
    """An older Bento created the table."""
    asyncio.run(_learn(tmp_path, [("yes", "yes")]))
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:
        database.execute("DELETE FROM answers WHERE is_copy = 1")
        database.execute("ALTER TABLE answers DROP COLUMN is_copy")
        database.commit()
    assert len(answered(tmp_path, "people:1", 0.0, 1e12, requests=100)) == 1


@pytest.mark.parametrize(("labels", "truth"), [('["no", "no"]', '["yes"]'), ("torn", '["yes"]'), ('["no"]', "{")])
def test_a_label_that_does_not_fit_its_answer_affects_no_other(tmp_path: Path, labels: str, truth: str) -> None:
    """Each answer is compared with its own label, whatever else is in the file."""
    asyncio.run(_learn(tmp_path, [("yes", "yes")] * 3))
    with closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as database:
        database.execute("UPDATE answers SET labels = ?, truth = ? WHERE request_id = '1'", (labels, truth))
        database.commit()
    known = answered(tmp_path, "people:1", 0.0, 1e12, requests=100)
    assert known.mistakes.values.tolist() == [0.0, 0.0]


def test_a_damaged_table_of_answers_is_named(tmp_path: Path) -> None:
    """It used to end in a traceback with exit code 1, which means drift."""
    asyncio.run(_learn(tmp_path, [("yes", "no")]))
    path = tmp_path / ANSWERS_FILE
    path.write_bytes(b"torn" + path.read_bytes()[4:])
    with pytest.raises(AnswersUnreadable, match=f"{path}: file is not a database"):
        answered(tmp_path, "people:1", 0.0, 1e12, requests=100)


@pytest.mark.parametrize("left", ["a link to another table", "a link to nothing", "a pipe", "a folder"])
def test_no_link_or_pipe_is_read_as_the_table_of_answers(tmp_path: Path, left: str) -> None:
    """A version could put a link there to a file that it cannot read itself."""
    asyncio.run(_learn(tmp_path / "other", [("yes", "no")]))
    (tmp_path / "answers").mkdir()
    path = tmp_path / "answers" / ANSWERS_FILE
    {
        "a link to another table": lambda: path.symlink_to(tmp_path / "other" / ANSWERS_FILE),
        "a link to nothing": lambda: path.symlink_to("nothing"),
        "a pipe": lambda: os.mkfifo(path),
        "a folder": path.mkdir,
    }[left]()
    with pytest.raises(AnswersUnreadable, match="not a plain file"):
        answered(tmp_path / "answers", "people:1", 0.0, 1e12, requests=100)


def test_a_link_made_after_the_check_is_not_read_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself follows links."""
    asyncio.run(_learn(tmp_path / "other", [("yes", "no")]))
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / ANSWERS_FILE).symlink_to(tmp_path / "other" / ANSWERS_FILE)
    monkeypatch.setattr(Path, "lstat", lambda _: tmp_path.joinpath("other", ANSWERS_FILE).stat())
    with pytest.raises(AnswersUnreadable, match="it is a link"):
        answered(tmp_path / "answers", "people:1", 0.0, 1e12, requests=100)


@pytest.mark.parametrize("beside", ["-journal", "-wal", "-shm"])
def test_links_beside_the_table_are_not_written_to(tmp_path: Path, beside: str) -> None:
    """SQLite opens its own files there."""
    asyncio.run(_learn(tmp_path / "answers", [("yes", "no")]))
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    (tmp_path / "answers" / f"{ANSWERS_FILE}{beside}").symlink_to(tmp_path / "secret")
    with suppress(AnswersUnreadable):
        answered(tmp_path / "answers", "people:1", 0.0, 1e12, requests=100)
    assert (tmp_path / "secret").read_bytes() == b"secret" * 1000


def test_the_error_of_a_number_is_in_its_units(tmp_path: Path) -> None:
    """It is the absolute difference from the true value."""
    age = Feature(name="age", minimum=0, maximum=120)
    Schema(features=(age,), answer=Number(tolerance=1, edges=(4,))).write(tmp_path)
    write_reference(tmp_path, np.array([[40]], np.float32), [Prediction(3.5)], [5.0])
    assert read_reference(tmp_path).answers.mistakes.values.tolist() == [1.5]
