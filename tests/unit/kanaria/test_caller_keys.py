"""Callers' keys with names and scopes: bad names, damaged files, and gateways that do not accept new keys."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kanaria.cli import app
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.caller_keys import MOST_KEYS, CallerKeys, accepted
from kanaria.stack.stack import gateway_settings

pytestmark = pytest.mark.needs("serve")  # for the commands


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path))
    return Settings()


@pytest.mark.parametrize("name", ["", "default", "Shop", "two words", "-x", "a.b", "x" * 41, "a\n", "käse", "x:y"])
def test_names_that_do_not_fit_a_header_or_a_metric_are_refused(settings: Settings, name: str) -> None:
    with pytest.raises(SetupError, match="this name is not allowed for a key"):
        CallerKeys(settings.caller_keys).add(name, ("predictions",))
    assert [key.name for key in accepted(settings)] == ["default"]


def test_duplicate_and_unknown_key_names_are_refused(settings: Settings) -> None:
    keys = CallerKeys(settings.caller_keys)
    keys.add("shop", ("predictions",))
    with pytest.raises(SetupError, match="shop has a key already"):
        keys.add("shop", ("feedback",))
    with pytest.raises(SetupError, match="clinic has no key"):
        keys.remove("clinic")
    with pytest.raises(SetupError, match="the owner's key"):
        keys.remove("default")


@pytest.mark.parametrize(
    "content",
    ["[", '[{"name": "shop", "scopes": [], "key": "k", "made_s": 0}]', '[{"name": "A b", "scopes": ["feedback"]}]'],
)
def test_a_damaged_key_file_is_reported_and_opens_nothing(settings: Settings, content: str) -> None:
    settings.caller_keys.write_text(content)
    with pytest.raises(SetupError, match="the keys cannot be read") as refused:
        accepted(settings)
    assert "a running gateway accepts the old ones" in refused.value.do
    assert gateway_settings(settings, 0, with_keys=False).directory.parent == settings.root  # for the controller


def test_without_a_stack_a_key_is_kept_for_the_next_start(settings: Settings) -> None:
    done = CliRunner().invoke(app, ["key", "add", "shop"])
    assert done.exit_code == 0
    assert "kanaria up" in done.stderr
    assert [(key.secret, key.name, key.scopes) for key in accepted(settings)][1:] == [
        (done.stdout.strip(), "shop", ("predictions",))
    ]


def test_a_gateway_that_cannot_load_new_keys_is_reported(settings: Settings) -> None:
    """An earlier version started this gateway, or it requires no keys."""
    settings.remember_where_it_listens()
    done = CliRunner().invoke(app, ["key", "add", "shop"])
    assert isinstance(done.exception, SetupError)
    assert done.exception.what == "the key is kept, but not in the running gateway"
    done = CliRunner().invoke(app, ["key", "remove", "shop"])
    assert isinstance(done.exception, SetupError)
    assert done.exception.what == "the key is removed, but not in the running gateway"
    assert [key.name for key in accepted(settings)] == ["default"]


def test_without_a_stack_a_removed_key_is_not_reported_as_kept(settings: Settings) -> None:
    CallerKeys(settings.caller_keys).add("shop", ("predictions",))
    assert "`kanaria up` starts without it" in CliRunner().invoke(app, ["key", "remove", "shop"]).stderr


def test_concurrent_commands_cannot_exceed_the_key_limit(settings: Settings) -> None:
    """Keys were counted before the file was locked, so simultaneous commands created more keys than the limit."""
    key = {"scopes": ["predictions"], "key": "k", "made_s": 0}
    settings.caller_keys.write_text(json.dumps([{"name": f"shop-{i}", **key} for i in range(MOST_KEYS - 1)]))
    at_once = threading.Barrier(4)

    def made(name: str) -> bool:
        at_once.wait()
        try:
            CallerKeys(settings.caller_keys).add(name, ("predictions",))
        except SetupError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(made, "abcd")) == [False, False, False, True]
    assert len(CallerKeys(settings.caller_keys).all()) == MOST_KEYS
