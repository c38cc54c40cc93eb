"""Drift in Prometheus: the series exist from the start, are bounded in number, and are NaN when unknown."""

from math import isnan
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.drift.metrics import MOST_COLUMNS, DriftCollector
from monitoring.drift.result import KINDS, ColumnDrift, DriftResult, Kind, State, read_result, write_result

Samples = dict[tuple[str, ...], float]


def column(name: str, score: float) -> ColumnDrift:
    return ColumnDrift(
        column=name,
        score=score,
        threshold=0.1,
        p_value=1e-9,
        direction="up",
        says="mean 1 -> 2",
        has_drifted=score >= 0.1,
    )


def result(state: State, *columns: ColumnDrift) -> DriftResult:
    return DriftResult(
        kind="data",
        version="m:1",
        against="m:1",
        state=state,
        at_s=1000.0,
        since_s=0.0,
        until_s=1000.0,
        logged_requests=5000,
        logged_rows=5000,
        rows=900,
        reference_rows=540,
        labelled_rows=30,
        min_rows=200,
        min_requests=20,
        alpha=0.001,
        columns=columns,
    )


def scraped(folder: Path, versions: dict[Kind, str] | None = None) -> Samples:
    """Every sample by its name and label values, as Prometheus reads them."""
    registry = CollectorRegistry()
    paths = {kind: folder / f"{kind}.json" for kind in KINDS}
    registry.register(DriftCollector(paths, lambda: {"data": "m:1"} if versions is None else versions))
    return {
        (
            sample.name.removeprefix("kanaria_drift_"),
            *(sample.labels[name] for name in ("kind", "version", "column", "state") if name in sample.labels),
        ): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_series_exist_before_the_first_report(tmp_path: Path) -> None:
    """Nothing is known yet, so scores are NaN and not 0."""
    series = scraped(tmp_path)
    assert series["state", "data", "m:1", "not_run"] == 1
    assert series["last_run_timestamp_seconds", "data", "m:1"] == 0
    assert isnan(series["score", "data", "m:1", "confidence"])
    assert scraped(tmp_path, {}) == {}


def test_a_report_shows_state_share_rows_and_each_column(tmp_path: Path) -> None:
    """Each column has a score, a threshold, a direction and whether it drifted."""
    write_result(result(State.DRIFT, column("age", 0.4), column("label", 0.05)), tmp_path / "data.json")
    series = scraped(tmp_path)
    assert (series["state", "data", "m:1", "drift"], series["state", "data", "m:1", "no_drift"]) == (1, 0)
    assert (series["share", "data", "m:1"], series["rows", "data", "m:1"]) == (0.5, 900)
    assert [series[name, "data", "m:1", "age"] for name in ("score", "threshold", "direction", "drifted")] == [
        0.4,
        0.1,
        1,
        1,
    ]


def test_the_number_of_columns_is_bounded(tmp_path: Path) -> None:
    """The worst columns are named; the rest is one series with the worst of the others."""
    many = [column(f"pixel_{i:02}", 0.9 - i / 100) for i in range(64)]
    write_result(result(State.DRIFT, *many, column("confidence", 0.01)), tmp_path / "data.json")
    scores = {labels[-1]: value for labels, value in scraped(tmp_path).items() if labels[0] == "score"}
    assert len(scores) == MOST_COLUMNS + 4  # label, confidence, error, rest
    assert (scores["pixel_00"], scores["rest"], scores["confidence"]) == (0.9, 0.9 - MOST_COLUMNS / 100, 0.01)


def test_too_few_rows_are_not_shown_as_no_drift(tmp_path: Path) -> None:
    """Their share and scores are unknown."""
    write_result(result(State.TOO_FEW_ROWS), tmp_path / "data.json")
    series = scraped(tmp_path)
    assert series["state", "data", "m:1", "too_few_rows"] == 1
    assert isnan(series["share", "data", "m:1"])
    assert isnan(series["score", "data", "m:1", "label"])


def test_a_result_about_another_version_is_not_shown(tmp_path: Path) -> None:
    """A new stable version and a new canary have no report yet."""
    write_result(result(State.DRIFT, column("age", 0.2)), tmp_path / "data.json")
    series = scraped(tmp_path, {"data": "m:2", "release": "m:3"})
    assert [labels for labels, value in series.items() if labels[0] == "state" and value] == [
        ("state", "data", "m:2", "not_run"),
        ("state", "release", "m:3", "not_run"),
    ]


@pytest.mark.parametrize("text", ["", '{"kind": "data"', '{"kind": "data", "unknown": 1}'])
def test_a_result_that_cannot_be_read_is_ignored(tmp_path: Path, text: str) -> None:
    """Another version of Kanaria may have written it, or the disk was full."""
    (tmp_path / "data.json").write_text(text)
    assert read_result(tmp_path / "data.json") is None
