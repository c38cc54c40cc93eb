"""Versions as local processes under a real keeper; a small server replaces BentoML."""

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
from structlog.testing import capture_logs

from contract import environment
from kanaria.stack import probes
from kanaria.stack.bentos import process_name
from kanaria.stack.fleet import _FRESH_S, LocalFleet, of_processes
from kanaria.stack.identity import start_of
from kanaria.stack.versions import Versions
from rollout.fleet import Backend, Health, Route, VersionStatus
from tests.support.no_files import no_file_to_open
from tests.support.processes import Kept, until

TAG, NAME = "m:v1", "m@v1"
# Ready once the file `ready` exists. After SIGUSR1 it hangs.
SERVER = """
import http.server, pathlib, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if pathlib.Path(sys.argv[1]).exists() else 503)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[3])), Handler).serve_forever()
"""

# Has two workers, and ends after them when a file tells it to.
SLOW_TO_END = """
import pathlib, signal, subprocess, sys, time
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
waits = [sys.executable, "-c", "import time; time.sleep(600)", "bentoml.worker.http"]
workers = [subprocess.Popen(waits) for _ in range(2)]
path = pathlib.Path(sys.argv[1])
path.with_suffix(".new").write_text(" ".join(str(worker.pid) for worker in workers))
path.with_suffix(".new").rename(path)
for worker in workers:
    worker.wait()
while not path.with_suffix(".end").exists():
    time.sleep(0.05)
"""

# Listens, says so in a file, and starts its worker only on the first request.
LATE_WORKER = """
import http.server, pathlib, subprocess, sys
waits = [sys.executable, "-c", "import time; time.sleep(600)", "bentoml.worker.http"]
path, workers = pathlib.Path(sys.argv[1]), []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if not workers:
            workers.append(subprocess.Popen(waits))
            path.write_text(str(workers[0].pid))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
path.touch()
server.serve_forever()
"""


class World:
    """A fleet and its successive controllers."""

    def __init__(self, kept: Kept) -> None:
        self.kept, self.changes = kept, list[tuple[Backend, ...]]()
        self.ready = kept.home / "ready"
        self.ready.touch()
        self.fleet = self.new_controller()

    def new_controller(self, *, replicas: int = 1, versions: Versions | None = None, secret: str = "") -> LocalFleet:
        """The fleet as a restarted controller creates it."""
        self.fleet = LocalFleet(
            self.kept.supervisor,
            self.kept.home / "versions",
            command=lambda _, port: [sys.executable, "-c", SERVER, str(self.ready), "--port", str(port)],
            environment=lambda tag: {environment.VERSION: tag},
            on_change=self.changes.append,
            on_refusal=lambda: None,
            versions=versions,
            replicas=replicas,
            secret=secret,
        )
        return self.fleet

    def pid(self, number: int = 1) -> int:
        """The pid of the process with this number."""
        info = self.kept.supervisor.info(process_name(TAG, number))
        assert info is not None
        return info.pid

    def becomes(self, health: Health) -> bool:
        return until(lambda: self.fleet.status(TAG).health is health)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    made = Kept(tmp_path_factory.mktemp("state"))
    yield made
    made.supervisor.shutdown()


@pytest.fixture
def world(folder: Kept) -> Iterator[World]:
    """A version that is ready."""
    folder.supervisor.start()
    made = World(folder)
    made.fleet.start(TAG)
    assert made.becomes(Health.READY)
    yield made
    folder.clear()
    shutil.rmtree(folder.home / "versions")


def test_a_hanging_version_is_unready_for_a_new_controller_too(world: World) -> None:
    """The fleet records that its process was ready before, so a new controller does not take it for one that loads."""
    os.kill(world.kept.pid(NAME), signal.SIGUSR1)
    assert world.becomes(Health.UNREADY)
    world.new_controller()
    assert world.becomes(Health.UNREADY)


def test_a_version_whose_process_was_replaced_is_starting(world: World) -> None:
    """It loads again, and the end of its first process is recorded."""
    world.ready.unlink()
    pid = world.kept.pid(NAME)
    os.kill(pid, signal.SIGKILL)
    world.kept.pid(NAME, other_than=pid)
    assert world.becomes(Health.STARTING)
    assert world.fleet.status(TAG).has_crashed
    assert world.fleet.status(TAG).detail.startswith("killed by signal 9")
    world.ready.touch()
    assert world.becomes(Health.READY)
    assert world.fleet.status(TAG).detail == "killed by signal 9"


