"""Evidently's pages and workspace show the rule's findings, and survive a killed process and a full disk."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from monitoring.drift.column import Column
from monitoring.drift.compare import Comparison, Period, Side, compared
from monitoring.drift.errors import NotWritten
from monitoring.drift.evidently_report import write_report
from monitoring.drift.result import read_result, write_result
from monitoring.drift.rule import Rule
from monitoring.drift.truth import Answered


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Ages that rose by ten, and answers 0.1 off."""
    age = np.random.default_rng(11).normal(40, 10, 400)
    sides = []
    for moved in (0.0, 10.0):
        request = np.arange(400)
        columns = {"age": Column(age + moved, request), "label": Column(age / 10, request)}
        sides.append(Side(columns, Answered.of((age / 10).tolist(), (age / 10 + 0.1).tolist(), request)))
    return compared(
        "data", "m:1", "m:1", Period(0.0, 4e9), Rule(), reference=sides[0], current=sides[1], logged=(400, 400)
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evidently_says_what_the_rule_says(tmp_path: Path, comparison: Comparison) -> None:
    """Its page and its run show our distances; numbers with feedback get a page about their quality."""
    drift, quality = write_report(comparison, tmp_path / "data.html", tmp_path / "workspace").pages
    assert "in 1 of 3 columns (1 rose): <code>age</code> mean" in drift.read_text()
    assert "href='data-quality.html'" in drift.read_text()
    assert "href='data.html'" in quality.read_text()
    assert "Mean Absolute Error" in quality.read_text() or "MAE" in quality.read_text()
    runs = [json.loads(path.read_bytes()) for path in tmp_path.glob("workspace/*/snapshots/*.json")]
    (score,) = {column.score for column in comparison.result.columns if column.column == "age"}
    assert any(str(score)[:8] in json.dumps(run) for run in runs)


def test_evidently_draws_every_column_that_was_judged(tmp_path: Path, comparison: Comparison) -> None:
    """The page once lacked the mistakes, which are known for some rows only: 66 columns under a headline of 67."""
    write_report(comparison, tmp_path / "data.html", tmp_path / "workspace")
    runs = [json.loads(path.read_bytes()) for path in tmp_path.glob("workspace/*/snapshots/*.json")]
    (drawn,) = [
        set(result["metric_value_location"]["metric"]["params"]["columns"])
        for run in runs
        for result in run["metric_results"].values()
        if result["metric_value_location"]["metric"]["params"]["type"].endswith("DriftedColumnsCount")
    ]
    assert drawn == {column.column for column in comparison.result.columns}


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("file", "broken"),
    [
        ("*/snapshots/*.json", halve),
        ("*/metadata.json", halve),
        ("*/dashboard.json", halve),
        ("*/metadata.json", Path.unlink),
    ],
    ids=["a run", "a project", "its dashboard", "a project without its description"],
)
def test_a_workspace_that_a_killed_report_left_half_written_is_set_aside(
    tmp_path: Path, comparison: Comparison, file: str, broken: Callable[[Path], None]
) -> None:
    """Every later report once failed on it. Now a new history begins, and the old one is kept unchanged."""
    workspace = tmp_path / "workspace"
    assert write_report(comparison, tmp_path / "data.html", workspace).set_aside is None
    broken(next(iter(workspace.glob(file))))
    left = files(workspace)
    set_aside = write_report(comparison, tmp_path / "data.html", workspace).set_aside
    assert set_aside is not None
    assert (set_aside.parent, files(set_aside)) == (tmp_path, left)
    assert write_report(comparison, tmp_path / "data.html", workspace).set_aside is None
    assert len(list(workspace.glob("*/snapshots/*.json"))) == 4, "two reports of two pages each, in one project"


def test_a_report_killed_before_it_wrote_its_dashboard_is_repaired(tmp_path: Path, comparison: Comparison) -> None:
    """Its project can be read but shows nothing."""
    workspace = tmp_path / "workspace"
    write_report(comparison, tmp_path / "data.html", workspace)
    (dashboard,) = workspace.glob("*/dashboard.json")
    dashboard.unlink()
    assert write_report(comparison, tmp_path / "data.html", workspace).set_aside is None
    assert "Drifted columns" in dashboard.read_text()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: writing then fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_report_before_and_says_so(tmp_path: Path, comparison: Comparison) -> None:
    """Neither the page nor the result is cut off, and no half-written file is left."""
    drift = tmp_path / "drift"
    write_result(comparison.result, drift / "data.json")
    write_report(comparison, drift / "data.html", drift / "workspace")
    before = files(drift)
    with room_for(100), pytest.raises(NotWritten, match=f"cannot be written to {drift}\n  saw: .*too large"):
        write_result(comparison.result, drift / "data.json")
    with room_for(1_000_000), pytest.raises(NotWritten, match="free some space"):
        write_report(comparison, drift / "data.html", drift / "workspace")
    assert files(drift) == before
    assert read_result(drift / "data.json") == comparison.result


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, comparison: Comparison) -> None:
    """Here it is a file; a folder without write permission fails in the same way."""
    (tmp_path / "drift").write_text("")
    with pytest.raises(NotWritten, match=f"cannot be written to {tmp_path / 'drift'}"):
        write_report(comparison, tmp_path / "drift" / "data.html", tmp_path / "drift" / "workspace")
