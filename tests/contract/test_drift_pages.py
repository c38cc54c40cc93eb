"""Evidently's pages and workspace show the rule's findings, and survive a killed process and a full disk."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monitoring.drift.column import Column
from monitoring.drift.compare import Comparison, Period, Side, compared
from monitoring.drift.errors import NotWritten
from monitoring.drift.result import read_result, write_result
from monitoring.drift.rule import Rule
from monitoring.drift.truth import Answered
from tests.support.drift_pages import write_report

pytestmark = pytest.mark.needs("monitoring")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Ages that rose by ten, and answers that are off by 0.1."""
    age = np.random.default_rng(11).normal(40, 10, 400)
    sides = []
    for moved in (0.0, 10.0):
        request = np.arange(400)
        columns = {"age": Column(age + moved, request), "label": Column(age / 10, request)}
        sides.append(Side(columns, Answered.of((age / 10).tolist(), (age / 10 + 0.1).tolist(), request)))
    return compared(
        "data", "m:1", "m:1", Period(0.0, 4e9), Rule(), reference=sides[0], current=sides[1], logged=(400, 400)
    )


@pytest.fixture(scope="module")
def drawn_once(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a first report: `data.html`, `data-quality.html` and `workspace`."""
    folder = tmp_path_factory.mktemp("drawn")
    pages = write_report(comparison, folder / "data.html", folder / "workspace")
    assert (len(pages.pages), pages.set_aside) == (2, None)
    return folder


@pytest.fixture
def drawn(drawn_once: Path, tmp_path: Path) -> Path:
    """A copy of that folder for one test."""
    return Path(shutil.copytree(drawn_once, tmp_path / "drift"))


def side(label: list[object], truth: list[object], **columns: list[float]) -> Side:
    """Rows of which the first have a known label."""
    rows = np.arange(len(label))
    of_label = Answered.of(label, label, rows).label
    every = {"label": Column(of_label, rows)} | {
        name: Column(np.array(values, np.float64), rows) for name, values in columns.items()
    }
    return Side(every, Answered.of(label[: len(truth)], truth, np.arange(len(truth))))


def some(*values: object, rows: int = 300) -> list[object]:
    """The values in turn."""
    return [values[place * 7 // 3 % len(values)] for place in range(rows)]


TWO, THREE = side(some("no", "yes"), some("yes", "no", "no")), side(some(*"abc"), some(*"abbc"))
NAN = float("nan")
NUMBERS = side(some(1.0, 2.0, 4.0), some(1.5, 2.0, 4.0))


@pytest.mark.parametrize(
    ("reference", "current", "pages"),
    [
        pytest.param(TWO, TWO, 2, id="two classes"),
        pytest.param(side(some("0", "1"), some("1", "0")), side(some("0", "1"), some("0", "1")), 2, id="0 and 1"),
        pytest.param(THREE, THREE, 2, id="three classes"),
        pytest.param(side(some("a"), some("a")), side(some("a"), some("a")), 2, id="one class"),
        pytest.param(side(some("a"), some("a", "b")), side(some("a"), some("a", "b")), 2, id="one answered class"),
        pytest.param(THREE, side(some("a", "b"), some(*"ab")), 2, id="a missing class"),
        pytest.param(side(some("a", "b"), some(*"ab")), THREE, 2, id="a new class"),
        pytest.param(TWO, side(some("no", "yes"), some("no", "maybe")), 2, id="an unknown true label with two classes"),
        pytest.param(THREE, side(some(*"abc"), some(*"abz")), 2, id="an unknown true label with three classes"),
        pytest.param(TWO, side(some("no", "yes"), some(1.0, "no")), 2, id="true labels of two types"),
        pytest.param(TWO, side(some("", "nan"), some("", "None")), 2, id="labels that look missing"),
        pytest.param(TWO, side(some("no", "yes"), []), 1, id="no true labels"),
        pytest.param(TWO, side(some("no", "yes"), some("no", rows=5)), 1, id="few true labels"),
        pytest.param(side(some("no", "yes"), []), TWO, 1, id="no true labels in the reference"),
        pytest.param(side(some("no", "yes"), ["no"]), TWO, 2, id="one true label in the reference"),
        pytest.param(side(some("a", rows=20), ["a"]), side(some("a", rows=20), ["a"]), 0, id="few rows"),
        pytest.param(NUMBERS, NUMBERS, 2, id="numbers"),
        pytest.param(side(some(1.0), some(1.0)), side(some(1.0), some(1.0)), 2, id="one number"),
        pytest.param(side(some(1.0, 2.0), [1.0]), NUMBERS, 2, id="one true number in the reference"),
        pytest.param(NUMBERS, side(some(1.0, NAN), some(2.0)), 2, id="numbers and NaN"),
        pytest.param(side(some(NAN), some(1.0)), side(some(NAN), some(1.0)), 0, id="only NaN"),
        pytest.param(NUMBERS, side(some(1.0, 2.0), some("1", "x")), 2, id="words as true values of numbers"),
        pytest.param(
            side(some("a", "b"), [], age=[1.0] * 300, height=[NAN] * 300, weight=[1.0, NAN] * 150),
            side(some("a", "b"), [], age=[1.0] * 300, height=[2.0] * 300, weight=[1.0, np.inf] * 150),
            1,
            id="constant, missing and half missing features",
        ),
    ],
)
def test_every_page_is_drawn(tmp_path: Path, reference: Side, current: Side, pages: int) -> None:
    """Evidently's presets raise KeyError for two labels, a missing label or an unknown true label."""
    period = Period(0.0, 4e9)
    found = compared("data", "m:1", "m:1", period, Rule(), reference=reference, current=current, logged=(300, 300))
    written = write_report(found, tmp_path / "data.html", tmp_path / "workspace")
    assert (len(written.pages), written.set_aside) == (pages, None)
    write_result(found.result, tmp_path / "data.json")
    assert read_result(tmp_path / "data.json") == found.result


def test_unknown_true_labels_share_one_bin(tmp_path: Path) -> None:
    """All of them are counted together, and a label as long as a book takes no more space than a normal one."""
    truths = some("no", "unheardof", "zq" * 10**6)
    current = side(some("no", "yes"), truths)
    assert current.answers.truth.itemsize < 1000
    found = compared("data", "m:1", "m:1", Period(0, 1), Rule(), reference=TWO, current=current, logged=(300, 300))
    _, quality = write_report(found, tmp_path / "data.html", tmp_path / "workspace").pages
    page = quality.read_text()
    assert ("another truth" in page, "unheardof" in page, "zqzqzq" in page) == (True, False, False)


def test_evidentlys_page_names_our_rule_and_no_share_of_columns(drawn: Path) -> None:
    """Its page used to state a drift threshold of 0.0001."""
    page = (drawn / "data.html").read_text()
    assert "0.0001" not in page.partition("<script")[0]
    assert "Dataset drift detection threshold" not in page
    assert "Drifted: 1 of 3 columns. A score of at least 0.1 (`error`: 0.05) counts as drift" in page


def test_an_older_report_does_not_replace_a_newer_page(tmp_path: Path, comparison: Comparison) -> None:
    """A scheduled report that started earlier may finish after one that was requested in the meantime."""
    html = tmp_path / "data.html"
    later = replace(comparison, result=comparison.result.model_copy(update={"at_s": comparison.result.at_s + 9}))
    write_result(later.result, html.with_suffix(".json"))
    write_report(later, html, tmp_path / "workspace")
    newer = [page.read_bytes() for page in sorted(tmp_path.glob("*.html"))]
    assert write_report(comparison, html, tmp_path / "workspace").pages == (html, html.with_stem("data-quality"))
    assert [page.read_bytes() for page in sorted(tmp_path.glob("*.html"))] == newer


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evidently_shows_the_scores_of_our_rule(drawn: Path, comparison: Comparison) -> None:
    """Its page and its run show our distances; numbers with feedback get a page about their quality."""
    drift, quality = drawn / "data.html", drawn / "data-quality.html"
    assert "in 1 of 3 columns from the data that m:1 was tested on (1 rose): <code>age</code> mean" in drift.read_text()
    assert "href='data-quality.html'" in drift.read_text()
    assert "href='data.html'" in quality.read_text()
    assert "Mean Absolute Error" in quality.read_text() or "MAE" in quality.read_text()
    runs = [json.loads(path.read_bytes()) for path in drawn.glob("workspace/*/snapshots/*.json")]
    (score,) = {column.score for column in comparison.result.columns if column.column == "age"}
    assert any(str(score)[:8] in json.dumps(run) for run in runs)


def test_evidently_draws_every_column_that_was_judged(drawn: Path, comparison: Comparison) -> None:
    """The page lacked the mistakes, which are known for only some rows: 66 columns under a headline of 67."""
    runs = [json.loads(path.read_bytes()) for path in drawn.glob("workspace/*/snapshots/*.json")]
    (drawn,) = [
        set(result["metric_value_location"]["metric"]["params"]["columns"])
        for run in runs
        for result in run["metric_results"].values()
        if result["metric_value_location"]["metric"]["params"]["type"].endswith("DriftedColumnsCount")
    ]
    assert drawn == {column.column for column in comparison.result.columns}


def test_the_history_holds_every_score_and_each_picture_once(drawn: Path, comparison: Comparison) -> None:
    """Each run used to hold every picture twice, and Evidently shows only one."""
    runs = [json.loads(path.read_bytes()) for path in drawn.glob("workspace/*/snapshots/*.json")]
    results = [result for run in runs for result in run["metric_results"].values()]
    scores = {
        result["metric_value_location"]["metric"]["params"]["column"]: (result["value"], result["widget"])
        for result in results
        if result["metric_value_location"]["metric"]["params"]["type"].endswith("ValueDrift")
    }
    assert scores == {column.column: (column.score, []) for column in comparison.result.columns}
    (run,) = (run for run in runs if run["tags"][0] == "drift")
    (table,) = (widget for widget in run["widgets"] if widget["type"] == "big_table")
    shown = [len(row["details"]["parts"]) for row in table["params"]["data"]]
    assert (len(shown), min(shown)) == (len(comparison.result.columns), 2), (
        "a picture of the drift and one of the distribution"
    )


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
    ids=["a run", "a project", "a dashboard", "a project without metadata"],
)
def test_a_damaged_workspace_is_moved_aside_and_replaced(
    drawn: Path, comparison: Comparison, file: str, broken: Callable[[Path], None]
) -> None:
    """A killed report left it half written, and every later report failed. Now the old history is kept aside."""
    workspace = drawn / "workspace"
    broken(next(iter(workspace.glob(file))))
    left = files(workspace)
    set_aside = write_report(comparison, drawn / "data.html", workspace).set_aside
    assert set_aside is not None
    assert (set_aside.parent, files(set_aside)) == (drawn, left)
    assert write_report(comparison, drawn / "data.html", workspace).set_aside is None
    assert len(list(workspace.glob("*/snapshots/*.json"))) == 4, "two reports with two pages each, in one project"