def test_workers_that_end_with_their_version_are_not_counted_as_crashed(world: World) -> None:
    """A person restarts the process: the fleet did not stop it, and must not count the workers against the version."""
    kept = world.kept
    fleet = LocalFleet(
        kept.supervisor,
        kept.home / "versions",
        command=lambda *_: [sys.executable, "-c", SLOW_TO_END, str(kept.home / "workers")],
        environment=lambda _: {},
        on_change=lambda _: None,
        on_refusal=lambda: None,
    )
    fleet.start("m:v2")
    until((kept.home / "workers").exists)
    seen_s = time.monotonic()
    # A state is cached for a moment.
    until(lambda: fleet.status("m:v2").restarts == 0 and time.monotonic() - seen_s > 0.5)
    kept.supervisor.stop("m@v2")
    pids = [int(pid) for pid in (kept.home / "workers").read_text().split()]
    until(lambda: all(start_of(pid) is None for pid in pids))
    gone_s = time.monotonic()
    until(lambda: fleet.status("m:v2").restarts == 0 and time.monotonic() - gone_s > 0.5)
    info = kept.supervisor.info("m@v2")
    assert info is not None, "its main process still finishes"
    assert info.pid
    assert fleet.status("m:v2").restarts == 0
    (kept.home / "workers.end").touch()


def test_a_version_that_is_being_stopped_is_neither_ready_nor_dead(world: World) -> None:
    """It had answered a moment ago and was taken for the version that a restore needed; the restore was refused."""
    world.kept.kill_keeper()
    world.fleet.stop(TAG)
    assert world.fleet.status(TAG).health is Health.UNREADY
    os.kill(world.pid(), signal.SIGKILL)
    until(lambda: world.pid() == 0)
    world.fleet._seen.clear()
    assert world.fleet.status(TAG).health is Health.UNREADY
    world.kept.supervisor.start()
    assert until(lambda: (world.fleet.start(TAG), world.fleet.status(TAG).health)[1] is Health.READY)
    assert not world.fleet.status(TAG).has_crashed


def test_a_worker_lost_soon_after_its_version_became_ready_is_counted(world: World) -> None:
    """The worker started on the first request, after the check of the state."""
    kept, path = world.kept, world.kept.home / "late"
    fleet = LocalFleet(
        kept.supervisor,
        kept.home / "versions",
        command=lambda _, port: [sys.executable, "-c", LATE_WORKER, str(path), str(port)],
        environment=lambda _: {},
        on_change=lambda _: None,
        on_refusal=lambda: None,
    )
    fleet.start("m:v2")
    until(path.exists)
    until(lambda: fleet.status("m:v2").health is Health.READY)
    os.kill(int(path.read_text()), signal.SIGKILL)
    assert until(lambda: fleet.status("m:v2").restarts == 1)
    assert until(lambda: (fleet.stop("m:v2"), fleet.status("m:v2").health)[1] is Health.ABSENT)


def test_states_are_read_and_versions_stopped_without_a_keeper(world: World) -> None:
    """The control loop goes on: it sees which versions are ready, and the next keeper does what was requested."""
    world.kept.kill_keeper()
    world.new_controller()
    assert world.becomes(Health.READY)
    world.fleet.stop(TAG)
    world.fleet.stop(TAG)
    assert world.fleet.running() == (TAG,)
    world.kept.supervisor.start()
    until(lambda: (world.fleet.stop(TAG), world.fleet.running())[1] == ())
    assert world.fleet.status(TAG).health is Health.ABSENT


@pytest.mark.parametrize("content", [b"", b'{"tag": "m:v1", "po', b'{"port": 1}', b"\xff\x00", None])
def test_an_unreadable_record_is_rewritten_from_the_process(world: World, content: bytes | None) -> None:
    """It may be empty, cut, incomplete, not text or missing: the version keeps its process and its address."""
    before = world.fleet.status(TAG).backends
    pid = world.kept.pid(NAME)
    record = world.kept.home / "versions" / f"{NAME}.json"
    record.unlink() if content is None else record.write_bytes(content)
    world.new_controller()
    assert world.fleet.running() == (TAG,)
    world.fleet.start(TAG)
    assert world.becomes(Health.READY)
    assert (world.fleet.status(TAG).backends, world.kept.pid(NAME)) == (before, pid)
    assert world.changes[-1] == before


