"""Text is printed as it was written: a tag is not read as an emoji, nor brackets as markup."""

import ast

import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text

from contract.terminal import Terminal, print_error, say
from tests.support.paths import ROOT

TRAPS = ["a:b:c", ":heart:", "m[b]:v1", "m:[red]v1"]
PRODUCT = ("contract", "service", "observer", "rollout", "monitoring", "loadtest", "kanaria", "benchmarks", "examples")


@pytest.mark.parametrize("tag", TRAPS)
def test_text_is_printed_as_it_is(tag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """This holds in a line, in a table's cell and title, and in an error."""
    terminal = Terminal()
    terminal.print(f"released {tag}")
    table = Table(tag, title=tag)
    table.add_row(f"cell {tag}")
    terminal.print(table)
    print_error(f"there is no model {tag}")
    shown = capsys.readouterr()
    assert (f"released {tag}" in shown.out, f"cell {tag}" in shown.out, shown.out.count(tag)) == (True, True, 4)
    assert shown.err == f"there is no model {tag}\n"


@pytest.mark.parametrize("tag", TRAPS)
def test_a_spinner_shows_text_as_it_is(tag: str) -> None:
    """Rich reads a spinner's text as markup, even if markup is off in its console."""
    spinner = Terminal(stderr=True).status(f"measuring {tag}").renderable
    assert str(spinner.text) == f"measuring {tag}"


def test_nothing_prints_through_another_console() -> None:
    """A plain Rich console would interpret markup and emojis in tags and reasons that people write."""
    others = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in PRODUCT
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if _makes_a_console(node)
    }
    assert others == set()


def _makes_a_console(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name == "Console"


def test_untrusted_text_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """This holds for strings, texts and table cells, on standard output and in errors."""
    hostile = "\x1b[2J\x9b1m\rnobody\u202e"
    table = Table("name")
    table.add_row(hostile)
    terminal = Terminal()
    for printed in (hostile, Text(hostile), table, Group(Text("rows"), hostile)):
        terminal.print(printed)
    print_error(hostile)
    shown = "".join(capsys.readouterr())
    assert shown.count("nobody") == 5
    assert not {"\x1b", "\x9b", "\r", "\u202e"} & set(shown)


def test_our_own_colours_are_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the text between them is untrusted."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    Terminal().print(Text("\x1b[2Jred", style="red"))
    assert capsys.readouterr().out == "\x1b[31m[2Jred\x1b[0m\n"


def test_untrusted_text_in_a_line_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """This holds with and without colour, on standard output and standard error."""
    say("\x1b[2Jlog of a model\r")
    say("name\x9b1m of a feature", colour="red", err=True)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("[2Jlog of a model\n", "name1m of a feature\n")
