"""The server of a model of the contract: imports everything once, then forks the workers, which share that memory.

`bentoml serve` starts a Python for each worker and one that only supervises them. The workers do the same here. Of
our code it imports only the forking, the guard of the port and uvicorn's loop: a Bento has its own `contract/` and
`service/`. Linux only.
"""

import argparse
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from kanaria.stack.forks import Workers, say
from kanaria.stack.port_guard.sitecustomize import bounded_http, guarded, taken_guard

MODULE = "kanaria.stack.model_server"
_FOR_WORKERS = (
    "_bentoml_impl.server.app",
    "httptools",
    "opentelemetry.instrumentation.asgi",
    "torch",
    "uvicorn",
    "uvloop",
)
_RUNTIME = "service.server.runtime"  # the Bento's own
_BACKLOG = 2048


def main() -> None:
    """Serve a Bento until SIGTERM."""
    parser = argparse.ArgumentParser(description="Serve a model of the contract. The keeper does this.")
    parser.add_argument("tag")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    as_given = dict(os.environ)
    guard = taken_guard()  # before anything of the model's is imported
    gc.disable()  # imports leave no garbage, and each collection takes a tenth of a second
    start_no_threads()
    service = _loaded(given.tag)
    count = _prepared(service, f"http://{given.host}:{given.port}")
    import_all((_RUNTIME,))
    if threads := other_threads():
        say(f"threads that imports started: {threads}; so the workers of {given.tag} share no memory")
        words = [sys.executable, "-P", "-m", "bentoml", "serve", *sys.argv[1:]]
        os.execve(sys.executable, words, as_given)  # noqa: S606 - no shell wanted
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((given.host, given.port))
        listening.listen(_BACKLOG)
        gc.freeze()  # otherwise the first collection in a worker would write to, and so copy, all shared memory
        say(f"{given.tag} listens on {given.host}:{given.port}, workers: {count}")

        def work(number: int) -> None:
            _serve(service, guard, listening, number, on_start=workers.report_started)

        # The system accepts connections while any process has the socket open: ending workers close it, so this must.
        workers = Workers(work, count, before_end=listening.close)
        workers.run()


def _loaded(tag: str) -> Any:
    from _bentoml_impl.loader import load  # noqa: PLC0415 - takes half a second, and others import `MODULE`
    from bentoml._internal.log import configure_server_logging  # noqa: PLC0415 - as above

    configure_server_logging()
    return load(tag, standalone_load=True)


def _prepared(service: Any, url: str) -> int:
    """Do what `bentoml serve` does before it starts workers. Returns the number of workers."""
    from _bentoml_impl.server.allocator import ResourceAllocator  # noqa: PLC0415 - as above
    from _bentoml_impl.server.serving import server_on_deployment  # noqa: PLC0415 - as above
    from bentoml.serving import ensure_prometheus_dir  # noqa: PLC0415 - as above

    service.inject_config()  # its own, if the environment does not override it
    count, variables = ResourceAllocator().get_worker_env(service)
    server_on_deployment(service)
    for wanted in service.envs:
        if wanted.stage != "build" and wanted.value:
            os.environ.setdefault(wanted.name, wanted.value)
    os.environ.update(variables)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = ensure_prometheus_dir()
    os.environ["BENTOML_RUNNER_MAP"] = json.dumps({service.name: url})
    return int(count)


def start_no_threads() -> None:
    """Call this before numpy is imported: threads of OpenBLAS would be missing in a fork."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def import_all(more: Sequence[str]) -> None:
    """Import what workers need, and `more`."""
    for module in (*_FOR_WORKERS, *more):
        with suppress(Exception):  # a worker will report errors of a Bento's own modules
            importlib.import_module(module)


def other_threads() -> int:
    """The number of other threads of this process."""
    return len([*Path("/proc/self/task").iterdir()]) - 1


def _serve(
    service: Any, guard: dict[str, Any], listening: socket.socket, number: int, *, on_start: Callable[[], None]
) -> None:
    """Run as a worker until SIGTERM."""
    import uvicorn  # noqa: PLC0415 - as above
    from bentoml._internal.context import server_context  # noqa: PLC0415 - as above

    from kanaria.stack.sleeping_server import SleepingServer  # noqa: PLC0415 - as above

    gc.enable()
    server_context.worker_index = number
    server_context.service_type = "entry_service"
    server_context.service_name = service.name
    server_context.service_routes = [api.route for api in service.apis.values()]
    server_context.bento_name, server_context.bento_version = service.bento.tag.name, service.bento.tag.version
    config = uvicorn.Config(
        guarded(service.to_asgi(is_main=True), guard),
        http=bounded_http(),
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the gateway is the only client
        server_header=False,
    )
    server = SleepingServer(config, on_start=on_start)
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, server.handle_exit)
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment] # uvicorn would raise the signal again at the end
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
