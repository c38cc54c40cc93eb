"""Versions that a keeper forks from one process are independent of each other and of that process."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from contract.http import PREDICT_PATH, READY_PATH, SECRET_HEADER
from kanaria.stack import fork_server, model_server
from kanaria.stack.guarded_ports import guarding
from kanaria.stack.ports import free_port
from kanaria.stack.processes import KEPT_AS
from kanaria.stack.python import own_module
from kanaria.stack.sandbox import Sandbox, lacking
from kanaria.stack.supervision import Program
from tests.support.asking import HTTP
from tests.support.bentos import Bentos
from tests.support.processes import Kept, until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="versions are forked on Linux only"),
]

READY_WITHIN_S = 180.0
# Allow the process to leave a sandbox: DAC_READ_SEARCH, NET_RAW, SYS_ADMIN.
ESCAPES_A_SANDBOX = 1 << 2 | 1 << 13 | 1 << 21
STARTS_A_THREAD = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"


class Versions(Kept):
    """Versions of a store in a state folder."""

    def __init__(self, home: Path, bentos: Bentos) -> None:
        super().__init__(home)
        self._bentos = bentos
        self.ports: dict[str, int] = {}

    def start(
        self,
        tag: str,
        *,
        is_guarded_by: str = "",
        hidden: Path | None = None,
        is_confined: bool = True,
        **variables: str,
    ) -> None:
        """Start a version as the fleet does, with one worker."""
        within = Sandbox(hidden=(str(hidden),)) if hidden else None
        port = self.ports[tag] = free_port()
        given = {
            "BENTOML_HOME": str(self._bentos.home),
            "BENTOML_CONFIG_OVERRIDES": json.dumps({"services": {"predictor": {"workers": 1}}}),
            "BENTOML_DO_NOT_TRACK": "True",
            "KANARIA_VERSION": tag,
            "KANARIA_ANSWERS_DIR": str(self.home / "answers"),
            "KANARIA_PREDICTIONS_DIR": str(self.home / "predictions"),
            **(guarding(port, is_guarded_by) if is_guarded_by else {}),
            **variables,
        }
        address = ("--host", "127.0.0.1", "--port", str(port))
        command = own_module(model_server.MODULE, tag, *address)
        program = Program(
            name_of(tag), command, given, folder=str(self.home), listed=(), is_confined=is_confined, sandbox=within
        )
        self.supervisor.add(program)

    def ready(self, tag: str, *, other_than: int = 0) -> psutil.Process:
        """The main process of a version, once it answers."""
        pid = self.pid(name_of(tag), other_than=other_than)
        until(lambda: self.ask(tag, READY_PATH), limit_s=READY_WITHIN_S)
        return psutil.Process(self.pid(name_of(tag), other_than=other_than) or pid)

    def ask(self, tag: str, path: str, headers: Mapping[str, str] | None = None) -> bool:
        """Whether a version answers without an error."""
        try:
            return HTTP.get(f"http://127.0.0.1:{self.ports[tag]}{path}", headers=headers).is_success
        except httpx.TransportError:
            return False

    def answered_by(self, tag: str) -> str:
        """The version that answers at the port of `tag`, as it says itself."""
        body = self._bentos.requests(tag, 1)
        url = f"http://127.0.0.1:{self.ports[tag]}{PREDICT_PATH}"
        return str(HTTP.post(url, content=body).raise_for_status().json()["version"])

    def stopped_server(self, *, other_than: int = 0) -> psutil.Process:
        """The next fork server that starts, stopped while it imports."""
        server = until(lambda: next((each for each in self.fork_servers if each.pid != other_than), None))
        server.suspend()
        return server

    def restart_keeper(self, **variables: str) -> None:
        """Replace the keeper by one that also has these variables."""
        self.kill_keeper()
        self.supervisor.start(os.environ | variables)

    @property
    def fork_servers(self) -> list[psutil.Process]:
        return [process for process in self.everything() if fork_server.MODULE in process.cmdline()]

    def log(self, name: str) -> str:
        path = self.home / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""


def name_of(tag: str) -> str:
    return tag.replace(":", "@")


def with_path(folder: Path) -> str:
    """PYTHONPATH with another folder first."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))


