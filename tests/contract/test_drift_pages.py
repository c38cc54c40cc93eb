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


@pytest.fixture(scope="module")
def drawn_once(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a first report on that: `data.html`, `data-quality.html` and `workspace`."""
    folder = tmp_path_factory.mktemp("drawn")
    pages = write_report(comparison, folder / "data.html", folder / "workspace")
    assert (len(pages.pages), pages.set_aside) == (2, None)
    return folder


@pytest.fixture
def drawn(drawn_once: Path, tmp_path: Path) -> Path:
    """Its copy, for one test."""
    return Path(shutil.copytree(drawn_once, tmp_path / "drift"))


def side(label: list[object], truth: list[object], **columns: list[float]) -> Side:
    """Rows of which the first have a known truth."""
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
        pytest.param(side(some("a"), some("a", "b")), side(some("a"), some("a", "b")), 2, id="one class is answered"),
        pytest.param(THREE, side(some("a", "b"), some(*"ab")), 2, id="a missing class"),
        pytest.param(side(some("a", "b"), some(*"ab")), THREE, 2, id="a new class"),
        pytest.param(TWO, side(some("no", "yes"), some("no", "maybe")), 2, id="an unknown truth beside two classes"),
        pytest.param(THREE, side(some(*"abc"), some(*"abz")), 2, id="an unknown truth beside three classes"),
        pytest.param(TWO, side(some("no", "yes"), some(1.0, "no")), 2, id="truths of two kinds"),
        pytest.param(TWO, side(some("", "nan"), some("", "None")), 2, id="labels that look empty"),
        pytest.param(TWO, side(some("no", "yes"), []), 1, id="no truth"),
        pytest.param(TWO, side(some("no", "yes"), some("no", rows=5)), 1, id="few truths"),
        pytest.param(side(some("no", "yes"), []), TWO, 1, id="no truth before"),
        pytest.param(side(some("no", "yes"), ["no"]), TWO, 2, id="one truth before"),
        pytest.param(side(some("a", rows=20), ["a"]), side(some("a", rows=20), ["a"]), 0, id="few rows"),
        pytest.param(NUMBERS, NUMBERS, 2, id="numbers"),
        pytest.param(side(some(1.0), some(1.0)), side(some(1.0), some(1.0)), 2, id="one number"),
        pytest.param(side(some(1.0, 2.0), [1.0]), NUMBERS, 2, id="one true number before"),
        pytest.param(NUMBERS, side(some(1.0, NAN), some(2.0)), 2, id="numbers and NaN"),
        pytest.param(side(some(NAN), some(1.0)), side(some(NAN), some(1.0)), 0, id="NaN alone"),
        pytest.param(NUMBERS, side(some(1.0, 2.0), some("1", "x")), 2, id="words as the truth of numbers"),
        pytest.param(
            side(some("a", "b"), [], age=[1.0] * 300, height=[NAN] * 300, weight=[1.0, NAN] * 150),
            side(some("a", "b"), [], age=[1.0] * 300, height=[2.0] * 300, weight=[1.0, np.inf] * 150),
            1,
            id="constant, missing and half missing features",
        ),
    ],
)
def test_every_page_is_drawn(tmp_path: Path, reference: Side, current: Side, pages: int) -> None:
    """Evidently's own presets end in KeyError for two labels, for a missing one and for a truth that is none."""
    period = Period(0.0, 4e9)
    found = compared("data", "m:1", "m:1", period, Rule(), reference=reference, current=current, logged=(300, 300))
    written = write_report(found, tmp_path / "data.html", tmp_path / "workspace")
    assert (len(written.pages), written.set_aside) == (pages, None)
    write_result(found.result, tmp_path / "data.json")
    assert read_result(tmp_path / "data.json") == found.result


def test_a_truth_that_is_no_label_has_a_bin_of_its_own(tmp_path: Path) -> None:
    """All of them together, and one as long as a book takes no more room than a label."""
    truths = some("no", "unheardof", "zq" * 10**6)
    current = side(some("no", "yes"), truths)
    assert current.answers.truth.itemsize < 1000
    found = compared("data", "m:1", "m:1", Period(0, 1), Rule(), reference=TWO, current=current, logged=(300, 300))
    _, quality = write_report(found, tmp_path / "data.html", tmp_path / "workspace").pages
    page = quality.read_text()
    assert ("another truth" in page, "unheardof" in page, "zqzqzq" in page) == (True, False, False)


def test_evidently_names_the_rule_and_not_a_share_of_columns(drawn: Path) -> None:
    """Its page once said that the threshold of drift was 0.0001."""
    page = (drawn / "data.html").read_text()
    assert "0.0001" not in page.partition("<script")[0]
    assert "Dataset drift detection threshold" not in page
    assert "Drifted: 1 of 3 columns. A score of at least 0.1 (`error`: 0.05) counts as drift" in page


def test_a_report_that_was_overtaken_replaces_no_newer_page(tmp_path: Path, comparison: Comparison) -> None:
    """A scheduled one that began before takes longer to draw than one that somebody asked for meanwhile."""
    html = tmp_path / "data.html"
    later = replace(comparison, result=comparison.result.model_copy(update={"at_s": comparison.result.at_s + 9}))
    write_result(later.result, html.with_suffix(".json"))
    write_report(later, html, tmp_path / "workspace")
    newer = [page.read_bytes() for page in sorted(tmp_path.glob("*.html"))]
    assert write_report(comparison, html, tmp_path / "workspace").pages == (html, html.with_stem("data-quality"))
    assert [page.read_bytes() for page in sorted(tmp_path.glob("*.html"))] == newer


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evidently_says_what_the_rule_says(drawn: Path, comparison: Comparison) -> None:
    """Its page and its run show our distances; numbers with feedback get a page about their quality."""
    drift, quality = drawn / "data.html", drawn / "data-quality.html"
    assert "in 1 of 3 columns (1 rose): <code>age</code> mean" in drift.read_text()
    assert "href='data-quality.html'" in drift.read_text()
    assert "href='data.html'" in quality.read_text()
    assert "Mean Absolute Error" in quality.read_text() or "MAE" in quality.read_text()
    runs = [json.loads(path.read_bytes()) for path in drawn.glob("workspace/*/snapshots/*.json")]
    (score,) = {column.score for column in comparison.result.columns if column.column == "age"}
    assert any(str(score)[:8] in json.dumps(run) for run in runs)


def test_evidently_draws_every_column_that_was_judged(drawn: Path, comparison: Comparison) -> None:
    """The page once lacked the mistakes, which are known for some rows only: 66 columns under a headline of 67."""
    runs = [json.loads(path.read_bytes()) for path in drawn.glob("workspace/*/snapshots/*.json")]
    (drawn,) = [
        set(result["metric_value_location"]["metric"]["params"]["columns"])
        for run in runs
        for result in run["metric_results"].values()
        if result["metric_value_location"]["metric"]["params"]["type"].endswith("DriftedColumnsCount")
    ]
    assert drawn == {column.column for column in comparison.result.columns}


def test_the_history_has_the_score_of_every_column_and_its_pictures_once(drawn: Path, comparison: Comparison) -> None:
    """Each run once held all pictures twice, of which Evidently shows one."""
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
    assert (len(shown), min(shown)) == (len(comparison.result.columns), 2), "where it drifts, and how it is distributed"


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
    drawn: Path, comparison: Comparison, file: str, broken: Callable[[Path], None]
) -> None:
    """Every later report once failed on it. Now a new history begins, and the old one is kept unchanged."""
    workspace = drawn / "workspace"
    broken(next(iter(workspace.glob(file))))
    left = files(workspace)
    set_aside = write_report(comparison, drawn / "data.html", workspace).set_aside
    assert set_aside is not None
    assert (set_aside.parent, files(set_aside)) == (drawn, left)
    assert write_report(comparison, drawn / "data.html", workspace).set_aside is None
    assert len(list(workspace.glob("*/snapshots/*.json"))) == 4, "two reports of two pages each, in one project"


def test_a_report_killed_before_it_wrote_its_dashboard_is_repaired(drawn: Path, comparison: Comparison) -> None:
    """Its project can be read but shows nothing."""
    workspace = drawn / "workspace"
    (dashboard,) = workspace.glob("*/dashboard.json")
    dashboard.unlink()
    assert write_report(comparison, drawn / "data.html", workspace).set_aside is None
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


def test_a_full_disk_leaves_the_report_before_and_says_so(drawn: Path, comparison: Comparison) -> None:
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
