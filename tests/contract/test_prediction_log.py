"""Monitoring reads from the prediction log what the service wrote into it."""

import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import orjson
import pytest

from contract.answer_types import Labels, Prediction
from contract.model_files import Feature, Schema
from monitoring.drift.prediction_log import read_predictions
from service.logs.predictions import PredictionLog
from tests.support.paths import ROOT

SCHEMA = Schema(
    features=(
        Feature(name="age", minimum=0, maximum=120),
        Feature(name="income", minimum=0, maximum=1e9, logged="never"),
        Feature(name="postcode", minimum=0, maximum=99999, logged="hashed"),
        Feature(name="label", minimum=0, maximum=1),
    ),
    answer=Labels(labels=("no", "yes")),
)
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that logs one request with some rows, as a version does."""

    def log(version: str, request_id: str, *rows: tuple[float, ...], schema: Schema = SCHEMA) -> None:
        with PredictionLog(
            tmp_path, version, "m", schema, max_bytes=10**7, count_dropped=print, count_failure=print
        ) as opened:
            predictions = [Prediction("yes", 0.5 + number / 10) for number in range(len(rows))]
            opened.record(
                orjson.dumps({"features": rows}),
                np.array(rows, dtype=np.float32),
                orjson.dumps({"request_id": request_id, "version": version, "predictions": predictions}),
            )

    return log


def test_every_row_is_found_by_its_request_id(tmp_path: Path, write: Write) -> None:
    """It has its answer and its features by name, without the private one."""
    write("m:1", "other", (1, 1, 1, 1))
    write("m:1", "wanted", (30, 5, 10_117, 0), (31.5, 6, 10_117, 1))
    table = read_predictions(tmp_path, 0)
    wanted = table[table.request_id == "wanted"]
    assert list(wanted.columns) == [
        "at_s",
        "request_id",
        "version",
        "row",
        "label",
        "confidence",
        "age",
        "feature.label",
        "postcode",
    ]
    assert wanted[["version", "row", "label", "confidence", "age", "feature.label"]].to_dict("list") == {
        "version": ["m:1", "m:1"],
        "row": [0, 1],
        "label": ["yes", "yes"],
        "confidence": [0.5, 0.6],
        "age": [30, 31.5],
        "feature.label": [0, 1],
    }
    assert wanted.postcode.nunique() == 1


def test_versions_are_read_together_or_separately(tmp_path: Path, write: Write) -> None:
    """One version may have a feature that the other lacks."""
    narrow = Schema(features=SCHEMA.features[:1], answer=SCHEMA.answer)
    write("m:1", "a", (30, 5, 10_117, 0))
    write("m:2", "b", (31,), schema=narrow)
    both, alone = read_predictions(tmp_path, 0), read_predictions(tmp_path, 0, version="m:2")
    assert (list(both.request_id), list(alone.request_id)) == (["a", "b"], ["b"])
    assert both["feature.label"].isna().tolist() == [False, True]


def test_only_requests_answered_since_a_time_are_read(tmp_path: Path, write: Write) -> None:
    """The time is exact to the millisecond."""
    write("m:1", "a", (30, 5, 10_117, 0))
    at_s = read_predictions(tmp_path, 0).at_s[0]
    assert (len(read_predictions(tmp_path, at_s)), len(read_predictions(tmp_path, at_s + 0.001))) == (1, 0)


def test_an_unfinished_line_is_skipped(tmp_path: Path, write: Write) -> None:
    """The process that wrote it was killed, or the disk was full."""
    write("m:1", "a", (30, 5, 10_117, 0))
    (segment,) = tmp_path.glob("*/*.jsonl")
    segment.write_bytes(segment.read_bytes() + b'{"at_s":1.0,"request":{"fea')
    assert list(read_predictions(tmp_path, 0).request_id) == ["a"]


def test_golden_requests_are_left_out(tmp_path: Path, write: Write) -> None:
    """Kanaria's preflight sent them, not a user."""
    write("m:1", "preflight-7-0", (30, 5, 10_117, 0))
    assert read_predictions(tmp_path, 0).empty


def test_an_empty_log_gives_an_empty_table(tmp_path: Path) -> None:
    """The folder may not exist yet."""
    assert read_predictions(tmp_path / "none", 0).empty


def test_the_documented_query_finds_a_request_with_duckdb(tmp_path: Path, write: Write) -> None:
    """Any tool that reads JSON lines can do this: one row per answered row, without the unfinished line."""
    write("m:1", "customer-7", (30, 5, 10_117, 0), (31.5, 6, 10_117, 1))
    write("m:1", "other", (32, 5, 10_117, 0))
    segment = next(tmp_path.glob("*/*.jsonl"))
    segment.write_bytes(segment.read_bytes() + b'{"at_s":1.0,"request":{"fea')
    (query,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/prediction-log.md").read_text(), re.DOTALL)
    found = duckdb.sql(query.replace(".kanaria/predictions", str(tmp_path))).fetchall()
    assert [(request_id, version, prediction, features) for request_id, version, _, prediction, features in found] == [
        ("customer-7", "m:1", {"label": "yes", "confidence": 0.5}, [30.0, 0.0]),
        ("customer-7", "m:1", {"label": "yes", "confidence": 0.6}, [31.5, 1.0]),
    ]