def is_forked(process: psutil.Process) -> bool:
    """Whether it was forked: a Python that was started directly has no blank word in its command line."""
    return not process.cmdline()[-1].strip()


@pytest.fixture
def versions(tmp_path: Path, bentos: Bentos) -> Iterator[Versions]:
    made = Versions(tmp_path / "state", bentos)
    made.supervisor.start()
    yield made
    made.supervisor.shutdown()
    assert made.everything() == []


def test_two_versions_share_a_fork_server_and_keep_separate_identities(
    versions: Versions, bentos: Bentos, tmp_path: Path
) -> None:
    """Each has its own variables, store, command line, session and log, and cannot gain rights."""
    tags, other = ("digits:v1", "digits:v2"), bentos.copied_to(tmp_path / "store")
    shutil.rmtree(other.home / "bentos" / "digits" / "v1")
    for tag, store in zip(tags, (bentos.home, other.home), strict=True):
        versions.start(tag, KANARIA_ANSWERS_KEY=f"key of {tag}", BENTOML_HOME=str(store))
    mains = {tag: versions.ready(tag) for tag in tags}
    (server,) = versions.fork_servers
    for (tag, main), store in zip(mains.items(), (bentos.home, other.home), strict=True):
        assert is_forked(main)
        assert main.ppid() == server.pid
        assert os.getsid(main.pid) == main.pid
        assert "NoNewPrivs:\t1" in Path(f"/proc/{main.pid}/status").read_text()
        assert versions.answered_by(tag) == tag
        assert main.cwd() == str(store / "bentos" / tag.replace(":", "/") / "src")
        for process in (main, *main.children()):
            assert process.cmdline()[3:5] == [model_server.MODULE, tag]
            variables = process.environ()
            assert (variables[KEPT_AS], variables["KANARIA_ANSWERS_KEY"]) == (name_of(tag), f"key of {tag}")
            assert "ROOM_FOR_VARIABLES" not in variables
            assert [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in (1, 2)] == [
                str(versions.home / "logs" / f"{name_of(tag)}.log")
            ] * 2
    assert versions.log("digits@v1").count("model_ready") == 1
    versions.supervisor.stop("digits@v1")
    until(lambda: versions.info("digits@v1") is None)
    assert not versions.everything("digits@v1")
    assert versions.answered_by("digits:v2") == "digits:v2"


def test_no_variable_of_a_version_reaches_the_fork_server_or_another_version(versions: Versions) -> None:
    """It is not in the server's memory either, where a fork would find it."""
    secret = "s3cret-of-the-first"  # noqa: S105 - made up here
    versions.start("digits:v1", KANARIA_ANSWERS_KEY=secret)
    versions.ready("digits:v1")
    (server,) = versions.fork_servers
    versions.start("digits:v2")
    assert not is_in_memory(server, secret)
    assert not is_in_memory(versions.ready("digits:v2"), secret)


def test_the_port_of_a_forked_version_requires_the_secret(versions: Versions) -> None:
    """This holds for the first and the second version, each at its own port."""
    secret = "port-secret"  # noqa: S105 - made up here
    for tag in ("digits:v1", "digits:v2"):
        versions.start(tag, is_guarded_by=secret)
        until(lambda tag=tag: versions.ask(tag, READY_PATH, {SECRET_HEADER: secret}), limit_s=READY_WITHIN_S)
        assert is_forked(psutil.Process(versions.pid(name_of(tag))))
        assert not versions.ask(tag, READY_PATH)


