"""Environments of versions, made by the real uv and the real pip from small wheels."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from socket import SHUT_RDWR, create_server, socket

import httpx
import psutil
import pytest

from kanaria.settings import Settings
from kanaria.stack import environments
from kanaria.stack.environments import KEPT, Environments, InstallError, python_in, variables_in
from kanaria.stack.fleet import LocalFleet
from kanaria.stack.out_of_reach import sandbox_of
from kanaria.stack.ports import free_port
from kanaria.stack.requirements import wanted_by
from kanaria.stack.sandbox import lacking
from kanaria.stack.version_process import MODULE, server_command
from rollout.fleet import Health
from tests.support.paths import ROOT
from tests.support.processes import Kept, until
from tests.support.small_disk import mounted
from tests.support.wheels import write_bento, write_index

_CONFIGURED = ("UV_", "PIP_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")
_NOTHING_THERE = f"http://127.0.0.1:{free_port()}/simple"


class Place:
    """A state folder, a store of Bentos, and the messages of the installer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bentos, self.said = folder / "state/environments", folder / "bentoml", list[str]()

    def make(self, tag: str, *, kept: int = KEPT) -> Path:
        return Environments(self.folder, kept=kept).prepare(wanted_by(tag), say=self.said.append)

    def made(self) -> list[str]:
        """The existing environment folders."""
        return [path.name for path in self.folder.iterdir() if path.is_dir()]

    def process(self, tag: str) -> subprocess.Popen[str]:
        """The process of a version, started as the keeper starts it."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(self.folder), "venv", tag, "--port", str(free_port())],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Two Bentos that differ in the version of `tiny`; their packages come only from one folder."""
    for name in os.environ:
        if name.startswith(_CONFIGURED):
            monkeypatch.delenv(name)
    index = write_index(tmp_path / "index")
    for name, value in {
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "PIP_CONFIG_FILE": os.devnull,
        "UV_NO_CONFIG": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_NO_INDEX": "1",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_HTTP_RETRIES": "0",
        "PIP_RETRIES": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }.items():
        monkeypatch.setenv(name, value)
    made = Place(tmp_path)
    write_bento(made.bentos, "m:v1", "tiny==1.0", "bentoml")
    write_bento(made.bentos, "m:v2", "tiny==2.0", "bentoml")
    return made


