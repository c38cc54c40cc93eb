"""Release drift is found in the observer's records of any service, whatever request fields the plan names."""

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from contract.own_answers import OwnAnswers
from kanaria.cli import app
from kanaria.stack.observer_records import KeptRecords, RecordSettings
from monitoring.drift.compare import Logs, Period, release_drift
from monitoring.drift.result import DriftResult
from monitoring.drift.rule import Rule
from observer.reading import Row, Said
from observer.records import Asked

NOTHING = OwnAnswers.model_validate({"/detect": {"label": "label"}})
COLUMNS = OwnAnswers.model_validate(
    {"/detect": {"label": "label", "features": {"age": "age"}, "words": {"country": "country"}}}
)


def drift(folder: Path, plan: OwnAnswers, rows: dict[str, list[Row]], *, missing: float = 0.0) -> DriftResult:
    """The report on two versions, each of which answered one request for each of its rows."""
    records = KeptRecords(
        RecordSettings(folder / "answers", folder / "predictions", 10_000_000, b""), CollectorRegistry()
    )
    records.expect(plan)
    rng = np.random.default_rng(3)
    for version, own in rows.items():
        for number, row in enumerate(own):
            said = Said() if version == "m:v2" and rng.random() < missing else Said("spam", rng.random())
            records.record(version, Asked(f"{version} {number}"), said, row)
    records.close()
    logs = Logs(predictions=folder / "predictions", answers=folder / "answers")
    return release_drift(logs, "m:v2", "m:v1", Period(0.0, 4e9), Rule()).result


def test_only_labels_are_compared_if_no_request_fields_are_kept(tmp_path: Path) -> None:
    """A canary that omits the label in a third of its answers has drifted."""
    rows: dict[str, list[Row]] = {version: [()] * 500 for version in ("m:v1", "m:v2")}
    found = drift(tmp_path, NOTHING, rows, missing=0.3)
    assert {column.column for column in found.columns} == {"label", "confidence"}
    assert "label" in {column.column for column in found.drifted}


def test_numbers_and_words_of_requests_are_compared(tmp_path: Path) -> None:
    """Some values are missing on both sides."""
    rng = np.random.default_rng(5)

    def row(*, older: float) -> Row:
        age = None if rng.random() < 0.1 else rng.normal(40 + older, 5)
        return age, str(rng.choice(["jp", "de"]))

    rows = {"m:v1": [row(older=0) for _ in range(500)], "m:v2": [row(older=20) for _ in range(500)]}
    found = drift(tmp_path, COLUMNS, rows)
    assert {column.column for column in found.columns} == {"age", "country", "label", "confidence"}
    assert [column.column for column in found.drifted] == ["age"]


def test_a_report_without_a_reference_suggests_release_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path))
    drift(tmp_path, NOTHING, {version: [()] * 3 for version in ("m:v1", "m:v2")})
    done = CliRunner().invoke(app, ["drift", "report", "--version", "m:v1"])
    assert done.exit_code == 2
    assert "kanaria drift report --release" in " ".join(done.output.split())
