"""The fork server: a process that has imported what all models of the contract need, and forks their servers.

So versions share the imported modules. The fork server never has their variables, models or code. It ends when the
keeper that started it ends; the forked servers run on. Linux only. Imports nothing of ours except what a model server
needs: see `model_server`.
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
    """Fork on request until the other end of the socket is closed. Its descriptor is the first argument."""
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
    """A request for a server with this command line, as an open file. Send it with FORK and the server's log file."""
    request = os.memfd_create(MODULE)
    with open(request, "wb", closefd=False) as file:
        file.write(json.dumps([list(command), folder, dict(environment), sandbox and sandbox.to_json()]).encode())
    return request


def _received(asked: socket.socket) -> list[int]:
    """The files of the next request; empty once the keeper has ended."""
    try:
        return socket.recv_fds(asked, LARGEST_MESSAGE_BYTES, 2)[1]
    except ConnectionError:  # the keeper ended before it read all messages
        return []


def _is_forked(asked: socket.socket) -> bool:
    try:
        return os.fork() == 0
    except OSError as error:  # out of memory or processes for the moment
        asked.send(f"{error}".encode())
        return False


def _become(asked: socket.socket, request: int, log: int) -> None:
    """Become the requested server, and answer with its pid."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        command = _set_up(request, log)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        asked.send(f"{error}".encode())
        return
    asked.send(str(os.getpid()).encode())
    asked.close()
    reseed()
    current_process().authkey = os.urandom(32)  # key for connections between the processes of a model's code
    sys.argv = command[command.index(model_server.MODULE) :]
    model_server.main()


def _set_up(request: int, log: int) -> list[str]:
    """Give this process the folder, log, variables and sandbox of the request. Returns its command line."""
    with open(request, "rb") as file:
        file.seek(0)
        command, folder, environment, sandbox = json.loads(file.read())
    os.setsid()
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.environ.clear()  # first: `show` overwrites the memory of the old variables
    os.environ.update(environment)
    show(command, environment)
    if sandbox:
        enter(Sandbox.from_json(sandbox))
    return list(command)


def _tell_ends(asked: socket.socket, *_: object) -> None:
    """Send the exit code of an ended version: the keeper is not its parent and cannot read it."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(ended[1])
            with suppress(OSError):  # the keeper has ended, or does not read
                asked.send(ENDED + f"{ended[0]} {code}".encode(), socket.MSG_DONTWAIT)


if __name__ == "__main__":
    main()