def test_an_unreadable_program_file_is_rewritten(world: World) -> None:
    """The version can therefore be restarted when it ends."""
    pid = world.kept.pid(NAME)
    (world.kept.home / "programs" / f"{NAME}.json").write_text("")
    world.fleet.start(TAG)
    assert world.kept.pid(NAME) == pid
    os.kill(pid, signal.SIGKILL)
    assert world.kept.pid(NAME, other_than=pid)
    assert world.becomes(Health.READY)


def test_an_unreadable_record_of_an_unwanted_version_does_not_prevent_its_stop(world: World) -> None:
    """The version counts as running until it is stopped."""
    (world.kept.home / "versions" / f"{NAME}.json").write_text("{")
    assert world.fleet.running() == (TAG,)
    until(lambda: (world.fleet.stop(TAG), world.fleet.running())[1] == ())
    until(lambda: not world.kept.supervisor.alive())


def test_probes_ignore_a_proxy_in_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version is always on this machine."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    world.new_controller()
    assert world.becomes(Health.READY)


def test_a_missing_folder_of_records_is_created_again(world: World) -> None:
    """The folder was removed while the stack ran."""
    shutil.rmtree(world.kept.home / "versions")
    world.fleet.start(TAG)
    assert world.becomes(Health.READY)


def test_a_version_that_is_not_a_bento_is_found_without_its_record(folder: Kept, tmp_path: Path) -> None:
    """Its command need not show the port in a known way; a mark in its environment identifies it."""
    folder.supervisor.start()
    made = World(folder)
    command = [sys.executable, "-c", SERVER, str(made.ready), "-p", "{port}"]
    file = tmp_path / "versions.yaml"
    file.write_text(json.dumps({TAG: {"command": command, "ready": "/healthy", "routes": ["/predict"]}}))
    versions = Versions(file)
    try:
        fleet = made.new_controller(versions=versions)
        fleet.start(TAG)
        assert made.becomes(Health.READY)
        before = fleet.status(TAG).backends, made.pid()
        next((folder.home / "versions").glob("*.json")).unlink()
        fleet = made.new_controller(versions=versions)
        fleet.start(TAG)
        assert made.becomes(Health.READY)
        assert (fleet.status(TAG).backends, made.pid()) == before
        assert fleet.service(TAG).routes == (Route("/predict"),)
    finally:
        folder.clear()
        for path in (folder.home / "versions").iterdir():
            path.unlink()


def test_a_version_started_by_an_earlier_kanaria_needs_no_secret(world: World) -> None:
    """A new controller contacts it without the secret too; versions that this controller starts require the secret."""
    fleet = world.new_controller(secret="s")
    assert world.becomes(Health.READY)
    assert [backend.secret for backend in fleet.backends()] == [""]
    with capture_logs() as logs:
        fleet.start("m:v2")
        assert until(lambda: fleet.status("m:v2").health is Health.READY)
    assert {backend.tag: backend.secret for backend in fleet.backends()} == {TAG: "", "m:v2": "s"}
    (said,) = (each for each in logs if each["event"] == "port_is_open")  # the small server is not BentoML
    assert said["tag"] == "m:v2"
    record = world.kept.home / "versions" / "m@v2.json"
    record.unlink()
    fleet = world.new_controller(secret="s")
    fleet.start("m:v2")
    assert {backend.tag: backend.secret for backend in fleet.backends()} == {TAG: "", "m:v2": "s"}
    assert until(lambda: (fleet.stop("m:v2"), fleet.status("m:v2").health)[1] is Health.ABSENT)


