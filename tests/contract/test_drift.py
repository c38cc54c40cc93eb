"""What the service writes, in the log, the answers and the model's files, is what drift reports read."""

import asyncio
import os
from pathlib import Path

import numpy as np
import orjson
import pytest

from monitoring.drift.compare import Logs, Period, data_drift, release_drift
from monitoring.drift.errors import AnswersUnreadable, NoLog, NoReference
from monitoring.drift.reference import read_reference
from monitoring.drift.result import State
from monitoring.drift.rule import Rule
from monitoring.drift.sample import draw
from monitoring.drift.truth import ANSWERS_FILE, answered
from service.answers import AnswerLog, Feedback
from service.contract import REFERENCE_FILE
from service.reference import MAX_ROWS
from tests.support.drifting import people, write_log, write_model

ALWAYS = Period(0.0, 4e9)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def logs(folder: Path) -> Logs:
    return Logs(predictions=folder / "predictions", answers=folder / "answers")


def single(rng: np.random.Generator, requests: int, *, older: float = 0.0) -> list[np.ndarray]:
    return list(people(rng, requests, older=older).reshape(requests, 1, 3))


def test_a_reference_leaves_out_what_the_log_leaves_out(tmp_path: Path, rng: np.random.Generator) -> None:
    """A private column does not travel with the model; one named like a field of the answer is told apart."""
    write_model(tmp_path, people(rng, 300))
    assert set(read_reference(tmp_path).columns) == {"label", "confidence", "age", "feature.label"}


def test_a_reference_is_bounded(tmp_path: Path, rng: np.random.Generator) -> None:
    """The sample is drawn the same way each time, so that a model's signature can be made again."""
    rows = people(rng, MAX_ROWS + 500)
    write_model(tmp_path / "a", rows)
    write_model(tmp_path / "b", rows)
    first, second = ((tmp_path / name / REFERENCE_FILE).read_bytes() for name in "ab")
    assert (first.count(b"\n"), first == second) == (MAX_ROWS, True)


def test_traffic_like_the_reference_is_no_drift(tmp_path: Path, rng: np.random.Generator) -> None:
    """Every column of log and reference finds its counterpart."""
    model = write_model(tmp_path / "model", people(rng, 1000))
    write_log(tmp_path / "predictions", "people:1", single(rng, 600))
    result = data_drift(logs(tmp_path), "people:1", model, ALWAYS, Rule()).result
    assert (result.state, result.rows, result.logged_requests) == (State.NO_DRIFT, 600, 600)
    assert {column.column for column in result.columns} == {"label", "confidence", "age", "feature.label"}
    assert result.left_out == ("`error`: 0 rows, 100 are needed",)