@pytest.mark.skipif(bool(lacking()), reason=f"no sandbox here: {lacking()}")
def test_a_forked_version_runs_in_its_own_sandbox(versions: Versions, tmp_path: Path) -> None:
    """Its workers do too; another version forked from the same server has its own sandbox."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "secret").touch()
    versions.start("digits:v1", hidden=hidden)
    versions.start("digits:v2")
    for tag, seen in (("digits:v1", []), ("digits:v2", ["secret"])):
        main = versions.ready(tag)
        assert is_forked(main)
        assert all(names_in(each, hidden) == seen for each in (main, *main.children()))
    main = versions.ready("digits:v1")
    assert not any(capabilities(each) & ESCAPES_A_SANDBOX for each in (main, *main.children()))


def test_a_killed_fork_server_stops_no_version_and_is_replaced_at_the_next_start(versions: Versions) -> None:
    """A version that is killed later is forked from the new server."""
    versions.start("digits:v1")
    main = versions.ready("digits:v1")
    (server,) = versions.fork_servers
    server.kill()
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    assert versions.answered_by("digits:v1") == "digits:v1"
    assert versions.info("digits@v1").has_crashed is False
    versions.start("digits:v2")
    second = versions.ready("digits:v2")
    assert is_forked(second)
    assert [each.pid for each in versions.fork_servers] == [second.ppid()]
    main.kill()
    assert versions.ready("digits:v1", other_than=main.pid).ppid() == second.ppid()
    assert versions.info("digits@v1").has_crashed


def test_a_killed_version_is_forked_again_at_once(versions: Versions) -> None:
    """The same server forks it and reports how it ended."""
    versions.start("digits:v1")
    main = versions.ready("digits:v1")
    (server,) = versions.fork_servers
    main.kill()
    assert versions.ready("digits:v1", other_than=main.pid).ppid() == server.pid
    assert versions.info("digits@v1").signal == signal.SIGKILL
    assert f'"pid": {main.pid}, "exit_code": -9' in versions.log("keeper")


def test_a_killed_keeper_stops_its_fork_server_but_no_version(versions: Versions) -> None:
    """The next keeper takes the version over and forks it again from its own server, started by a new version."""
    versions.start("digits:v1")
    main = versions.ready("digits:v1")
    versions.kill_keeper()
    until(lambda: not versions.fork_servers)
    versions.supervisor.start()
    assert versions.ready("digits:v1").pid == main.pid
    versions.start("digits:v2")
    second = versions.ready("digits:v2")
    assert is_forked(second)
    main.kill()
    assert versions.ready("digits:v1", other_than=main.pid).ppid() == second.ppid()


def test_versions_with_different_library_variables_have_different_fork_servers(versions: Versions) -> None:
    """A library that reads them at import reads its own version's. Both versions start, and neither waits forever."""
    versions.start("digits:v1", OMP_NUM_THREADS="2")
    versions.start("digits:v2", OMP_NUM_THREADS="3")
    assert all(is_forked(versions.ready(tag)) for tag in ("digits:v1", "digits:v2"))
    (server,) = versions.fork_servers
    assert server.environ()["OMP_NUM_THREADS"] == "3"
    assert versions.answered_by("digits:v1") == "digits:v1"


def test_a_hanging_fork_server_blocks_no_version(versions: Versions) -> None:
    """It is stopped, and the version is started directly."""
    versions.start("digits:v1")
    versions.ready("digits:v1")
    (server,) = versions.fork_servers
    server.suspend()
    versions.start("digits:v2")
    assert not is_forked(versions.ready("digits:v2"))
    assert versions.fork_servers == []
    assert versions.answered_by("digits:v1") == "digits:v1"


def test_no_version_waits_long_for_a_fork_server_that_hangs_at_its_imports(versions: Versions) -> None:
    """Neither an earlier version nor a new one that needs another server waits. The server is not stopped meanwhile."""
    versions.start("digits:v1")
    main = versions.ready("digits:v1")
    (server,) = versions.fork_servers
    server.kill()
    main.kill()
    stopped = versions.stopped_server(other_than=server.pid)
    versions.start("digits:v2", OMP_NUM_THREADS="3")
    for tag, before in (("digits:v1", main.pid), ("digits:v2", 0)):
        assert not is_forked(psutil.Process(versions.pid(name_of(tag), other_than=before)))
        assert [each.pid for each in versions.fork_servers] == [stopped.pid]
    assert not is_forked(versions.ready("digits:v1", other_than=main.pid))
    stopped.resume()
    pid = versions.pid("digits@v1")
    until(lambda: versions.log("keeper").count("fork_server_started") == 2)
    versions.start("digits:v3")
    assert is_forked(psutil.Process(versions.pid("digits@v3")))
    assert versions.pid("digits@v1") == pid


