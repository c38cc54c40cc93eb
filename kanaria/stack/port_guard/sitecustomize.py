"""Python imports this file first where its folder is on PYTHONPATH: it has a BentoML server's port ask for a secret.

And it closes the ports that the server opens besides.

It runs in the Python of the version, which has nothing of Kanaria's and may be older: the standard library has to do.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hmac
import importlib.util
import json
import os
import signal
import socket
import sys
from importlib.machinery import PathFinder
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

VARIABLE = "KANARIA_PORT_GUARD"  # which port, which header, which secret, as JSON
PROCESSES = "KANARIA_PORT_PROCESSES"  # how many processes this version has; not set: one
_METRICS_PATH = "/metrics"  # behind the prefix of a service that has one
_HOME = "BENTOML_HOME"
_REFUSED = 403
_WITHOUT_CONTENT = (204, 304)
_POLICY_VIOLATION = 1008  # of WebSockets
# A service that another one uses closed idle connections after 5 s, and its caller (aiohttp) keeps them for 15 s: a
# request that met the end of one was a 500 for a user (BentoML issue 4971).
_KEPT_ALIVE_S = 20
_LOOKED_EVERY_S, _ENDS_WITHIN_S = 1.0, 10.0  # whether a command lives; for its worker to end its requests
_NOBODY_LISTENS = (errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # the others: a machine without IPv6


class Guard:
    """An ASGI app before another: of what comes to one port it passes on what has the secret, and takes that away.

    What comes another way, such as the Unix socket of a service that another one uses, is passed on as it is.
    """

    def __init__(self, app: App, *, port: int, header: str, secret: str) -> None:
        self._app, self._port = app, port
        self._header = header.encode()
        self._shown = {self._header: secret.encode(), b"authorization": f"Bearer {secret}".encode()}  # by header
        detail = (
            f"this port answers Kanaria's gateway alone: ask the gateway; or send the header {header} with the content "
            "of the file version-secret, which the owner of Kanaria's state folder can read"
        )
        problem = {"type": "about:blank", "title": "Forbidden", "status": _REFUSED, "detail": detail}
        self._refusal = json.dumps(problem).encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        server = scope.get("server")  # none at start and end
        if not server or server[1] != self._port or self._takes_secret(scope):
            await self._app(scope, receive, send)
        else:
            await self._refuse(scope, send)

    def _takes_secret(self, scope: Message) -> bool:
        """Whether a request brings the secret, which none of its headers has any more then."""
        headers = scope["headers"]
        shown = self._shown  # by its local name: this runs for each header of each request
        found = [each for each in headers if each[0] in shown and hmac.compare_digest(each[1], shown[each[0]])]
        for each in found:
            headers.remove(each)
        # Prometheus sends no header of another name before its version 2.55.
        return bool(found) and (scope["path"].endswith(_METRICS_PATH) or self._header in [name for name, _ in found])

    async def _refuse(self, scope: Message, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # the server answers 403
            return
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(self._refusal)).encode()),
            (b"connection", b"close"),  # whoever lacks the secret keeps no file of this process
        ]
        await send({"type": "http.response.start", "status": _REFUSED, "headers": headers})
        await send({"type": "http.response.body", "body": self._refusal})


def without_forbidden_bodies(app: App) -> App:
    """Have an answer without content send none.

    BentoML sends what a method returns whatever status it chose, `null` for nothing. HTTP allows no body there: the
    gateway took it for no HTTP, or for the beginning of the next answer.
    """

    async def lawful(scope: Message, receive: Receive, send: Send) -> None:
        is_empty = False

        async def sent(message: Message) -> None:
            nonlocal is_empty
            if message["type"] == "http.response.start" and message["status"] in _WITHOUT_CONTENT:
                is_empty = True
                message["headers"] = [
                    each for each in message.get("headers", ()) if each[0].lower() != b"content-length"
                ]
            elif is_empty and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        await app(scope, receive, sent)

    return lawful


def guarded(app: App, guard: dict[str, Any]) -> App:
    """The app behind its guard, see `taken_guard`; as it is without one."""
    return Guard(app, **guard) if guard else app


def taken_guard() -> dict[str, Any]:
    """The guard that this process was given, taken out of its variables: its model need not know it."""
    return json.loads(os.environ.pop(VARIABLE, "{}"))  # type: ignore[no-any-return] # as `guarding` writes it


def bounded_http() -> type[Any]:
    """How uvicorn is to speak HTTP: see contract/bounded_http.py of Kanaria. A Bento may bring another `contract`."""
    file = Path(__file__).parents[3] / "contract" / "bounded_http.py"
    spec: Any = importlib.util.spec_from_file_location("_kanaria_bounded_http", file)
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.bounded_http()  # type: ignore[no-any-return] # as it says


def _guard_uvicorn(of_port: dict[str, Any]) -> None:
    """Whatever app this process gives to uvicorn, as BentoML's workers do, is guarded, and its connections bounded."""
    import uvicorn  # noqa: PLC0415 - of the version's Python, and only its workers need it

    config: Any = uvicorn.Config
    plain = config.__init__

    @functools.wraps(plain)
    def with_guard(self: Any, app: App, *arguments: Any, **options: Any) -> None:
        if (service := _with_command(app)) is not None:
            _refuse_a_taken_port(service)
            app = ending_with_its_command(app, service)
        options = {"http": bounded_http(), **_without_tls(options)}
        options["timeout_keep_alive"] = max(options.get("timeout_keep_alive", 0), _KEPT_ALIVE_S)
        plain(self, Guard(without_forbidden_bodies(app), **of_port), *arguments, **options)

    config.__init__ = with_guard