def test_a_value_that_single_precision_rounds_is_still_the_same(tmp_path: Path) -> None:
    """The log holds 36.1 as it came, the reference as the model saw it: the difference is no drift of all rows."""
    rows = np.tile(np.array([36.1, 5, 0.1], np.float32), (300, 1))
    model = write_model(tmp_path / "model", rows)
    write_log(tmp_path / "predictions", "people:1", list(rows.reshape(300, 1, 3)))
    (segment,) = tmp_path.glob("predictions/*/*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b"36.099998474121094", b"36.1"))
    result = data_drift(logs(tmp_path), "people:1", model, ALWAYS, Rule()).result
    assert (result.state, {column.score for column in result.columns}) == (State.NO_DRIFT, {0.0})


def test_other_traffic_is_named_column_by_column(tmp_path: Path, rng: np.random.Generator) -> None:
    """Older people: their age, and with it what the model answers."""
    model = write_model(tmp_path / "model", people(rng, 1000))
    write_log(tmp_path / "predictions", "people:1", single(rng, 600, older=10))
    result = data_drift(logs(tmp_path), "people:1", model, ALWAYS, Rule()).result
    assert (result.state, [column.column for column in result.drifted]) == (State.DRIFT, ["age", "label"])
    assert "in 2 of 4 columns (1 rose, 1 changed): `age` mean 4" in result.sentence


def test_too_few_rows_are_a_state_of_their_own(tmp_path: Path, rng: np.random.Generator) -> None:
    """However different they are."""
    model = write_model(tmp_path / "model", people(rng, 1000))
    write_log(tmp_path / "predictions", "people:1", single(rng, 99, older=40))
    result = data_drift(logs(tmp_path), "people:1", model, ALWAYS, Rule()).result
    assert (result.state, result.columns, result.rows) == (State.TOO_FEW_ROWS, (), 99)


def test_a_canary_that_answers_otherwise_differs_from_stable(tmp_path: Path, rng: np.random.Generator) -> None:
    """In its confidence, not in the requests that both got."""
    times = np.linspace(1000, 1300, 400).tolist()
    write_log(tmp_path / "predictions", "people:1", single(rng, 400), at_s=times)
    write_log(tmp_path / "predictions", "people:2", single(rng, 400), at_s=times, unsure=0.2)
    result = release_drift(logs(tmp_path), "people:2", "people:1", ALWAYS, Rule()).result
    assert (result.against, [column.column for column in result.drifted]) == ("people:1", ["confidence"])


def test_traffic_that_drifts_during_a_release_does_not_accuse_the_canary(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """The canary got more of the later traffic, which is older; of each half minute both are seen equally."""
    early, late = np.linspace(1000, 1599, 1000), np.linspace(1600, 2199, 1000)
    for version, shares in (("people:1", (900, 300)), ("people:2", (100, 700))):
        requests = single(rng, shares[0]) + single(rng, shares[1], older=15)
        times = [*np.sort(rng.choice(early, shares[0])), *np.sort(rng.choice(late, shares[1]))]
        write_log(tmp_path / "predictions", version, requests, at_s=times)
    result = release_drift(logs(tmp_path), "people:2", "people:1", ALWAYS, Rule()).result
    assert (result.state, result.rows > 300) == (State.NO_DRIFT, True)


def test_only_the_period_is_drawn_from(tmp_path: Path, rng: np.random.Generator) -> None:
    """Both ends count to the millisecond: the first is in it, the last is not."""
    write_log(tmp_path, "people:1", single(rng, 5), at_s=[10.0, 20.0, 30.0, 40.0, 50.0])
    os.utime(next(tmp_path.glob("*/*.jsonl")), (50, 50))
    assert draw(tmp_path, "people:1", 20.0, 40.0, rows=100).at_s.tolist() == [20.0, 30.0]
    assert len(draw(tmp_path, "people:1", 60.0, 70.0, rows=100)) == 0


def test_a_sample_is_fair_and_bounded(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of 4,000 rows in requests of 1 to 10, 500 are drawn; their mean is that of all within four standard errors."""
    sizes = rng.integers(1, 11, 727)
    requests = [people(rng, size) for size in sizes]
    write_log(tmp_path, "people:1", requests)
    sample = draw(tmp_path, "people:1", 0.0, 1e12, rows=500)
    ages = np.concatenate(requests)[:, 0]
    assert (len(sample), sample.logged_requests) == (500, 727)
    assert abs(sample.values["age"].mean() - ages.mean()) < 4 * 10 / np.sqrt(500)
    assert sample.logged_rows == pytest.approx(len(ages), rel=0.15)


def test_a_torn_line_costs_only_itself(tmp_path: Path, rng: np.random.Generator) -> None:
    """Its writer was killed, or its disk was full."""
    write_log(tmp_path, "people:1", single(rng, 50))
    (segment,) = tmp_path.glob("*/*.jsonl")
    segment.write_bytes(segment.read_bytes() + b'{"at_s":1.0,"request":{"fea')
    assert len(draw(tmp_path, "people:1", 0.0, 1e12, rows=100)) == 50


def test_golden_requests_are_no_traffic(tmp_path: Path, rng: np.random.Generator) -> None:
    """A preflight asks on its own behalf."""
    write_log(tmp_path, "people:1", single(rng, 3))
    (segment,) = tmp_path.glob("*/*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"people:1-1"', b'"preflight-1"'))
    assert len(draw(tmp_path, "people:1", 0.0, 1e12, rows=100)) == 2


@pytest.mark.parametrize("version", ["people:1", "people:9"])
def test_a_log_that_is_not_there_is_named(tmp_path: Path, rng: np.random.Generator, version: str) -> None:
    """None at all, or none of that version."""
    if version == "people:9":
        write_log(tmp_path, "people:1", single(rng, 3))
    with pytest.raises(NoLog, match=r"logs of people:1" if version == "people:9" else "send some requests first"):
        draw(tmp_path, version, 0.0, 1e12, rows=10)


def test_a_model_without_a_reference_says_what_to_do(tmp_path: Path) -> None:
    """It was trained before there were references, or by somebody who writes none."""
    with pytest.raises(NoReference, match="train it again"):
        read_reference(tmp_path)


async def _learn(folder: Path, truths: list[tuple[str, str]]) -> None:
    with AnswerLog(
        folder, "people:1", count_feedback=lambda **_: None, count_disagreement=lambda **_: None, count_dropped=print
    ) as log:
        for number, (label, truth) in enumerate(truths):
            log.record(str(number), [label], body=b"")
            assert await log.learn(str(number), [truth]) is Feedback.ACCEPTED
        log.record("unlabelled", ["yes"], body=b"")


def test_mistakes_are_known_where_the_truth_came(tmp_path: Path) -> None:
    """Read from where the service joins feedback to its answers."""
    asyncio.run(_learn(tmp_path, [("yes", "yes"), ("yes", "no"), ("no", "no")]))
    known = answered(tmp_path, "people:1", 0.0, 1e12, requests=100)
    assert sorted(known.mistakes.values.tolist()) == [0.0, 0.0, 1.0]
    assert len(answered(tmp_path, "people:2", 0.0, 1e12, requests=100)) == 0
    assert len(answered(tmp_path / "none", "people:1", 0.0, 1e12, requests=100)) == 0


def test_a_broken_file_of_answers_is_named(tmp_path: Path) -> None:
    """It ended in a traceback, whose exit code 1 is that of drift."""
    asyncio.run(_learn(tmp_path, [("yes", "no")]))
    path = tmp_path / ANSWERS_FILE
    path.write_bytes(b"torn" + path.read_bytes()[4:])
    with pytest.raises(AnswersUnreadable, match=f"{path}: file is not a database"):
        answered(tmp_path, "people:1", 0.0, 1e12, requests=100)


def test_an_answer_that_is_a_number_has_an_error_in_its_units(tmp_path: Path) -> None:
    """How far it was off, whatever the direction."""
    (tmp_path / "schema.json").write_text('{"features": [{"name": "age"}]}')
    row = {"features": [40.0], "prediction": {"label": 3.5}, "truth": 5.0}
    (tmp_path / REFERENCE_FILE).write_bytes(orjson.dumps(row) + b"\n")
    assert read_reference(tmp_path).answers.mistakes.values.tolist() == [1.5]