def test_a_project_without_a_dashboard_is_repaired(drawn: Path, comparison: Comparison) -> None:
    """A report was killed before it wrote the dashboard: its project can be read but shows nothing."""
    workspace = drawn / "workspace"
    (dashboard,) = workspace.glob("*/dashboard.json")
    dashboard.unlink()
    assert write_report(comparison, drawn / "data.html", workspace).set_aside is None
    assert "Drifted columns" in dashboard.read_text()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, so that writing fails in the middle as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_previous_report_and_is_reported(drawn: Path, comparison: Comparison) -> None:
    """Neither the page nor the result is cut off, and no half-written file is left."""
    write_result(comparison.result, drawn / "data.json")
    before = files(drawn)
    with room_for(100), pytest.raises(NotWritten, match=f"cannot be written to {drawn}\n  saw: .*too large"):
        write_result(comparison.result, drawn / "data.json")
    with room_for(1_000_000), pytest.raises(NotWritten, match="free some space"):
        write_report(comparison, drawn / "data.html", drawn / "workspace")
    assert files(drawn) == before
    assert read_result(drawn / "data.json") == comparison.result


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, comparison: Comparison) -> None:
    """Here it is a file; a folder without write permission fails in the same way."""
    (tmp_path / "drift").write_text("")
    with pytest.raises(NotWritten, match=f"cannot be written to {tmp_path / 'drift'}"):
        write_report(comparison, tmp_path / "drift" / "data.html", tmp_path / "drift" / "workspace")
