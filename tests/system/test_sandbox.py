"""A hostile version cannot reach Kanaria's files, processes and sockets; a harmless one is not affected."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from kanaria.stack import sandbox
from kanaria.stack.temporary_server import DidNotStart, temporary_server
from tests.support import own_service
from tests.support.asking import HTTP
from tests.support.processes import until
from tests.support.stack import Kanaria

pytestmark = [
    pytest.mark.skipif(bool(sandbox.lacking()), reason=f"no sandbox here: {sandbox.lacking()}"),
]

# Executes any code that it is sent.
HOSTILE = """
import ctypes, os, pathlib, signal, socket, subprocess, sys, tempfile
import bentoml

libc = ctypes.CDLL(None, use_errno=True)

def call(function, *arguments):
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

@bentoml.service(name="summary")
class Summary:
    @bentoml.api
    def attempt(self, code: str) -> dict:
        names = dict(globals())
        try:
            exec(code, names)
            return {"done": repr(names.get("got"))}
        except Exception as error:
            return {"refused": repr(error)}
"""


@dataclass
class Site:
    """A stack whose version runs any code, and an owner with secrets."""

    stack: Kanaria
    folder: Path
    tag: str

    def attempt(self, code: str, **values: object) -> dict[str, str]:
        """Let the version run `code`, in which `{name}` stands for a value, once it answers."""

        def answered() -> httpx.Response | None:
            answer = HTTP.post(
                f"{self.stack.gateway}/attempt",
                json={"code": code.format(**self.places | values)},
                headers={"x-api-key": self.stack.api_key},
                timeout=30,
            )
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer  # it is restarting

        found: dict[str, str] = until(answered).json()
        return found

    @property
    def places(self) -> dict[str, object]:
        return {
            "state": self.stack.home,
            "parent": self.stack.home.parent,
            "controller": self.stack.pid("controller"),
            "owner": self.folder / "owner",
            "store": self.folder / "store",
            "admin": (self.stack.home / "gateway" / "admin").resolve(),
        }


def _site(folder: Path, *, is_signed: bool, **settings: str) -> Site:
    store, owner = folder / "store", folder / "owner"
    (owner / ".ssh").mkdir(parents=True)
    (owner / ".ssh" / "id").write_text("private")
    (owner / ".cache").mkdir()
    (owner / "addresses").write_text("json://127.0.0.1:9/")
    (owner / "addresses").chmod(0o600)
    tag = own_service.build(folder / "hers", store, "v1", service=HOSTILE)
    own_service.build(folder / "others", store, "v2", service=HOSTILE)
    own = {"HOME": str(owner), "KANARIA_NOTIFY": str(owner / "addresses"), "KANARIA_METRICS": "scrape", **settings}
    stack = Kanaria.at(folder, store, **own)
    if is_signed:
        stack.ok("sign", tag)
    stack.ok("up", tag)
    return Site(stack, folder, tag)


@pytest.fixture(scope="module", params=["unsigned", "signed"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = _site(tmp_path_factory.mktemp("site"), is_signed=request.param == "signed")
    yield made
    made.stack("down")


FORK = """
here, there = os.pipe()
if not os.fork():
    try:
        os.write(there, open('{state}/token', 'rb').read())
    finally:
        os._exit(0)
