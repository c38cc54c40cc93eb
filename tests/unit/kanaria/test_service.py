"""The systemd unit, as systemd itself reads it."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from kanaria.stack.systemd import unit
from rollout.ledger.events import StableSet
from rollout.ledger.ledger import Ledger
from tests.support.stack import run

NASTY = "a b#c %s 'q' \"Q\" \\x $HOME"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A state folder and a home with difficult names, and a ledger with a stable version."""
    home = tmp_path / NASTY / ".kanaria"
    home.mkdir(parents=True)
    with closing(Ledger(home / "ledger.db")) as ledger:
        ledger.append(StableSet(at_s=1, tag="m:v1"))
    return {"KANARIA_HOME": str(home), "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def kanaria(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "kanaria", "service", *arguments], environment)


@pytest.mark.parametrize("user", [None, "root"], ids=["user", "system"])
def test_systemd_reads_the_unit_without_a_warning(
    tmp_path: Path, require_program: Callable[[str], str], user: str | None
) -> None:
    """Paths and values contain spaces, percent signs, quotes and backslashes."""
    analyze = require_program("systemd-analyze")
    folder = tmp_path / NASTY
    folder.mkdir()
    path = tmp_path / "kanaria-test.service"
    environment = {"KANARIA_HOME": str(folder), "PATH": os.environ["PATH"], "FREE": 'x="1" %h $HOME \\ \n end'}
    text = unit(program=[sys.executable, "-m", "kanaria", NASTY], folder=folder, environment=environment, user=user)
    path.write_text(text)
    command = [analyze, "verify", "--man=no", *([] if user else ["--user"]), str(path)]
    variables = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    complaints = [line for line in done.stderr.splitlines() if path.name in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_a_unit_has_the_settings_of_the_environment_but_no_secrets(
    environment: dict[str, str], require_program: Callable[[str], str]
) -> None:
    """Everybody can read a unit, so secrets are in a separate file."""
    environment |= {"KANARIA_WORKERS": "3", "KANARIA_GRAFANA_TOKEN": "hush 'x'", "KANARIA_PUBLIC_KEY": "key.pem"}
    require_program("systemctl")
    done = kanaria(environment, "install")
    assert done.returncode == 0, done.stderr
    text = Path(environment["XDG_CONFIG_HOME"], "systemd/user/kanaria.service").read_text()
    assert 'Environment="KANARIA_WORKERS=3"' in text
    assert f'"KANARIA_PUBLIC_KEY={Path("key.pem").absolute()}"' in text
    assert "hush" not in text
    secrets = Path(environment["KANARIA_HOME"], "service.env")
    assert secrets.read_text() == "KANARIA_GRAFANA_TOKEN=\"hush 'x'\"\n"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert "systemctl --user enable --now kanaria" in done.stdout
    other = kanaria(environment | {"KANARIA_HOME": environment["KANARIA_HOME"] + "2"}, "uninstall")
    assert (other.returncode, "--name" in other.stderr) == (2, True)
    assert "at boot" in kanaria(environment, "status").stdout
    assert "removed" in kanaria(environment, "uninstall").stdout
    assert not secrets.exists()


def test_without_a_version_or_without_systemd_nothing_is_written(tmp_path: Path, environment: dict[str, str]) -> None:
    """The error says what is missing and what to do instead."""
    empty = kanaria(environment | {"KANARIA_HOME": str(tmp_path / "empty")}, "install")
    assert (empty.returncode, "kanaria up TAG" in empty.stderr) == (2, True)
    bare = kanaria(environment | {"PATH": str(tmp_path)}, "install")
    assert (bare.returncode, "kanaria up --foreground" in bare.stderr) == (2, True)
    assert not Path(environment["XDG_CONFIG_HOME"]).exists()
    shown = kanaria(environment | {"PATH": str(tmp_path)}, "install", "--print")
    assert (shown.returncode, "[Service]" in shown.stdout) == (0, True)
