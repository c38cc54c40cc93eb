"""Workers of a server: how many it gets, and which of them ended unasked."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kanaria.settings import Settings
from kanaria.stack import model_server, workers
from kanaria.stack.workers import Workers, workers_for
from tests.support.children import children_with, started
from tests.support.no_files import no_file_to_open
from tests.support.processes import until

# A server with two children like BentoML's workers and one other child. It neither replaces them nor waits for them.
SERVER = """
import subprocess, sys, time
for name in ("impl.worker.service", "impl.worker.service", "other"):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", name])
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def server() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        family = [*psutil.Process(process.pid).children(), psutil.Process(process.pid)]
        yield process.pid
        for member in family:
            member.kill()


def child(server: int, word: str) -> int:
    """A living child with this word in its command line."""
    return children_with(word, of=server)[0].pid


def test_a_worker_that_ends_is_counted_once(server: int) -> None:
    """A zombie counts too, which BentoML leaves for ten seconds. Other children of the server do not count."""
    seen = Workers()
    until(lambda: seen.ended(server) == 0 and len(seen._alive[server]) == 2)
    os.kill(child(server, "other"), signal.SIGKILL)
    os.kill(child(server, "impl.worker.service"), signal.SIGKILL)
    assert until(lambda: seen.ended(server)) == 1
    assert seen.ended(server) == 0


def test_a_worker_that_is_just_ending_is_not_missed(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In that moment it has no command line any more and is not yet a zombie. Such a worker was never counted."""
    seen = Workers()
    until(lambda: seen.ended(server) == 0 and len(seen._alive[server]) == 2)
    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "cmdline", lambda _: [])
        assert seen.ended(server) == 0
    os.kill(child(server, "impl.worker.service"), signal.SIGKILL)
    assert until(lambda: seen.ended(server)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_forked_worker_that_is_replaced_at_once_is_counted() -> None:
    """It has the same command line as its server."""
    code = "import time; from kanaria.stack.forks import Workers; Workers(lambda _: time.sleep(600), 2).run()"
    with started([sys.executable, "-c", code, model_server.MODULE]) as process:
        seen, server = Workers(), psutil.Process(process.pid)
        until(lambda: seen.ended(server.pid) == 0 and len(seen._alive[server.pid]) == 2)
        server.children()[0].kill()
        assert until(lambda: seen.ended(server.pid)) == 1
        until(lambda: len(server.children()) == 2)
        assert seen.ended(server.pid) == 0
        process.terminate()
        assert process.wait(60) == 0


def test_workers_that_end_with_their_server_are_not_counted(server: int) -> None:
    """The end of the server's process is known anyway."""
    seen = Workers()
    until(lambda: seen.ended(server) == 0 and len(seen._alive[server]) == 2)
    os.kill(server, signal.SIGKILL)
    assert seen.ended(server) == 0


@pytest.mark.parametrize(
    ("replicas", "model_gb", "expected"), [(1, 0, 2), (1, 10_000, 1), (16, 100, 1)], ids=["fits", "large", "many"]
)
def test_a_version_gets_two_workers_where_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replicas: int, model_gb: int, expected: int
) -> None:
    """Two workers of two versions must fit into the free memory, with the model.

    A configured number is used as it is.
    """
    store = tmp_path / "bentoml"
    model, bento = store / "models" / "m" / "1", store / "bentos" / "b" / "1"
    for folder in (model, bento):
        folder.mkdir(parents=True)
    (model / "model.yaml").touch()
    with (model / "weights").open("wb") as file:
        file.truncate(model_gb * 10**9)  # takes no memory
    (bento / "bento.yaml").write_text("services: [{models: [{tag: 'm:1'}]}]")
    monkeypatch.setenv("BENTOML_HOME", str(store))
    free = psutil.virtual_memory().available
    if free < 4 * workers._WORKER_BYTES:
        pytest.skip("too little free memory for two workers of the smallest model")
    assert workers_for(Settings(home=tmp_path, replicas=replicas), "b:1") == expected
    assert workers_for(Settings(home=tmp_path, replicas=replicas, workers=3), "b:1") == 3


def test_workers_that_cannot_be_inspected_have_not_ended(server: int) -> None:
    """Out of file descriptors, all workers seemed to have ended, and a healthy canary was rolled back."""
    seen = Workers()
    until(lambda: seen.ended(server) == 0 and len(seen._alive[server]) == 2)
    with no_file_to_open():
        assert [seen.ended(server) for _ in range(3)] == [0, 0, 0]
    lost = next(iter(seen._alive[server]))
    with no_file_to_open():
        os.kill(lost, signal.SIGKILL)
        assert seen.ended(server) == 0
    until(lambda: psutil.Process(lost).status() == psutil.STATUS_ZOMBIE)
    assert [seen.ended(server), seen.ended(server)] == [1, 0]