@pytest.fixture(params=["uv", "pip"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test with uv and with pip, which installs where uv is missing."""
    if request.param == "pip":
        monkeypatch.setattr(environments, "_uv", lambda: None)
    elif environments._uv() is None:
        pytest.skip("uv is not installed")
    return str(request.param)


@pytest.fixture
def no_network(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package index at which nothing answers."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", _NOTHING_THERE)


def version_in(environment: Path) -> str:
    code = "import tiny; print(tiny.VERSION)"
    return subprocess.check_output(
        [python_in(environment), "-c", code], env=variables_in(environment, os.environ), text=True
    ).strip()


@pytest.mark.usefixtures("installer")
def test_two_versions_have_two_versions_of_a_package(place: Place) -> None:
    """Each has its own environment. Equal requirements share one environment without another installation."""
    first, second = place.make("m:v1"), place.make("m:v2")
    assert (version_in(first), version_in(second)) == ("1.0", "2.0")
    write_bento(place.bentos, "other:v9", "tiny==1.0", "bentoml")
    said = list(place.said)
    assert place.make("other:v9") == place.make("m:v1") == first
    assert place.said == said
    assert place.said[-1].startswith("the environment of m:v2 is ready after")


def test_a_version_cannot_import_kanarias_own_packages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version imports only what its Bento asks for and its own code, even when PYTHONPATH names this project."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = place.make("m:v1")
    code = (
        "import importlib.util as u; print([m for m in ('kanaria', 'contract', 'rollout', 'torch') if u.find_spec(m)])"
    )
    seen = subprocess.check_output([python_in(made), "-P", "-c", code], env=variables_in(made, os.environ), text=True)
    assert seen.strip() == "[]"
    assert Path(variables_in(made, os.environ)["PATH"].split(os.pathsep)[0]) == made / "bin"


def test_bentoml_is_added_to_a_bento_that_does_not_ask_for_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the version of BentoML that runs here."""
    monkeypatch.setattr(environments.metadata, "version", lambda _: "0.1")
    write_bento(place.bentos, "m:v3", "tiny==1.0")
    assert (place.make("m:v3") / "bin/bentoml").exists()


@pytest.mark.usefixtures("installer")
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["tiny==9.0"], "tiny==9.0"),
        (["no-such-package-here"], "no-such-package-here"),
        (["tiny==1.0", "tiny==2.0"], "tiny==2.0"),
        (["tiny ==== what"], "tiny"),
        (["./wheels/gone-1-py3-none-any.whl"], "gone-1"),
    ],
)
def test_a_failed_installation_shows_the_words_of_the_installer(
    lines: list[str], words: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the failed environment remains."""
    write_bento(place.bentos, "m:bad", *lines, "bentoml")
    with pytest.raises(InstallError) as failed:
        place.make("m:bad")
    assert failed.value.what == "the packages of m:bad could not be installed"
    assert words in failed.value.saw
    assert "requirements.txt" in failed.value.do
    assert place.made() == []


@pytest.mark.usefixtures("installer", "no_network")
def test_without_a_network_the_error_says_so(place: Place) -> None:
    """It also says what to do. Once the network is back, the next attempt succeeds."""
    with pytest.raises(InstallError, match="the package index could not be reached") as failed:
        place.make("m:v1")
    assert "onnection refused" in failed.value.saw
    assert "KANARIA_RUNTIME=shared" in failed.value.do
    assert place.made() == []


def test_without_a_network_an_existing_environment_still_serves(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted version needs no package index."""
    made = place.make("m:v1")
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert place.make("m:v1") == made


@pytest.mark.usefixtures("installer")
def test_a_full_disk_is_reported(place: Place, tmp_path: Path) -> None:
    """With free space again, the same environment is made."""
    place.folder = tmp_path / "small" / "environments"
    with mounted(tmp_path / "small", mib=24) as disk:
        place.folder.mkdir()
        disk.fill()
        with pytest.raises(InstallError, match="the disk is full"):
            place.make("m:v1")
        disk.free()
        assert version_in(place.make("m:v1")) == "1.0"


def test_two_installations_of_the_same_environment_wait_for_each_other(place: Place) -> None:
    """One makes the environment and the other finds it."""
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(place.make("m:v1"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert place.made() == [found[0].name]


class HangingIndex:
    """A package index that accepts requests and never answers."""

    def __init__(self) -> None:
        self._socket = create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/simple"
        self.asked = threading.Event()
        self._taken: list[socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                self._taken.append(self._socket.accept()[0])
            except OSError:  # closed
                return
            self.asked.set()

    def close(self) -> None:
        """Close every connection and accept no more requests."""
        self._socket.shutdown(SHUT_RDWR)
        self._socket.close()
        for connection in self._taken:
            connection.close()


@pytest.fixture
def hanging(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingIndex]:
    index = HangingIndex()
    with monkeypatch.context() as configured:
        for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
            configured.delenv(name)
        configured.setenv("PIP_INDEX_URL", index.url)
        yield index


@pytest.mark.parametrize("has_orphan", [True, False])
def test_an_environment_whose_installation_was_killed_is_made_again(
    has_orphan: bool, place: Place, hanging: HangingIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SIGKILL hits only the process, whose installer continues, or both.

    Their unfinished work is removed and never used.
    """
    with place.process("m:v1") as maker:
        assert hanging.asked.wait(120)
        (torn,) = place.made()
        if has_orphan:
            maker.kill()
        else:
            os.killpg(maker.pid, signal.SIGKILL)
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert version_in(place.make("m:v1")) == "1.0"
    assert torn not in place.made()
    if has_orphan:
        os.killpg(maker.pid, signal.SIGKILL)


def test_the_process_of_a_version_becomes_its_server(place: Place) -> None:
    """It stays one process from start to end, so the keeper knows it; each stage appears in its log."""
    version = place.process("m:v2")
    found = Path(f"/proc/{version.pid}/cmdline")
    until(lambda: b"/bin/bentoml" in found.read_bytes())
    words = found.read_bytes().decode().split("\0")
    variables = psutil.Process(version.pid).environ()
    version.kill()
    said, _ = version.communicate()
    assert words[1].startswith(str(place.folder))
    assert words[2:4] == ["serve", "m:v2"]
    assert "m:v2 gets its own environment: KANARIA_RUNTIME is `venv`" in said
    assert "the environment of m:v2 is ready" in said
    assert not [name for name in variables if name.startswith(("PIP_", "UV_"))]  # may hold a password


def test_a_version_that_cannot_be_installed_ends_its_log_with_the_reason(place: Place) -> None:
    """The controller reads the last line of the log."""
    write_bento(place.bentos, "m:bad", "tiny==9.0", "bentoml")
    version = place.process("m:bad")
    said, _ = version.communicate(timeout=120)
    assert version.returncode == 1
    last = said.strip().splitlines()[-1]
    assert last.startswith("InstallError: the packages of m:bad could not be installed: ")
    assert "tiny==9.0" in last[:300]


@pytest.fixture
def fleet(place: Place) -> Iterator[LocalFleet]:
    """The fleet of that state folder, with a keeper."""
    kept = Kept(place.folder.parent)
    kept.supervisor.start()
    yield LocalFleet(
        kept.supervisor,
        kept.home / "versions",
        command=partial(server_command, Settings(home=kept.home)),
        environment=lambda _: {},
        on_change=lambda _: None,
        on_refusal=lambda: None,
    )
    kept.supervisor.shutdown()


def test_both_versions_are_served_at_the_same_time(place: Place, fleet: LocalFleet) -> None:
    """Each uses its own package version, also after it is killed and restarted."""
    for tag in ("m:v1", "m:v2"):
        fleet.start(tag)
    assert until(lambda: all(fleet.status(tag).health is Health.READY for tag in ("m:v1", "m:v2")), limit_s=120)
    assert [answer(fleet, tag) for tag in ("m:v1", "m:v2")] == ["1.0", "2.0"]
    pid = fleet.process_of("m:v2")
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: fleet.process_of("m:v2") not in {None, pid})
    assert until(lambda: answer(fleet, "m:v2"), limit_s=120)  # the known readiness may be slightly old
    assert answer(fleet, "m:v2") == "2.0"


def answer(fleet: LocalFleet, tag: str) -> str | None:
    """The answer of the version; None while nothing listens."""
    (backend,) = fleet.status(tag).backends
    try:
        return httpx.get(backend.url, trust_env=False).text
    except httpx.ConnectError:
        return None


def test_the_progress_of_an_installation_and_its_failure_are_reported(
    place: Place, hanging: HangingIndex, request: pytest.FixtureRequest
) -> None:
    """During the installation the version is starting. If the installation fails, it has crashed, with the reason."""
    fleet: LocalFleet = request.getfixturevalue("fleet")  # its keeper passes the hanging index on
    fleet.start("m:v1")
    assert hanging.asked.wait(120)
    status = fleet.status("m:v1")
    assert status.health is Health.STARTING
    assert until(lambda: fleet.status("m:v1").preparing)
    hanging.close()
    assert until(lambda: fleet.status("m:v1").has_crashed, limit_s=120)
    assert "InstallError: the packages of m:v1 could not be installed: the package index" in fleet.status("m:v1").detail


@pytest.mark.usefixtures("installer")
def test_a_missing_python_version_is_reported(place: Place) -> None:
    """The error has both Python versions and says what to do."""
    write_bento(place.bentos, "m:old", "tiny==1.0", "bentoml", python="3.1")
    with pytest.raises(InstallError, match=r"m:old was built for Python 3\.1, which is not here; Kanaria runs on 3"):
        place.make("m:old")
    assert place.made() == []


def test_old_unused_environments_are_removed(place: Place) -> None:
    """A running version keeps its environment, however old. Of the others, the most recently used few stay."""
    running = place.make("m:v1")
    sleeper = subprocess.Popen([python_in(running), "-c", "import time; time.sleep(600)"])
    wanted = place.make("m:v2")  # should run and does not run at this moment
    programs = place.folder.parent / "programs"
    programs.mkdir()
    (programs / "m@v2.json").touch()
    made = []
    for number in range(3):
        write_bento(place.bentos, f"m:n{number}", "tiny", "bentoml", f"# {number}")
        aged(place.folder)
        made.append(place.make(f"m:n{number}", kept=1).name)
    sleeper.kill()
    sleeper.wait()
    assert set(place.made()) == {running.name, wanted.name, made[-1]}
    assert len(list(place.folder.glob("*.json"))) == 3


def aged(folder: Path) -> None:
    """Make each look one hour older since its last use."""
    for note in folder.glob("*.json"):
        used_s = note.stat().st_mtime - 3600
        os.utime(note, (used_s, used_s))


def test_an_environment_that_was_just_used_is_not_removed(place: Place) -> None:
    """The process that found it is about to start in it."""
    for tag in ("m:v1", "m:v2"):
        place.make(tag, kept=0)
    assert len(place.made()) == 2


@pytest.mark.parametrize("content", [b"", b'{"folder": 3}', b'{"folder": "gone"}'])
def test_an_unreadable_note_means_that_there_is_no_environment(content: bytes, place: Place) -> None:
    """The environment is made again."""
    place.make("m:v1")
    (note,) = place.folder.glob("*.json")
    note.write_bytes(content)
    assert version_in(place.make("m:v1")) == "1.0"
    assert len(place.made()) == 1


def test_an_environment_without_its_python_is_made_again(place: Place) -> None:
    """Somebody removed the interpreter that it was made from."""
    made = place.make("m:v1")
    python_in(made).unlink()
    assert version_in(place.make("m:v1")) == "1.0"


def test_files_that_the_requirements_name_count_too(place: Place) -> None:
    """A wheel rebuilt under the same name is another package."""
    folder = write_bento(place.bentos, "m:w", "./wheels/own-1-py3-none-any.whl", "bentoml")
    wheels = folder / "src/wheels"
    wheels.mkdir()
    keys = []
    for content in (b"a", b"b"):
        (wheels / "own-1-py3-none-any.whl").write_bytes(content)
        keys.append(environments._key(wanted_by("m:w")))
    assert keys[0] != keys[1]


def test_uv_uses_the_configuration_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip's variables override pip's file, and uv's own variables override both."""
    for name in os.environ:
        if name.startswith(_CONFIGURED):
            monkeypatch.delenv(name)
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://a.example/simple\nextra-index-url =\n  https://b.example/simple\n"
        "  https://c.example/simple\nfind-links = /one\n  /two\ntimeout = 9\nconstraint = /elsewhere.txt\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_INDEX_URL", "https://d.example/simple")
    seen = environments._uv_variables({"UV_HTTP_TIMEOUT": "5"}, environments._pip_configuration())
    seen.pop("SSL_CERT_FILE", None)  # from the machine's own configuration, which pip always reads
    assert seen == {
        "UV_DEFAULT_INDEX": "https://d.example/simple",
        "UV_INDEX": "https://b.example/simple https://c.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/one,/two",
        "UV_HTTP_TIMEOUT": "5",
    }


@pytest.mark.parametrize("own", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_uvs_own_index_overrides_the_index_of_pip(own: str) -> None:
    """This holds also for the older name of uv's variable."""
    given = {own: "https://uv.example/simple"}
    assert environments._uv_variables(given, {"index-url": "https://pip.example/simple"}) == given


@pytest.mark.usefixtures("installer")
@pytest.mark.skipif(bool(lacking()), reason=f"no sandbox here: {lacking()}")
def test_the_build_of_a_package_sees_no_secret(place: Place, tmp_path: Path) -> None:
    """A Bento may name a package whose build runs its author's code. Packages that need no build are only installed."""
    state, source, seen = place.folder.parent, tmp_path / "source", tmp_path / "seen"
    for folder in (state, source):
        folder.mkdir(parents=True, exist_ok=True)
    (state / "token").write_text("secret")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "hostile"\nversion = "1.0"\n'
    )
    code = f"import os, pathlib\npathlib.Path({str(seen)!r}).write_text(str(os.listdir({str(state)!r})))\n"
    (source / "backend.py").write_text(code)
    write_bento(place.bentos, "m:hostile", f"hostile @ {source.as_uri()}", "bentoml")
    sandbox = sandbox_of(Settings(home=state), "m:hostile")
    made = Environments(place.folder, sandbox=sandbox)
    with pytest.raises(InstallError):  # nothing is built
        made.prepare(wanted_by("m:hostile"), say=place.said.append)
    assert seen.read_text() == "['environments']"
    assert version_in(made.prepare(wanted_by("m:v1"), say=place.said.append)) == "1.0"