def test_no_version_is_forked_from_a_server_with_outdated_packages(versions: Versions, tmp_path: Path) -> None:
    """A server that imported the packages before an installation forks no more versions."""
    packages = tmp_path / "packages"
    (packages / "old.dist-info").mkdir(parents=True)
    versions.restart_keeper(PYTHONPATH=with_path(packages))
    versions.start("digits:v1")
    (before,) = (versions.ready("digits:v1"), versions.fork_servers)[1]
    (packages / "new.dist-info").mkdir()
    versions.start("digits:v2")
    (after,) = (versions.ready("digits:v2"), versions.fork_servers)[1]
    assert after.pid != before.pid
    assert '"why": "packages were installed or removed", "event": "fork_server_started"' in versions.log("keeper")


def test_a_new_file_in_a_project_folder_does_not_replace_the_fork_server(versions: Versions, tmp_path: Path) -> None:
    """Programs write files where they run, and that folder may be on PYTHONPATH."""
    project = tmp_path / "project"
    project.mkdir()
    versions.restart_keeper(PYTHONPATH=with_path(project))
    versions.start("digits:v1")
    (before,) = (versions.ready("digits:v1"), versions.fork_servers)[1]
    (project / "loadtest.log").touch()
    versions.start("digits:v2")
    assert versions.ready("digits:v2").ppid() == before.pid


@pytest.mark.parametrize("is_confined", [True, False], ids=["forked", "started directly"])
def test_the_code_of_a_bento_takes_precedence(versions: Versions, tmp_path: Path, is_confined: bool) -> None:
    """A package elsewhere has the same name, and its `__init__.py` would make it win against a folder without one."""
    for name in ("examples", "examples/digits", "contract", "service"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "examples/digits/model.py").write_text("raise ImportError('this is not of the Bento')")
    versions.start("digits:v1", is_confined=is_confined, PYTHONPATH=with_path(tmp_path))
    assert is_forked(versions.ready("digits:v1")) is is_confined
    assert versions.answered_by("digits:v1") == "digits:v1"


@pytest.mark.parametrize("name", ["a thread", "no room"])
def test_a_version_that_cannot_be_forked_is_started_directly(versions: Versions, tmp_path: Path, name: str) -> None:
    """Its imports start threads, or its variables are too long for the space in its command line."""
    (tmp_path / "sitecustomize.py").write_text(STARTS_A_THREAD)
    hindering = {
        "a thread": {"PYTHONPATH": str(tmp_path)},
        "no room": {"KANARIA_LONG": "x" * 60_000, "KANARIA_MORE": "x" * 70_000},
    }[name]
    versions.start("digits:v1", **hindering)
    main = versions.ready("digits:v1")
    assert not is_forked(main)
    assert main.ppid() == versions.keeper
    assert versions.answered_by("digits:v1") == "digits:v1"


def names_in(process: psutil.Process, folder: Path) -> list[str]:
    """The names that a process sees in a folder."""
    return [path.name for path in Path(f"/proc/{process.pid}/root{folder}").iterdir()]


def capabilities(process: psutil.Process) -> int:
    """The capabilities in effect and those that the process could regain."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    held = [int(line.split()[1], 16) for line in lines if line.startswith(("CapEff", "CapPrm"))]
    return held[0] | held[1]


def is_in_memory(process: psutil.Process, secret: str) -> bool:
    """Whether the writable memory of a process contains a text."""
    with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                first, last = (int(number, 16) for number in span.split("-"))
                memory.seek(first)
                if secret.encode() in memory.read(last - first):
                    return True
    return False
