"""Where the demo runs: what it may delete, and what it must not touch."""

import re
import shutil
from pathlib import Path

import pytest

from contract.terminal import Terminal
from kanaria.demo.digits import DigitsDemo
from kanaria.demo.environment import DemoEnvironment
from kanaria.demo.story import without_shadow
from kanaria.errors import SetupError
from kanaria.settings import KEY_FILES, Settings
from kanaria.stack import signing
from kanaria.stack.sealing import seal
from rollout.spec import parse_spec
from service.signatures import SignatureError
from tests.support.paths import ROOT

KEYS = (
    "token",
    "alerts-token",
    "alertmanager-password",
    "api-key",
    "api-keys.json",
    "user-key",
    "answers-key",
    "version-secret",
    "prometheus-login",
    "signing-key.pem",
    "signing-key.pub",
)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoEnvironment:
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path / "state"))
    return DigitsDemo.of(Settings(), Terminal(stderr=True))


def fill(environment: DemoEnvironment, *names: str) -> None:
    environment.root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (environment.root / name).write_text(name)


def fill_store(store: Path, name: str, version: str) -> None:
    """A model and the Bento built with it, both with this tag."""
    for kind, file, more in (
        ("models", "model.yaml", ""),
        ("bentos", "bento.yaml", f"models: [{{tag: '{name}:{version}'}}]"),
    ):
        folder = store / kind / name / version
        folder.mkdir(parents=True)
        (folder / file).write_text(f"name: {name}\nversion: {version}\n{more}\n")


def left_over(environment: DemoEnvironment) -> set[str]:
    return {path.name for path in environment.root.iterdir()}


def test_files_older_than_the_first_demo_stay(environment: DemoEnvironment) -> None:
    """Keys and other files of the person stay, also when the next demo clears the folder."""
    fill(environment, *KEYS, "notes.txt")
    environment.clear()
    fill(environment, "ledger.db")
    environment.clear()
    assert {*KEYS, "notes.txt"} <= left_over(environment)
    assert "ledger.db" not in left_over(environment)


def test_the_files_of_an_earlier_demo_are_deleted_except_its_keys(environment: DemoEnvironment) -> None:
    """The next demo starts without earlier releases, and existing keys still work."""
    environment.clear()
    (environment.root / "predictions").mkdir()
    fill(environment, *KEYS, "ledger.db", "predictions/old.jsonl")
    before = left_over(environment)
    environment.clear()
    assert before - left_over(environment) == {"ledger.db", "predictions"}


def test_releases_that_no_demo_made_are_never_deleted(environment: DemoEnvironment) -> None:
    """The demo refuses to start, says what it saw, and says what to do instead."""
    fill(environment, environment.settings.ledger.name)
    for _ in range(2):
        with pytest.raises(SetupError, match=re.escape(str(environment.settings.ledger))):
            environment.clear()
    assert environment.settings.ledger.exists()


@pytest.mark.needs("serve")
@pytest.mark.parametrize("is_before", [True, False])
def test_earlier_signed_versions_with_the_same_names_do_not_stop_the_demo(
    environment: DemoEnvironment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_before: bool
) -> None:
    """They were signed before or after the first demo.

    The demo signs its own builds and still remembers the earlier signatures.
    """
    state, theirs, own = environment.settings, tmp_path / "theirs", tmp_path / "own"
    if not is_before:
        environment.clear()
    for store in (theirs, own):
        monkeypatch.setenv("BENTOML_HOME", str(store))
        fill_store(store, "digits", "v2")
        if store is theirs:
            signing.sign_version(state, "digits:v2", None)
            environment.clear()
    monkeypatch.setattr(environment, "_build", lambda _: None)  # they exist already
    environment.build({"v2": "v2"})
    assert seal(state, "digits:v2", own, tmp_path / "home")
    monkeypatch.setenv("BENTOML_HOME", str(theirs))
    (theirs / "bentos/digits/v2/bento.sig").unlink()
    with pytest.raises(SignatureError, match="is not signed, but it was before"):
        seal(state, "digits:v2", theirs, tmp_path / "home")


def test_the_demo_checks_that_it_can_sign_before_it_builds(environment: DemoEnvironment, tmp_path: Path) -> None:
    """It stops when somebody else's key is configured or when the list of signed versions cannot be read."""
    (tmp_path / "theirs.pub").write_text("a key")
    settings = environment.settings.model_copy(update={"public_key": tmp_path / "theirs.pub"})
    with pytest.raises(SetupError, match=r"unset KANARIA_PUBLIC_KEY"):
        DigitsDemo.of(settings, Terminal(stderr=True)).clear()
    fill(environment, "signed-bentos.json")
    with pytest.raises(SetupError, match=r"cannot be read"):
        environment.clear()


def test_every_key_file_of_the_settings_is_protected() -> None:
    """The demo deletes no key file that the settings name."""
    assert set(KEY_FILES) == set(KEYS)


def test_the_demo_follows_the_plan_of_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Editing the plan's file changes the demo. The bad version gets the same plan without the shadow step."""
    shutil.copy(ROOT / "bentofile.yaml", tmp_path)
    example = tmp_path / "examples" / "digits"
    example.mkdir(parents=True)
    text = (ROOT / "examples/digits/rollout.yaml").read_text()
    (example / "rollout.yaml").write_text(text.replace("soak: 5s", "soak: 7s"))
    monkeypatch.chdir(tmp_path)
    plan = DigitsDemo.of(Settings(home=tmp_path / "state"), Terminal(stderr=True)).plan()
    assert plan == parse_spec(text).model_copy(update={"soak": 7.0})
    assert (plan.steps[0], without_shadow(plan)) == ("shadow", plan.model_copy(update={"steps": plan.steps[1:]}))
