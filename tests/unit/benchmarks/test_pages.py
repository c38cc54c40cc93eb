"""The committed pages are what the commands write, except for numbers, and the commands run."""

import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.drift import cli as drift
from benchmarks.judge import aa_test
from benchmarks.kubernetes import cli as kubernetes
from benchmarks.lean import page as lean
from benchmarks.markdown import table
from benchmarks.optimise import page as optimise
from benchmarks.output import command_line
from benchmarks.proofs import callers, labels, noise, promises, starts
from benchmarks.proofs.chapters import CHAPTERS, Study
from benchmarks.proofs.sections import page_command
from kanaria.errors import SetupError
from rollout.simulate.parallel import Workers
from tests.support.paths import ROOT
from tests.support.releases import finished

FOLDER = ROOT / "docs/benchmarks"
PAGES = sorted(FOLDER.glob("*.md"))
COMMANDS = (
    "judge",
    "promises",
    "noise",
    "starts",
    "labels",
    "callers",
    "aa-test",
    "continuous",
    "service",
    "drift",
    "optimise",
    "kubernetes",
    "observer",
    "lean",
)


def prose(text: str) -> list[str]:
    """The non-empty lines of a page outside its tables, with every number hidden."""
    lines = (line for line in text.splitlines() if line and not line.startswith("|"))
    return [re.sub(r"-?\d[\d.,]*", "#", line) for line in lines]


def committed(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_table_is_formatted_as_the_code_writes_it(path: Path) -> None:
    """It has the same columns with the same widths."""
    tables = re.findall(r"(?:^\|.*\n)+", path.read_text("utf-8"), re.MULTILINE)
    for written in tables:
        heads, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in written.splitlines()]
        assert table(heads, rows) + "\n" == written


def test_the_page_of_promises_is_what_the_command_writes() -> None:
    """The measured rows are left out, as they are not simulated here."""
    study = Study(Workers(1))
    sections = [promises.section(name, study, []).text for name in CHAPTERS]
    text = "\n".join([promises.preface(page_command("promises", 1.0)), *sections])
    assert prose(committed(promises.PAGE)) == prose(text)


def test_the_page_about_noise_is_what_the_command_writes() -> None:
    """The measured rows are left out, as they are not simulated here."""
    chapters = ("counts", "blips", "latency", "readings", "users")
    sections = [section.text for name in chapters for section in noise.sections(Workers(1), name)]
    text = "\n".join([noise.preface(page_command("noise", 1.0)), *sections])
    assert prose(committed(noise.PAGE)) == prose(text)


def test_the_page_about_the_start_prior_is_what_the_command_writes() -> None:
    """The measured rows are left out, as they are not simulated here."""
    text = starts.section(1000, page_command("starts", 1.0)).text
    assert prose(committed(starts.PAGE)) == prose(text)


def test_the_page_about_labels_is_what_the_command_writes() -> None:
    """The measured rows are left out, as they are not simulated here."""
    sections = [section.text for section in labels.sections(200, page_command("labels", 1.0))]
    assert prose(committed(labels.PAGE)) == prose("\n".join(sections))


def test_the_page_about_callers_is_what_the_command_writes() -> None:
    """The measured rows are left out."""
    sections = [section.text for section in callers.sections(60, page_command("callers", 1.0))]
    assert prose(committed(callers.PAGE)) == prose("\n".join(sections))


def test_the_page_of_the_aa_test_is_what_the_command_writes(tmp_path: Path) -> None:
    """The numbers are those of another release."""
    text = aa_test.page(finished(tmp_path / "ledger.db"), command_line("aa-test"))
    assert prose(committed(aa_test.PAGE)) == prose(text)


def test_the_page_about_drift_is_what_the_command_writes() -> None:
    """The page also says how the machine was used for the committed numbers, below this text."""
    text = drift.page([], drift.COLUMNS, command_line("drift"))
    lines = prose(text)
    assert prose(committed(drift.PAGE))[: len(lines)] == lines


def test_the_page_about_kubernetes_is_what_the_command_writes() -> None:
    """The measured rows and the machine are left out."""
    written = re.search(r"Written by `(python -m benchmarks .+)`, on (.+)\.\n", committed(kubernetes.PAGE))
    assert written is not None
    text = kubernetes.page(
        [], written[1], written[2], pods=kubernetes.PODS, hours=kubernetes.HOURS, classes=kubernetes.CLASSES
    )
    assert prose(committed(kubernetes.PAGE)) == prose(text)


def test_the_lean_page_is_what_the_command_writes() -> None:
    """The measured rows and the machine are left out."""
    written = re.search(r"Written by `(python -m benchmarks .+)` on (.+)\.\n", committed(lean.PAGE))
    assert written is not None
    tables = dict.fromkeys(lean.HEADS, ())
    text = lean.page(tables, command=written[1], machine=written[2], rounds=1, is_ahead=True)
    assert prose(committed(lean.PAGE)) == prose(text)


def test_the_page_about_engines_is_what_the_command_writes() -> None:
    """The sections of the models are left out."""
    written = re.search(r"Written by `(python -m benchmarks .+)` on (.+)\.\n", committed(optimise.PAGE))
    assert written is not None
    head, _, tail = optimise.page([], command=written[1], machine=written[2]).partition("\n\n\n")
    assert committed(optimise.PAGE).startswith(head)
    assert committed(optimise.PAGE).endswith(tail)


def test_options_with_default_values_are_left_out_of_the_command() -> None:
    """The command on a page is the shortest that writes the page again."""
    options = (("--runs", 200, 200), ("--seed", 7, 1))
    assert command_line("judge", *options) == "python -m benchmarks judge --write --seed 7"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_options(command: str) -> None:
    """Each can write a page to a given folder."""
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "--write" in result.stdout
    assert "docs/benchmarks" in result.stdout


def test_every_command_is_in_the_list_of_this_test() -> None:
    """A new command needs a test."""
    assert set(get_command(app).commands) == {*COMMANDS}  # type: ignore[attr-defined]


def test_a_chapter_of_promises_is_printed() -> None:
    """A few releases of each kind are too few to keep every promise, but enough to test the table."""
    result = CliRunner().invoke(app, ["promises", "--only", "models", "--scale", "0.001", "--jobs", "1"])
    assert result.exit_code in {0, 1}, result.output
    assert "## Models may differ; answers may not be slow" in result.stdout
    assert len(re.findall(r"\| (?:kept|within error|\*\*broken\*\*|for comparison) *\|", result.stdout)) == 5


@pytest.mark.parametrize("command", ["promises", "noise"])
def test_an_unknown_chapter_is_bad_input(command: str) -> None:
    """The error lists the known ones."""
    done = CliRunner().invoke(app, [command, "--only", "weather"])
    assert isinstance(done.exception, SetupError)
    assert all(word in str(done.exception) for word in ("--only weather", "choose from"))


def test_a_page_is_not_written_with_only_some_of_its_chapters(tmp_path: Path) -> None:
    """The other chapters would be lost."""
    done = CliRunner().invoke(app, ["promises", "--only", "cost", "--write", "--out", str(tmp_path)])
    assert isinstance(done.exception, SetupError)
    assert not list(tmp_path.iterdir())
