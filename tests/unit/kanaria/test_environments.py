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
    """A state folder, a store of Bentos, and what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bentos, self.said = folder / "state/environments", folder / "bentoml", list[str]()

    def make(self, tag: str, *, kept: int = KEPT) -> Path:
        return Environments(self.folder, kept=kept).prepare(wanted_by(tag), say=self.said.append)

    def made(self) -> list[str]:
        """The folders of environments that are there."""
        return [path.name for path in self.folder.iterdir() if path.is_dir()]

    def process(self, tag: str) -> subprocess.Popen[str]:
        """The process of a version, as the keeper starts it."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(self.folder), "venv", tag, "--port", str(free_port())],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Two Bentos that differ in the version of `tiny`; packages come from a folder and from nowhere else."""
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
    """Each of the two; without uv, pip does it."""
    if request.param == "pip":
        monkeypatch.setattr(environments, "_uv", lambda: None)
    elif environments._uv() is None:
        pytest.skip("uv is not installed")
    return str(request.param)


@pytest.fixture
def no_network(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index at which nothing answers."""
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
    """Each has its own; the same requirements again are the same environment, and nothing is installed."""
    first, second = place.make("m:v1"), place.make("m:v2")
    assert (version_in(first), version_in(second)) == ("1.0", "2.0")
    write_bento(place.bentos, "other:v9", "tiny==1.0", "bentoml")
    said = list(place.said)
    assert place.make("other:v9") == place.make("m:v1") == first
    assert place.said == said
    assert place.said[-1].startswith("the environment of m:v2 is ready after")


def test_nothing_of_kanarias_is_in_its_reach(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where PYTHONPATH names this project: a version imports what its Bento asks for, and its own code."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = place.make("m:v1")
    code = (
        "import importlib.util as u; print([m for m in ('kanaria', 'contract', 'rollout', 'torch') if u.find_spec(m)])"
    )
    seen = subprocess.check_output([python_in(made), "-P", "-c", code], env=variables_in(made, os.environ), text=True)
    assert seen.strip() == "[]"
    assert Path(variables_in(made, os.environ)["PATH"].split(os.pathsep)[0]) == made / "bin"


def test_bentoml_is_added_where_a_bento_does_not_ask_for_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the version that runs here."""
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
def test_what_cannot_be_installed_is_said_in_the_installers_words(
    lines: list[str], words: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it stays behind."""
    write_bento(place.bentos, "m:bad", *lines, "bentoml")
    with pytest.raises(InstallError) as failed:
        place.make("m:bad")
    assert failed.value.what == "the packages of m:bad could not be installed"
    assert words in failed.value.saw
    assert "requirements.txt" in failed.value.do
    assert place.made() == []


@pytest.mark.usefixtures("installer", "no_network")
def test_without_a_network_it_says_so(place: Place) -> None:
    """And what to do; with the network back the next attempt succeeds."""
    with pytest.raises(InstallError, match="the package index could not be reached") as failed:
        place.make("m:v1")
    assert "onnection refused" in failed.value.saw
    assert "KANARIA_RUNTIME=shared" in failed.value.do
    assert place.made() == []


def test_without_a_network_a_made_environment_serves_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is started again needs no index."""
    made = place.make("m:v1")
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert place.make("m:v1") == made


@pytest.mark.usefixtures("installer")
def test_a_full_disk_is_named(place: Place, tmp_path: Path) -> None:
    """With room again the same is made."""
    place.folder = tmp_path / "small" / "environments"
    with mounted(tmp_path / "small", mib=24) as disk:
        place.folder.mkdir()
        disk.fill()
        with pytest.raises(InstallError, match="the disk is full"):
            place.make("m:v1")
        disk.free()
        assert version_in(place.make("m:v1")) == "1.0"


def test_two_that_want_the_same_wait_for_one(place: Place) -> None:
    """One makes it, the other finds it."""
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(place.make("m:v1"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert place.made() == [found[0].name]


class HangingIndex:
    """A package index that takes questions and answers none."""

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
        """Hang up, and take no more questions."""
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
def test_killed_while_it_is_made_it_is_made_anew(
    has_orphan: bool, place: Place, hanging: HangingIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """kill -9 of the process alone, whose installer goes on, or of both: what they left is never used, and removed."""
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
    """One process from first to last, so that the keeper knows it; what is done shows in its log."""
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
    assert not [name for name in variables if name.startswith(("PIP_", "UV_"))]  # an index's password may be in them


def test_a_version_that_cannot_be_installed_ends_with_the_reason_as_its_last_word(place: Place) -> None:
    """That is what the controller reads."""
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


def test_both_are_served_at_the_same_time(place: Place, fleet: LocalFleet) -> None:
    """Each with its own package; one that is killed comes back with it."""
    for tag in ("m:v1", "m:v2"):
        fleet.start(tag)
    assert until(lambda: all(fleet.status(tag).health is Health.READY for tag in ("m:v1", "m:v2")), limit_s=120)
    assert [answer(fleet, tag) for tag in ("m:v1", "m:v2")] == ["1.0", "2.0"]
    pid = fleet.process_of("m:v2")
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: fleet.process_of("m:v2") not in {None, pid})
    assert until(lambda: answer(fleet, "m:v2"), limit_s=120)  # what is known of its readiness may be a moment old
    assert answer(fleet, "m:v2") == "2.0"


def answer(fleet: LocalFleet, tag: str) -> str | None:
    """None while nothing listens."""
    (backend,) = fleet.status(tag).backends
    try:
        return httpx.get(backend.url, trust_env=False).text
    except httpx.ConnectError:
        return None


def test_what_is_done_is_known_and_why_it_failed(
    place: Place, hanging: HangingIndex, request: pytest.FixtureRequest
) -> None:
    """While it is made the version is starting and says so; what cannot be installed has crashed, with the reason."""
    fleet: LocalFleet = request.getfixturevalue("fleet")  # its keeper hands the hanging index on
    fleet.start("m:v1")
    assert hanging.asked.wait(120)
    status = fleet.status("m:v1")
    assert status.health is Health.STARTING
    assert until(lambda: fleet.status("m:v1").preparing)
    hanging.close()
    assert until(lambda: fleet.status("m:v1").has_crashed, limit_s=120)
    assert "InstallError: the packages of m:v1 could not be installed: the package index" in fleet.status("m:v1").detail


@pytest.mark.usefixtures("installer")
def test_a_python_that_is_not_here_is_named(place: Place) -> None:
    """With both versions, and what to do."""
    write_bento(place.bentos, "m:old", "tiny==1.0", "bentoml", python="3.1")
    with pytest.raises(InstallError, match=r"m:old was built for Python 3\.1, which is not here; Kanaria runs on 3"):
        place.make("m:old")
    assert place.made() == []


def test_old_environments_are_removed_but_for_those_in_use(place: Place) -> None:
    """What runs keeps its own however old; of the others the few used last are kept."""
    running = place.make("m:v1")
    sleeper = subprocess.Popen([python_in(running), "-c", "import time; time.sleep(600)"])
    wanted = place.make("m:v2")  # is to run, and does not at this moment
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
    """As if an hour had passed since each was used."""
    for note in folder.glob("*.json"):
        used_s = note.stat().st_mtime - 3600
        os.utime(note, (used_s, used_s))


def test_one_that_was_just_used_is_not_removed(place: Place) -> None:
    """Whoever found it is about to start in it."""
    for tag in ("m:v1", "m:v2"):
        place.make(tag, kept=0)
    assert len(place.made()) == 2


@pytest.mark.parametrize("content", [b"", b'{"folder": 3}', b'{"folder": "gone"}'])
def test_a_note_that_cannot_be_read_means_none(content: bytes, place: Place) -> None:
    """It is made anew."""
    place.make("m:v1")
    (note,) = place.folder.glob("*.json")
    note.write_bytes(content)
    assert version_in(place.make("m:v1")) == "1.0"
    assert len(place.made()) == 1


def test_an_environment_whose_python_is_gone_is_made_anew(place: Place) -> None:
    """Somebody removed the interpreter that it was made from."""
    made = place.make("m:v1")
    python_in(made).unlink()
    assert version_in(place.make("m:v1")) == "1.0"


def test_files_that_the_requirements_name_count_as_well(place: Place) -> None:
    """A wheel that was built anew under the same name is another package."""
    folder = write_bento(place.bentos, "m:w", "./wheels/own-1-py3-none-any.whl", "bentoml")
    wheels = folder / "src/wheels"
    wheels.mkdir()
    keys = []
    for content in (b"a", b"b"):
        (wheels / "own-1-py3-none-any.whl").write_bytes(content)
        keys.append(environments._key(wanted_by("m:w")))
    assert keys[0] != keys[1]


def test_uv_gets_what_pip_is_configured_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its file and its variables, of which the latter count more; uv's own count most."""
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
    seen.pop("SSL_CERT_FILE", None)  # of the machine's own configuration, which pip reads in any case
    assert seen == {
        "UV_DEFAULT_INDEX": "https://d.example/simple",
        "UV_INDEX": "https://b.example/simple https://c.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/one,/two",
        "UV_HTTP_TIMEOUT": "5",
    }


@pytest.mark.parametrize("own", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_uvs_own_index_counts_more_than_pips(own: str) -> None:
    """Also by its older name."""
    given = {own: "https://uv.example/simple"}
    assert environments._uv_variables(given, {"index-url": "https://pip.example/simple"}) == given


@pytest.mark.usefixtures("installer")
@pytest.mark.skipif(bool(lacking()), reason=f"no sandbox here: {lacking()}")
def test_what_builds_a_package_sees_no_secret(place: Place, tmp_path: Path) -> None:
    """A Bento may name a package whose building runs code of its author. What is only to be installed is installed."""
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
    with pytest.raises(InstallError):  # it builds nothing
        made.prepare(wanted_by("m:hostile"), say=place.said.append)
    assert seen.read_text() == "['environments']"
    assert version_in(made.prepare(wanted_by("m:v1"), say=place.said.append)) == "1.0"