def _without_tls(options: dict[str, Any]) -> dict[str, Any]:
    """The options of uvicorn for a server behind the gateway, which has the certificate that callers see.

    Raises OSError for a service that wants certificates of its callers: none of theirs would reach it.
    """
    if options.get("ssl_certfile") and options.get("ssl_cert_reqs"):
        raise OSError(
            "it asks its callers for certificates (`ssl.cert_reqs`), which the gateway cannot pass on; leave that out, "
            "and let callers bring keys to the gateway"
        )
    return {name: value for name, value in options.items() if not name.startswith("ssl_")}


def _with_command(app: App) -> Any:
    """The service of an app, where it has a command (`cmd`, `__command__`) answer for it; None: it has none."""
    factory = getattr(getattr(getattr(app, "router", None), "lifespan_context", None), "__self__", None)
    service: Any = getattr(factory, "service", None)  # as BentoML 1.4 makes its apps
    return service if service is not None and getattr(service, "has_custom_command", bool)() else None


def _port_of_command(service: Any) -> int:
    return int(service.config.get("http", {}).get("proxy_port", 8000))  # as BentoML takes it


def ending_with_its_command(app: App, service: Any) -> App:
    """Have a worker end after the command that it started: BentoML starts another worker, and that the command.

    Else all requests would fail for good, by a server that says that it is ready. A command that left its server in
    the background has ended, too, and nothing is wrong: that listens.
    """
    tasks = []  # an event loop keeps none

    async def watched(scope: Message, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                tasks.append(asyncio.ensure_future(_end_after_command(service)))
            await send(message)

        await app(scope, receive, sent if scope["type"] == "lifespan" else send)

    return watched


async def _end_after_command(service: Any) -> None:
    command, port = service.context.state.get("proc"), _port_of_command(service)  # None in all workers but the first
    while command is not None:
        await asyncio.sleep(_LOOKED_EVERY_S)
        if command.returncode is not None and not _is_served(port):
            words = f"its command has ended ({command.returncode}), and nothing of it listens at port {port}"
            print(f"{words}: this worker ends, so that both are started again", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(_ENDS_WITHIN_S)
            os._exit(1)


def _is_served(port: int) -> bool:
    """Whether a process of this version may listen at a port of this machine."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as asked:
                asked.settimeout(_LOOKED_EVERY_S)
                if asked.connect_ex(address) not in _NOBODY_LISTENS:
                    return not _is_taken_by_another(port)
    except OSError:  # nobody knows
        return True
    return False


def _refuse_a_taken_port(service: Any) -> None:
    """Do not serve where the command of a service would meet another server at its port.

    BentoML asks whoever listens there. Two versions have one port, so that one would answer for both.
    """
    port = _port_of_command(service)
    if (processes := int(os.environ.get(PROCESSES, "1"))) > 1:  # also before the first one's command listens
        raise OSError(
            f"its service runs a command, which is to listen at port {port} in each of its {processes} processes; set "
            "KANARIA_REPLICAS=1, or list its command with {port} in the file KANARIA_VERSIONS"
        )
    if _is_taken_by_another(port):
        raise OSError(
            f"port {port}, at which its command is to listen, is taken, maybe by another version; give each version "
            "another port, or list its command with {port} in the file KANARIA_VERSIONS"
        )


def _is_taken_by_another(port: int) -> bool:
    """Whether a process that is none of this version listens at a port of this machine."""
    import psutil  # noqa: PLC0415 - of the version's Python, where Circus needs it

    try:
        there = psutil.net_connections("inet")
    except psutil.Error:  # macOS tells only root
        return False
    listening = [each for each in there if each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,)]
    return any(not _is_own(each.pid) for each in listening)


def _is_own(pid: int | None) -> bool:
    """Whether a process is of this version, which has a home of its own, also after what had started it ended."""
    import psutil  # noqa: PLC0415 - likewise

    try:
        return pid is not None and psutil.Process(pid).environ().get(_HOME) == os.environ.get(_HOME)
    except psutil.Error:  # a sandbox does not see into others
        return False


def _close_ports_of_circus() -> None:
    """Keep to itself what starts a server's workers.

    Circus takes commands, also to start a program, from whoever finds its two ports on 127.0.0.1. BentoML opens them
    and sends nothing there: its arbiter is in the same process.
    """
    from circus.arbiter import Arbiter  # type: ignore[import-untyped] # noqa: PLC0415 - of the version's Python, and only its server needs it

    arbiter: Any = Arbiter
    plain = arbiter.__init__

    @functools.wraps(plain)
    def without_ports(self: Any, *arguments: Any, **options: Any) -> None:
        own = {"endpoint": "inproc://commands", "pubsub_endpoint": "inproc://events"}
        plain(self, *arguments, **{**options, **own})

    arbiter.__init__ = without_ports


def _run_the_other() -> None:
    """Python imports the first file of this name alone; there may be one without us, too."""
    own = Path(__file__).parent.resolve()
    found = PathFinder.find_spec("sitecustomize", [path for path in sys.path if Path(path).resolve() != own])
    if found is not None and found.loader is not None:
        found.loader.exec_module(importlib.util.module_from_spec(found))


if __name__ == "sitecustomize":
    if VARIABLE in os.environ and "--fd" in sys.argv:  # a worker, which gets its socket so
        _guard_uvicorn(taken_guard())
    elif VARIABLE in os.environ and "serve" in sys.argv:  # what starts and watches them
        _close_ports_of_circus()
    _run_the_other()