os.close(there)
got = os.read(here, 99) or open('/nothing')
"""
# Each sets `got` if it gets something. None does harm that the next one would notice.
READS = {
    "the owner's token": "got = open('{state}/token').read()",
    "the ledger": "got = open('{state}/ledger.db', 'rb').read(9)",
    "a key of the gateway": "got = open('{state}/api-key').read()",
    "a program's secrets": "got = open('{state}/programs/controller.json').read(9)",
    "the log of another": "got = open('{state}/logs/controller.log').read(9)",
    "an SSH key": "got = open('{owner}/.ssh/id').read()",
    "the addresses of notifications": "got = open('{owner}/addresses').read() or open('/nothing')",
    "a link to the token": "os.symlink('{state}/token', t := tempfile.mktemp()); got = open(t).read()",
    "a hard link to the token": "os.link('{state}/token', t := tempfile.mktemp()); got = open(t).read()",
    "the token through another program": "got = subprocess.check_output(['cat', '{state}/token'])",
    "the token from a fork": FORK,
    "the controller's variables": "got = open('/proc/{controller}/environ').read()",
    "the controller's folders": "got = os.listdir('/proc/{controller}/root')",
    "the controller's files": "got = open('/proc/{controller}/fd/1')",
    "the controller's memory": "got = open('/proc/{controller}/mem', 'rb')",
    "the gateway's admin": "s = socket.socket(socket.AF_UNIX); s.connect('{admin}/socket'); got = s",
    "a trace of the controller": "got = call(libc.ptrace, 0x4206, {controller}, 0, 0)",
    "a signal to the controller": "got = os.kill({controller}, signal.SIGCONT)",
}
WRITES = {
    "a new program": "got = open('{state}/programs/x@1.json', 'w')",
    "a link in place of a program": "got = os.symlink('/tmp/x', '{state}/programs/x@1.json')",
    "deleting the ledger": "got = os.unlink('{state}/ledger.db')",
    "renaming the ledger": "got = os.rename('{state}/ledger.db', '{state}/x')",
    "making the token public": "got = os.chmod('{state}/token', 0o666)",
    "the code of another version": "got = open('{store}/bentos/summary/v2/src/service.py', 'a')",
    "moving the state folder": "got = os.rename('{parent}', '{parent}-away')",
    "moving the owner's folder": "got = os.rename('{owner}', '{owner}-away')",
    "Kanaria's code": "import kanaria; got = open(kanaria.__file__, 'a')",
    "code that Kanaria's Python imports": "got = open(sys.prefix + '/x.pth', 'w')",
    "unmounting the sandbox": "got = call(libc.umount2, b'{state}', 2)",
    "a new mount": "got = call(libc.mount, b'x', b'{owner}', b'tmpfs', 0, None)",
    "a nested namespace": "call(libc.unshare, 0x10020000); got = call(libc.umount2, b'{state}', 2)",
    "the controller's limits": "import resource; got = resource.prlimit({controller}, resource.RLIMIT_CPU, (1, 1))",
    "the folders below the mounts": "got = call(libc.syscall, 428, -100, b'/', 1)",
}


@pytest.mark.parametrize("attack", [*READS, *WRITES])
def test_an_attack_is_refused(site: Site, attack: str) -> None:
    """It gets nothing, and the stack goes on."""
    found = site.attempt((READS | WRITES)[attack])
    assert list(found) == ["refused"]


def test_a_version_cannot_kill_a_process_of_the_stack(site: Site) -> None:
    pid = site.stack.pid("controller")
    assert "refused" in site.attempt("os.kill({controller}, signal.SIGKILL)")
    assert site.stack.pid("controller") == pid


def test_abstract_sockets_of_other_processes_are_unreachable(site: Site) -> None:
    """An abstract socket has no file that could be hidden."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0kanaria-{os.getpid()}")
        listening.listen()
        found = site.attempt("s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + 'kanaria-{pid}')", pid=os.getpid())
    assert "refused" in found


def test_a_version_sees_only_its_own_files_in_the_state_folder(site: Site) -> None:
    found = site.attempt("got = [*os.walk('{state}')][0][1:]")
    assert found == {"done": repr((["versions"], ["signing-key.pub"] if site.tag in _signed(site) else []))}


def _signed(site: Site) -> str:
    path = site.stack.home / "signed-bentos.json"
    return path.read_text() if path.exists() else ""


def test_a_signed_version_cannot_change_its_own_copy(site: Site) -> None:
    """Otherwise a restarted worker could run other code. An unsigned version may write into its own folder."""
    found = site.attempt("got = open(pathlib.Path(__file__), 'a').write('#')")
    assert ("refused" in found) is (site.tag in _signed(site))


def test_a_restarted_worker_has_the_same_sandbox(site: Site) -> None:
    """A version kills its worker; the next one sees just as little."""
    main = psutil.Process(json.loads((site.stack.home / "processes" / "summary@v1.json").read_text())["pid"])
    before = site.attempt("got = os.getpid()")
    site.attempt("os.posix_spawn('/bin/sh', ['sh', '-c', f'sleep 0.3; kill -9 {{os.getpid()}}'], os.environ)")

    def again() -> bool:
        try:
            found = site.attempt("got = os.getpid()")
        except (httpx.HTTPError, ValueError):
            return False
        return "done" in found and found != before

    until(again)
    assert main.is_running()
    assert "refused" in site.attempt(READS["the owner's token"])