def test_a_hanging_version_delays_no_caller(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its probes take their whole timeout without delaying callers: one probe answers for many calls."""
    os.kill(world.pid(), signal.SIGSTOP)
    assert world.becomes(Health.UNREADY)
    begun = Mock(wraps=probes.unready)
    monkeypatch.setattr(probes, "unready", begun)
    asked = Counter[Health]()
    for _ in range(100):
        world.fleet._seen.clear()
        asked[world.fleet.status(TAG).health] += 1
    os.kill(world.pid(), signal.SIGCONT)
    assert asked[Health.UNREADY] > 20
    assert begun.call_count < 50
    assert world.becomes(Health.READY)


def test_a_version_with_two_processes_is_ready_while_one_is(world: World) -> None:
    """Both are backends. A killed one is counted and restarted; the version has not crashed and is not down."""
    fleet = world.new_controller(replicas=2)
    fleet.start(TAG)
    assert world.becomes(Health.READY)
    assert until(lambda: len(fleet.status(TAG).backends) == 2)
    assert set(world.changes[-1]) == set(fleet.status(TAG).backends)
    killed = world.pid(2)
    os.kill(killed, signal.SIGKILL)
    assert until(lambda: fleet.status(TAG).restarts == 1)
    assert world.becomes(Health.READY)
    assert not fleet.status(TAG).has_crashed
    assert until(lambda: world.pid(2) not in {0, killed})
    assert fleet.running() == (TAG,)
    assert until(lambda: (fleet.stop(TAG), fleet.status(TAG).health)[1] is Health.ABSENT)
    assert world.changes[-1] == ()


def test_each_process_has_its_own_store_of_task_results(world: World) -> None:
    """A BentoML server deletes its file of results at the start: with a shared file it would delete stable's."""
    fleet = world.new_controller(replicas=2)
    fleet.start(TAG)
    assert world.becomes(Health.READY)
    stores = [Path(psutil.Process(world.pid(number)).environ()["BENTOML_RESULT_STORE"]) for number in (1, 2)]
    assert stores[0] != stores[1]
    written = [Path(f"{store}{suffix}") for store in stores for suffix in ("", "-wal", "-shm")]
    for file in written:
        file.touch()
    assert fleet.running() == (TAG,)
    assert until(lambda: (fleet.stop(TAG), fleet.running())[1] == ())  # removes files of crashed processes too
    assert not any(file.exists() for file in written)


STARTING, READY, UNREADY, DEAD = (
    VersionStatus(health) for health in (Health.STARTING, Health.READY, Health.UNREADY, Health.DEAD)
)
AGAIN = VersionStatus(Health.STARTING, has_crashed=True)  # a process that was restarted


@pytest.mark.parametrize(
    ("processes", "health"),
    [
        ([READY, STARTING], Health.STARTING),  # not before all have been ready once
        ([READY, AGAIN], Health.READY),
        ([READY, UNREADY], Health.READY),
        ([READY, DEAD], Health.READY),
        ([UNREADY, DEAD], Health.UNREADY),
        ([AGAIN, DEAD], Health.STARTING),
        ([DEAD, DEAD], Health.DEAD),
        ([VersionStatus(Health.ABSENT)], Health.ABSENT),
    ],
)
def test_the_state_of_a_version_combines_its_processes(processes: list[VersionStatus], health: Health) -> None:
    """It is ready while one process is, and dead when all are."""
    assert of_processes(processes).health is health


def test_a_version_has_crashed_only_when_all_its_processes_have() -> None:
    """Until then, crashed processes count as workers that ended."""
    crashed, sound = VersionStatus(Health.DEAD, has_crashed=True, restarts=1), VersionStatus(Health.READY)
    one, both, alone = of_processes([crashed, sound]), of_processes([crashed, crashed]), of_processes([crashed])
    assert [status.has_crashed for status in (one, both, alone)] == [False, True, True]
    assert [status.restarts for status in (one, both, alone)] == [2, 4, 1]


def test_a_controller_without_file_descriptors_does_not_report_a_dead_version(world: World) -> None:
    """Its tick fails as the controller's own problem. It used to report a dead canary and roll it back."""
    address, pid = world.fleet.backends(), world.pid()
    time.sleep(_FRESH_S)  # the cached state expires after this
    for fleet in (world.fleet, world.new_controller()):
        with no_file_to_open(), pytest.raises(OSError, match="Too many open files"):
            fleet.status(TAG)
    assert world.becomes(Health.READY)
    assert (world.fleet.backends(), world.pid()) == (address, pid)
    assert not world.fleet.status(TAG).has_crashed
