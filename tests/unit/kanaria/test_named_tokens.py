"""Tokens with a name and a role: shown once, stored as hashes, removed by name."""

import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from kanaria.cli import app
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.named_tokens import NamedTokens, People
from rollout.ui.callers import Caller, Callers


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NamedTokens:
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path))
    return NamedTokens(Settings().named_tokens)


def typed(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["token", *words])
    return done.exit_code, done.stdout.strip() or str(done.exception)


@pytest.mark.needs("serve")  # for the commands
def test_a_token_is_shown_once_and_works_until_it_is_removed(tokens: NamedTokens, tmp_path: Path) -> None:
    code, ann = typed("add", "ann", "--role", "approver")
    _, rob = typed("add", "rob")
    callers = Callers("the owner's", tokens.all)
    assert code == 0
    assert [callers.of(token) for token in (ann, rob, "", "the owner's")] == [
        Caller("ann", "approver"),
        Caller("rob", "releaser"),
        None,
        Caller(),
    ]
    kept = (tmp_path / "tokens.json").read_text()
    assert not {ann, rob} & set(kept.split('"'))
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600
    assert [line.partition(",")[0] for line in typed("list")[1].splitlines()] == ["ann: approver", "rob: releaser"]
    assert typed("remove", "ann")[0] == 0
    assert (callers.of(ann), callers.of(rob)) == (None, Caller("rob", "releaser"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "\u200b",
        "\u3164",
        "judge",
        "Controller",
        "ju\u200bdge",
        "judge\ufe0f",
        "Kanaria ledger restore",
        "two\nlines",
        " ann",
        "-x",
        "\x1b[2Jann",
        "x" * 101,
    ],
)
def test_names_that_the_ledger_could_not_tell_apart_are_refused(tokens: NamedTokens, name: str) -> None:
    with pytest.raises(SetupError, match="this name is not allowed for a person"):
        tokens.add(name, "approver")
    assert tokens.all() == ()


def test_duplicate_and_unknown_token_names_are_refused(tokens: NamedTokens) -> None:
    tokens.add("ann", "reader")
    with pytest.raises(SetupError, match="ann has a token already"):
        tokens.add("ann", "approver")
    with pytest.raises(SetupError, match="ann has a token already"):
        tokens.add("Ann", "approver")
    for looks_so in ("ann\u200b", "an\ufe0fn", "\uff41nn"):
        with pytest.raises(SetupError, match="ann has a token already"):
            tokens.add(looks_so, "approver")
    with pytest.raises(SetupError, match="bob has no token") as refused:
        tokens.remove("bob")
    assert refused.value.saw == "tokens: ann"


@pytest.mark.parametrize(
    "content", ["", "[", '{"ann": 1}', '[{"name": "ann", "role": "king", "sha256": "", "made_s": 0}]']
)
def test_a_damaged_token_file_authorises_nobody(tokens: NamedTokens, tmp_path: Path, content: str) -> None:
    (tmp_path / "tokens.json").write_text(content)
    with pytest.raises(SetupError, match="the tokens cannot be read") as refused:
        tokens.all()
    assert "pydantic" not in str(refused.value)
    assert "\n" not in refused.value.saw


def test_a_damaged_token_file_is_logged_once(tokens: NamedTokens, tmp_path: Path) -> None:
    """Not each request logs it.

    It is logged again after the file was readable in between, or is damaged in another way.
    """
    people = People(tokens)
    with capture_logs() as logs:
        for content in ("[", "[", '{"ann": 1}', "[]", "[", "["):
            (tmp_path / "tokens.json").write_text(content)
            assert people() == ()
    assert [line["event"] for line in logs] == ["tokens_unreadable"] * 3


def test_commands_use_the_persons_own_token(tokens: NamedTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().known_token == ""
    owners = Settings().token
    assert Settings().known_token == owners
    monkeypatch.setenv("KANARIA_MY_TOKEN", tokens.add("ann", "reader"))
    assert Callers(owners, tokens.all).of(Settings().known_token) == Caller("ann", "reader")
