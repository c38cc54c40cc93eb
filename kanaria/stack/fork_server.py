"""The fork server: a process that has imported what all models of the contract need, and forks their servers.

So versions share what was imported. It never has their variables, models and code. It ends when the keeper that asked
for it is gone; what it forked goes on. Linux only. Imports nothing of ours but what a server is: see `model_server`.
"""

import functools
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import current_process

from kanaria.stack import model_server
from kanaria.stack.forks import reseed
from kanaria.stack.sandbox import Sandbox, enter
from kanaria.stack.shown_words import show

MODULE = "kanaria.stack.fork_server"
FORK, READY, ENDED = b"fork", b"ready", b"ended "
THREADS = b"threads that imports started: "
LARGEST_MESSAGE_BYTES = 4096
_OF_THE_CONTRACT = ("orjson", "pydantic", "safetensors.torch", "simdjson", "structlog")


def main() -> None:
    """Fork until the other end of the socket is closed, whose number is the first argument."""
    asked = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()
    model_server.start_no_threads()
    model_server.import_all(_OF_THE_CONTRACT)
    if threads := model_server.other_threads():
        asked.send(THREADS + str(threads).encode())
        sys.exit(1)
    gc.freeze()
    signal.signal(signal.SIGCHLD, functools.partial(_tell_ends, asked))
    with suppress(ConnectionError):  # the keeper was killed meanwhile
        asked.send(READY)
    while files := _received(asked):
        request, log = files
        if _is_forked(asked):
            _become(asked, request, log)
            return
        os.close(request)
        os.close(log)


def written(command: Sequence[str], folder: str, environment: Mapping[str, str], sandbox: Sandbox | None = None) -> int:
    """A request for a server that is seen so, as an open file. Send it with FORK, and the file that it writes to."""
    request = os.memfd_create(MODULE)
    with open(request, "wb", closefd=False) as file:
        file.write(json.dumps([list(command), folder, dict(environment), sandbox and sandbox.to_json()]).encode())
    return request


def _received(asked: socket.socket) -> list[int]:
    """The files of the next request; none once the keeper is gone."""
    try:
        return socket.recv_fds(asked, LARGEST_MESSAGE_BYTES, 2)[1]
    except ConnectionError:  # it had not read all that it was told
        return []


def _is_forked(asked: socket.socket) -> bool:
    try:
        return os.fork() == 0
    except OSError as error:  # no memory, or no more processes, for the moment
        asked.send(f"{error}".encode())
        return False


def _become(asked: socket.socket, request: int, log: int) -> None:
    """Be the server that was asked for, and answer which process that is."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        command = _settle(request, log)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        asked.send(f"{error}".encode())
        return
    asked.send(str(os.getpid()).encode())
    asked.close()
    reseed()
    current_process().authkey = os.urandom(32)  # of what a model's code has its processes talk by
    sys.argv = command[command.index(model_server.MODULE) :]
    model_server.main()


def _settle(request: int, log: int) -> list[str]:
    """Take the place that a process of its own would have been started in. Returns its command line."""
    with open(request, "rb") as file:
        file.seek(0)
        command, folder, environment, sandbox = json.loads(file.read())
    os.setsid()
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.environ.clear()  # first, for the place where they were is written over
    os.environ.update(environment)
    show(command, environment)
    if sandbox:
        enter(Sandbox.from_json(sandbox))
    return list(command)


def _tell_ends(asked: socket.socket, *_: object) -> None:
    """Say how a version ended: the keeper is not its parent, and sees only that it did."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(ended[1])
            with suppress(OSError):  # the keeper has ended, or does not read
                asked.send(ENDED + f"{ended[0]} {code}".encode(), socket.MSG_DONTWAIT)


if __name__ == "__main__":
    main()
