"""The documentation matches what exists."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from typer.main import get_command
from typer.testing import CliRunner

from contract.metrics import LABEL_AGES_S
from kanaria.cli import Commands, app
from kanaria.settings import Settings
from rollout.control.next_weight import AUTO_GROWTH
from rollout.signals.catalogue import SEGMENT, catalogue
from rollout.signals.options import CONFIDENCE_BOUNDS, LATENCY_BOUNDS_MS
from rollout.spec import Guards, RolloutSpec, parse_spec
from rollout.units import written
from tests.support.markdown import PAGES, RUNNABLE, anchors, blocks, links
from tests.support.paths import ROOT
from tests.support.readme_example import PICTURE, readme
from tests.support.settings_page import PAGE, settings_page

SHOWN = ("json", "sql", "text", "yaml")  # languages of blocks that are read and not run
README = (ROOT / "README.md").read_text()
PLAN_PAGE = ROOT / "docs/rollout-yaml.md"
DECISIONS = ROOT / "docs/decisions"
GUARDS = tuple(Guards.model_fields)
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def shown_commands(page: Path) -> Iterator[str]:
    """Every `kanaria ...` in the shell blocks of a page."""
    for block in blocks(page):
        if block.language == "sh":
            for found in re.findall(r"(?:^|[;&|(=] ?|^\w+=\S+ )kanaria ([^\n;&|)]+)", block.code, re.MULTILINE):
                yield shlex.join(["kanaria", *shlex.split(re.sub(r"\d?>.*", "", found), comments=True)])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    """Nobody uses a command that nobody can find."""
    assert f"`{command}" in README or f"kanaria {command}" in README


def test_every_command_of_the_runbooks_exists() -> None:
    """Nobody should type a renamed command in an emergency."""
    typed = re.findall(r"^kanaria ([a-z]+)", (ROOT / "docs/runbooks/alerts.md").read_text(), flags=re.MULTILINE)
    assert set(typed) <= set(COMMANDS)


def test_every_setting_is_in_the_table_of_settings() -> None:
    """docs/settings.md has each setting, default and meaning; `python -m tests.support.settings_page` writes it."""
    assert PAGE.read_text() == settings_page()
    assert set(re.findall(r"^\| `KANARIA_(\w+)`", PAGE.read_text(), re.MULTILINE)) == {
        name.upper() for name in Settings.model_fields
    }


def test_the_readme_is_short_and_has_the_first_two_commands() -> None:
    """It has fewer than 200 lines and the two commands that a stranger types first."""
    assert len(README.splitlines()) < 200
    assert {"make demo", "make test"} <= {line.partition("#")[0].strip() for line in README.splitlines()}


def test_the_readme_shows_what_why_prints() -> None:
    """Its text comes from a release in the simulated world; `python -m tests.support.readme_example` writes it."""
    assert readme() == README


def test_the_picture_of_the_status_page_is_small_enough_for_a_readme() -> None:
    """It has fewer than 200 kB."""
    assert str(PICTURE.relative_to(ROOT)) in README
    assert PICTURE.stat().st_size < 200_000


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    """tests/system/test_docs_blocks.py runs shell and Python blocks as pasted, unless a note above says why not."""
    for block in blocks(page):
        assert block.language in (*RUNNABLE, *SHOWN), f"{block.place}: name the language of this block"
        if block.is_runnable and block.not_run is not None:
            assert len(block.not_run.split()) > 1, f"{block.place}: give a reason"


def typed_commands() -> Iterator[ParameterSet]:
    """Every command on a page; if its extra is missing here, its options are unknown."""
    for command in sorted({command for page in PAGES for command in shown_commands(page)}):
        source = Commands.sources.get(shlex.split(command)[1])
        yield pytest.param(command, marks=pytest.mark.needs(*(source.needs if source else ())))


@pytest.mark.parametrize("command", typed_commands())
def test_every_command_on_a_page_can_be_typed(command: str) -> None:
    """The command and each of its options exist, even if a test machine cannot run it."""
    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--help"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    """It leads to a file or folder of the project, and to a heading that the page has."""
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue  # another site
        path, _, anchor = link.partition("#")
        target = (ROOT / page.parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT)), f"{page}: {link}"


def test_every_decision_is_listed_once_under_its_title() -> None:
    """docs/decisions/README.md has the heading of each page in the folder. The number is that of the file."""
    listed = re.findall(r"^- \[(.+)\]\((.+)\)$", (DECISIONS / "README.md").read_text(), re.MULTILINE)
    pages = sorted(set(DECISIONS.iterdir()) - {DECISIONS / "README.md"})
    titles = [(page.read_text().splitlines()[0].removeprefix("# "), page.name) for page in pages]
    assert sorted(listed) == sorted(titles)
    assert all(title.startswith(f"{int(name[:4])}. ") for title, name in titles)


def test_the_example_plan_is_the_defaults() -> None:
    """The rollout.yaml at the root states the defaults, so that people see what they change."""
    assert parse_spec((ROOT / "rollout.yaml").read_text()) == RolloutSpec()


def rows(page: Path, head: str) -> dict[str, str]:
    """The rows of the table whose first header is `head`: the other cells by the first cell."""
    table = page.read_text().partition(f"| {head} |")[2].partition("\n\n")[0]
    cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:])
    return {first.strip("`"): "|".join(others) for first, *others in cells}


def test_the_page_of_the_plan_has_every_key_with_its_default() -> None:
    """Read as a plan, the defaults in docs/rollout-yaml.md are the default plan.

    No key is missing, and none is extra.
    """
    defaults = {key: cells.split("|")[0] for key, cells in rows(PLAN_PAGE, "key").items()}
    assert set(defaults) == {*(set(RolloutSpec.model_fields) - {"guards"}), *(f"guards.{key}" for key in GUARDS)}
    plain = RolloutSpec()
    for key, default in defaults.items():
        if key != "signals":
            part, _, inner = key.partition(".")
            line = f"{part}: {{{inner}: {default[1:-1]}}}" if inner else f"{part}: {default[1:-1]}"
            assert default == f"`{default[1:-1]}`"
            assert getattr(parse_spec(line), part) == getattr(plain, part), key


def test_the_page_of_the_plan_has_every_signal_with_the_defaults_of_its_options() -> None:
    """Each signal's row has all of its options. Read as a plan, they are the default plan."""
    given = {signal: cells.split("|")[-1] for signal, cells in rows(PLAN_PAGE, "signal").items()}
    assert list(given) == list(catalogue().in_plans)
    for signal, text in given.items():
        options = re.findall(r"`([^`]+)`", text)
        row = catalogue().in_plans[signal]
        assert [option.partition(":")[0] for option in options] == list(row.options.model_fields)
        needed = "segments: header:x-tenant\n" if signal == SEGMENT else ""
        assert parse_spec(f"{needed}signals: {{{signal}: {{{', '.join(options)}}}}}") == parse_spec(needed), signal


def test_the_page_of_the_plan_has_every_measured_latency_bound() -> None:
    """It lists exactly those, and the smallest growth of an automatic step."""
    bounds = {option: re.findall(r"[\d.]+", cells) for option, cells in rows(PLAN_PAGE, "option").items()}
    assert bounds == {
        "slower_than_ms": [f"{bound:g}" for bound in LATENCY_BOUNDS_MS],
        "after": re.findall(r"\d+", " ".join(map(written, (0, *LABEL_AGES_S)))),
        "below": [f"{bound:g}" for bound in CONFIDENCE_BOUNDS],
    }
    assert f"at least {100 * (AUTO_GROWTH - 1):g} % of\nitself" in PLAN_PAGE.read_text()


def test_the_table_cells_of_the_plan_page_are_short() -> None:
    """A text of more than sixty words is a section below the table."""
    for line in PLAN_PAGE.read_text().splitlines():
        if line.startswith("|"):
            assert max(len(cell.split()) for cell in line.split("|")) <= 60, line