def test_normal_services_work_as_before(site: Site) -> None:
    """They use temporary files, shared memory, other programs, the owner's folders, links, renames and sockets."""
    code = """
import multiprocessing.shared_memory, shutil, sqlite3
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "a").write_text("x")
    os.mkdir(folder + "/b"); os.rename(folder + "/a", folder + "/b/a"); os.link(folder + "/b/a", folder + "/c")
    os.symlink(folder + "/c", folder + "/d"); assert open(folder + "/d").read() == "x"
    sqlite3.connect(folder + "/x.db").execute("create table t (x)")
memory = multiprocessing.shared_memory.SharedMemory(create=True, size=64); memory.close(); memory.unlink()
assert subprocess.check_output(["sh", "-c", "echo $HOME; ls /proc/self/fd; cat /dev/stdin </dev/null"])
home = pathlib.Path.home()
for name in (".cache/huggingface/hub", ".nltk_data"):
    (home / name).mkdir(parents=True, exist_ok=True)
    (home / name / "new").write_text("x")
    os.replace(home / name / "new", home / name / "old")
one, other = socket.socketpair(); one.send(b"x"); assert other.recv(1) == b"x"
served = socket.socket(socket.AF_UNIX); served.bind(path := tempfile.mktemp()); served.listen()
client = socket.socket(socket.AF_UNIX); client.connect(path); os.unlink(path)
abstract = socket.socket(socket.AF_UNIX); abstract.bind(chr(0) + "own-" + str(os.getpid())); abstract.listen()
client = socket.socket(socket.AF_UNIX); client.connect(chr(0) + "own-" + str(os.getpid()))
child = subprocess.Popen(["sleep", "60"]); child.kill(); child.wait()
got = (os.getuid(), open("{owner}/../later").read(), open("/dev/zero", "rb").read(1))
"""
    (site.folder / "later").write_text("made after it was started")
    assert site.attempt(code) == {"done": repr((os.getuid(), "made after it was started", b"\0"))}


def test_an_unsigned_version_can_write_in_its_working_folder(site: Site) -> None:
    """This is the folder of its Bento, which is read-only if it was signed."""
    found = site.attempt("got = open('written', 'w').write('x')")
    assert ("done" in found) is (site.tag not in _signed(site))


def test_without_a_sandbox_every_attack_succeeds(tmp_path: Path) -> None:
    """This proves that the attacks are real."""
    site = _site(tmp_path, is_signed=False, KANARIA_SANDBOX="off")
    try:
        found = {attack: site.attempt(code) for attack, code in READS.items()}
        assert {attack: tried for attack, tried in found.items() if "refused" in tried} == {}
    finally:
        site.stack("down")


LEAVES_A_LINK = """
log = pathlib.Path("/proc/self/fd/1").readlink()
if log.name == "server.log":
    try:
        log.unlink()
        log.symlink_to(log.parents[2] / "token")
    finally:
        os._exit(1)
"""


def test_a_link_that_a_version_puts_in_place_of_its_log_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that tries a version shows the end of its log, and could follow links that the version cannot."""
    store = tmp_path / "store"
    tag = own_service.build(tmp_path / "hers", store, "v1", service=HOSTILE + LEAVES_A_LINK)
    stack = Kanaria.at(tmp_path, store)
    stack.home.mkdir(exist_ok=True)
    (stack.home / "token").write_text("secret of the owner")
    settings = stack.settings(monkeypatch)
    with pytest.raises(DidNotStart) as failed, temporary_server(settings, tag, say=lambda _: None):
        pass
    assert "secret of the owner" not in str(failed.value)
    assert "exit code" in str(failed.value)


def test_a_model_of_the_contract_can_write_its_records(kanaria: Kanaria) -> None:
    """These are its answers and the prediction log; it sees nothing else of the state folder."""
    kanaria.ok("up", "digits:v1")
    headers = {"x-api-key": kanaria.api_key}
    answer = HTTP.post(f"{kanaria.gateway}/predict", json={"features": [[0.0] * 64]}, headers=headers).json()
    label = {"request_id": answer["request_id"], "labels": [answer["predictions"][0]["label"]]}
    assert HTTP.post(f"{kanaria.gateway}/feedback", json=label, headers=headers).is_success
    log = kanaria.home / "predictions" / "digits@v1"
    until(lambda: any(path.stat().st_size for path in log.glob("*.jsonl")))
    main = psutil.Process(kanaria.pid("digits@v1"))
    for process in (main, *main.children(recursive=True)):
        state = Path(f"/proc/{process.pid}/root{kanaria.home}")
        assert {path.name for path in state.iterdir()} == {"answers", "predictions", "versions"}
        assert [path.name for path in (state / "versions").iterdir()] == ["digits@v1.bentoml"]


def test_the_observer_sees_little_more_than_a_version(tmp_path: Path) -> None:
    """It writes where versions of the contract can write, and they could leave links there."""
    store = tmp_path / "store"
    tag = own_service.build(tmp_path / "hers", store, "v1")
    stack = Kanaria.at(tmp_path, store)
    stack.ok("up", tag)
    try:
        state = Path(f"/proc/{stack.pid('observer')}/root{stack.home}")
        assert {path.name for path in state.iterdir()} == {"answers", "predictions", "recorded", "gateway"}
    finally:
        stack("down")
