"""A hostile version does not reach what Kanaria keeps, runs and listens at; a harmless one notices nothing."""

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

# Does whatever it is asked to.
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
    """A stack whose version does as it is told, and an owner with secrets besides."""

    stack: Kanaria
    folder: Path
    tag: str

    def attempt(self, code: str, **values: object) -> dict[str, str]:
        """Have the version run `code`, in which `{name}` stands for a value, once it answers."""

        def answered() -> httpx.Response | None:
            answer = HTTP.post(
                f"{self.stack.gateway}/attempt",
                json={"code": code.format(**self.places | values)},
                headers={"x-api-key": self.stack.api_key},
                timeout=30,
            )
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer  # it starts again

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
# Each gives what it got, where it got anything. None does harm that would be felt by the next one.
READS = {
    "the owner's token": "got = open('{state}/token').read()",
    "the ledger": "got = open('{state}/ledger.db', 'rb').read(9)",
    "a key of the gateway": "got = open('{state}/api-key').read()",
    "a program's secrets": "got = open('{state}/programs/controller.json').read(9)",
    "the log of another": "got = open('{state}/logs/controller.log').read(9)",
    "an SSH key": "got = open('{owner}/.ssh/id').read()",
    "whom Kanaria tells": "got = open('{owner}/addresses').read() or open('/nothing')",
    "a link to the token": "os.symlink('{state}/token', t := tempfile.mktemp()); got = open(t).read()",
    "a second name of the token": "os.link('{state}/token', t := tempfile.mktemp()); got = open(t).read()",
    "the token by way of another program": "got = subprocess.check_output(['cat', '{state}/token'])",
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
    "an end of the ledger": "got = os.unlink('{state}/ledger.db')",
    "another name of the ledger": "got = os.rename('{state}/ledger.db', '{state}/x')",
    "rights for everybody": "got = os.chmod('{state}/token', 0o666)",
    "the code of another version": "got = open('{store}/bentos/summary/v2/src/service.py', 'a')",
    "a state folder of its own": "got = os.rename('{parent}', '{parent}-away')",
    "the folder of another's secrets": "got = os.rename('{owner}', '{owner}-away')",
    "code of Kanaria's": "import kanaria; got = open(kanaria.__file__, 'a')",
    "code that Kanaria's Python imports": "got = open(sys.prefix + '/x.pth', 'w')",
    "an end of the sandbox": "got = call(libc.umount2, b'{state}', 2)",
    "other mounts": "got = call(libc.mount, b'x', b'{owner}', b'tmpfs', 0, None)",
    "a namespace within": "call(libc.unshare, 0x10020000); got = call(libc.umount2, b'{state}', 2)",
    "limits of the controller": "import resource; got = resource.prlimit({controller}, resource.RLIMIT_CPU, (1, 1))",
    "the folders below": "got = call(libc.syscall, 428, -100, b'/', 1)",
}


@pytest.mark.parametrize("attack", [*READS, *WRITES])
def test_what_is_out_of_reach(site: Site, attack: str) -> None:
    """Whatever it tries, it gets nothing, and the stack goes on."""
    found = site.attempt((READS | WRITES)[attack])
    assert list(found) == ["refused"]


def test_it_kills_no_process_of_the_stack(site: Site) -> None:
    pid = site.stack.pid("controller")
    assert "refused" in site.attempt("os.kill({controller}, signal.SIGKILL)")
    assert site.stack.pid("controller") == pid


def test_an_abstract_socket_of_others_is_not_reached(site: Site) -> None:
    """It has no file that could be hidden."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0kanaria-{os.getpid()}")
        listening.listen()
        found = site.attempt("s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + 'kanaria-{pid}')", pid=os.getpid())
    assert "refused" in found


def test_it_sees_of_the_state_folder_what_is_its_own(site: Site) -> None:
    found = site.attempt("got = [*os.walk('{state}')][0][1:]")
    assert found == {"done": repr((["versions"], ["signing-key.pub"] if site.tag in _signed(site) else []))}


def _signed(site: Site) -> str:
    path = site.stack.home / "signed-bentos.json"
    return path.read_text() if path.exists() else ""


def test_a_signed_version_does_not_change_its_own_copy(site: Site) -> None:
    """Nor could a worker that is started again be another one. What nobody signed may write into its own folder."""
    found = site.attempt("got = open(pathlib.Path(__file__), 'a').write('#')")
    assert ("refused" in found) is (site.tag in _signed(site))


def test_a_worker_that_is_started_again_is_no_freer(site: Site) -> None:
    """A version ends its worker; the next one sees as little."""
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


def test_what_services_do_works_as_before(site: Site) -> None:
    """Temporary files, shared memory, other programs, the owner's folders, links, renames, sockets."""
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


def test_an_unsigned_version_writes_where_it_works(site: Site) -> None:
    """Its working folder is that of its Bento, which is what was signed where it was."""
    found = site.attempt("got = open('written', 'w').write('x')")
    assert ("done" in found) is (site.tag not in _signed(site))


def test_without_a_sandbox_all_that_was_in_reach(tmp_path: Path) -> None:
    """So these attacks are real ones."""
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


def test_what_a_version_leaves_for_its_log_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that tries a version shows the last words of its log, and follows links that it cannot."""
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


def test_a_model_of_the_contract_keeps_its_records(kanaria: Kanaria) -> None:
    """Answers that labels are joined to, and the prediction log; it sees nothing else of the state folder."""
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
    """It writes where versions of the contract can write, and they can leave links there."""
    store = tmp_path / "store"
    tag = own_service.build(tmp_path / "hers", store, "v1")
    stack = Kanaria.at(tmp_path, store)
    stack.ok("up", tag)
    try:
        state = Path(f"/proc/{stack.pid('observer')}/root{stack.home}")
        assert {path.name for path in state.iterdir()} == {"answers", "predictions", "recorded", "gateway"}
    finally:
        stack("down")
