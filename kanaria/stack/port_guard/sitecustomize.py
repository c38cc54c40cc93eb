"""Makes the port of a BentoML server check a secret. Python imports this file first if its folder is on PYTHONPATH.

It also closes the other ports that the server opens.

It runs in the version's Python, which lacks Kanaria's packages and may be older: use only the standard library.
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

VARIABLE = "KANARIA_PORT_GUARD"  # JSON with port, header and secret
PROCESSES = "KANARIA_PORT_PROCESSES"  # number of processes of this version; not set: one
_METRICS_PATH = "/metrics"  # after the service's prefix, if it has one
_HOME = "BENTOML_HOME"
_REFUSED = 403
_WITHOUT_CONTENT = (204, 304)
_POLICY_VIOLATION = 1008  # WebSocket close code
# BentoML's inner services closed idle connections after 5 s, but their caller (aiohttp) keeps them for 15 s: a request
# on a connection that was just closed became a 500 for a user (BentoML issue 4971).
_KEPT_ALIVE_S = 20
_LOOKED_EVERY_S, _ENDS_WITHIN_S = 1.0, 10.0  # between looks at a command; for its worker to finish its requests
_NOBODY_LISTENS = (errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # the last two: no IPv6


class Guard:
    """An ASGI middleware that passes only requests with the secret at one port, and removes the secret from them.

    Requests that arrive another way, such as at the Unix socket of an inner service, pass unchanged.
    """

    def __init__(self, app: App, *, port: int, header: str, secret: str) -> None:
        self._app, self._port = app, port
        self._header = header.encode()
        self._shown = {self._header: secret.encode(), b"authorization": f"Bearer {secret}".encode()}  # by header
        detail = (
            f"this port answers only Kanaria's gateway: call the gateway, or send the header {header} with the content "
            "of the file version-secret, which the owner of Kanaria's state folder can read"
        )
        problem = {"type": "about:blank", "title": "Forbidden", "status": _REFUSED, "detail": detail}
        self._refusal = json.dumps(problem).encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        server = scope.get("server")  # None at startup and shutdown
        if not server or server[1] != self._port or self._takes_secret(scope):
            await self._app(scope, receive, send)
        else:
            await self._refuse(scope, send)

    def _takes_secret(self, scope: Message) -> bool:
        """Whether a request has the secret. Removes it from the headers."""
        headers = scope["headers"]
        shown = self._shown  # a local name is faster: this runs for each header of each request
        found = [each for each in headers if each[0] in shown and hmac.compare_digest(each[1], shown[each[0]])]
        for each in found:
            headers.remove(each)
        # Prometheus before 2.55 can send only an authorization header.
        return bool(found) and (scope["path"].endswith(_METRICS_PATH) or self._header in [name for name, _ in found])

    async def _refuse(self, scope: Message, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # the server answers 403
            return
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(self._refusal)).encode()),
            (b"connection", b"close"),  # a caller without the secret must not occupy file descriptors
        ]
        await send({"type": "http.response.start", "status": _REFUSED, "headers": headers})
        await send({"type": "http.response.body", "body": self._refusal})


def without_forbidden_bodies(app: App) -> App:
    """Remove the body of answers whose status allows none.

    BentoML sends what a method returns whatever the status, `null` for None. HTTP allows no body with these: the
    gateway read it as invalid HTTP, or as the start of the next answer.
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
    """The app behind its guard, see `taken_guard`; unchanged if there is no guard."""
    return Guard(app, **guard) if guard else app


def taken_guard() -> dict[str, Any]:
    """The guard of this process, removed from its variables: its model does not need the secret."""
    return json.loads(os.environ.pop(VARIABLE, "{}"))  # type: ignore[no-any-return] # as `guarding` writes it


def bounded_http() -> type[Any]:
    """The HTTP class for uvicorn, from Kanaria's contract/bounded_http.py: a Bento may bring another `contract`."""
    file = Path(__file__).parents[3] / "contract" / "bounded_http.py"
    spec: Any = importlib.util.spec_from_file_location("_kanaria_bounded_http", file)
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.bounded_http()  # type: ignore[no-any-return] # as it says


def _guard_uvicorn(of_port: dict[str, Any]) -> None:
    """Guard every app that this process gives to uvicorn, as BentoML's workers do, and bound its connections."""
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
    """The options of uvicorn without TLS, which the gateway terminates.

    Raises OSError for a service that requires client certificates: the gateway cannot pass them on.
    """
    if options.get("ssl_certfile") and options.get("ssl_cert_reqs"):
        raise OSError(
            "it requires client certificates (`ssl.cert_reqs`), which the gateway cannot pass on; leave that out "
            "and let callers send keys to the gateway"
        )
    return {name: value for name, value in options.items() if not name.startswith("ssl_")}


def _with_command(app: App) -> Any:
    """The service of an app whose requests a command (`cmd`, `__command__`) answers; None if it has none."""
    factory = getattr(getattr(getattr(app, "router", None), "lifespan_context", None), "__self__", None)
    service: Any = getattr(factory, "service", None)  # as BentoML 1.4 makes its apps
    return service if service is not None and getattr(service, "has_custom_command", bool)() else None


def _port_of_command(service: Any) -> int:
    return int(service.config.get("http", {}).get("proxy_port", 8000))  # as BentoML takes it


def ending_with_its_command(app: App, service: Any) -> App:
    """Let a worker end when its command ends: BentoML then starts another worker, which starts the command again.

    Otherwise all requests would fail permanently while the server reports that it is ready. A command that put its
    server into the background ends too, but its port still listens, so the worker stays.
    """
    tasks = []  # an event loop keeps only weak references

    async def watched(scope: Message, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                tasks.append(asyncio.ensure_future(_end_after_command(service)))
            await send(message)

        await app(scope, receive, sent if scope["type"] == "lifespan" else send)

    return watched


async def _end_after_command(service: Any) -> None:
    command, port = service.context.state.get("proc"), _port_of_command(service)  # None in all workers except the first
    while command is not None:
        await asyncio.sleep(_LOOKED_EVERY_S)
        if command.returncode is not None and not _is_served(port):
            words = f"its command has ended ({command.returncode}), and nothing listens on its port {port}"
            print(f"{words}: this worker ends, so that both are restarted", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(_ENDS_WITHIN_S)
            os._exit(1)


def _is_served(port: int) -> bool:
    """Whether a process of this version may listen on a port of this machine."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as asked:
                asked.settimeout(_LOOKED_EVERY_S)
                if asked.connect_ex(address) not in _NOBODY_LISTENS:
                    return not _is_taken_by_another(port)
    except OSError:  # it cannot be found out
        return True
    return False


def _refuse_a_taken_port(service: Any) -> None:
    """Refuse to serve if another server has the port of the service's command.

    BentoML calls any process that listens there. If two versions share a port, one would answer for both.
    """
    port = _port_of_command(service)
    if (processes := int(os.environ.get(PROCESSES, "1"))) > 1:  # even if no command listens yet
        raise OSError(
            f"its service runs a command that needs port {port} in each of its {processes} processes; set "
            "KANARIA_REPLICAS=1, or list its command with {port} in the file KANARIA_VERSIONS"
        )
    if _is_taken_by_another(port):
        raise OSError(
            f"port {port}, which its command needs, is taken, perhaps by another version; give each version "
            "another port, or list its command with {port} in the file KANARIA_VERSIONS"
        )


def _is_taken_by_another(port: int) -> bool:
    """Whether a process of another version or program listens on a port of this machine."""
    import psutil  # noqa: PLC0415 - the version's Python has it, because Circus needs it

    try:
        there = psutil.net_connections("inet")
    except psutil.Error:  # macOS shows connections only to root
        return False
    listening = [each for each in there if each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,)]
    return any(not _is_own(each.pid) for each in listening)


def _is_own(pid: int | None) -> bool:
    """Whether a process belongs to this version, by its own BentoML home. Works for orphans too."""
    import psutil  # noqa: PLC0415 - likewise

    try:
        return pid is not None and psutil.Process(pid).environ().get(_HOME) == os.environ.get(_HOME)
    except psutil.Error:  # a sandbox cannot inspect processes outside
        return False


def _close_ports_of_circus() -> None:
    """Close the control ports of the server's process manager (Circus).

    Circus accepts commands, even to start a program, from any process that finds its two ports on 127.0.0.1. BentoML
    opens the ports and does not use them: its arbiter is in the same process.
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
    """Run the next sitecustomize on the path: Python imports only the first file of this name."""
    own = Path(__file__).parent.resolve()
    found = PathFinder.find_spec("sitecustomize", [path for path in sys.path if Path(path).resolve() != own])
    if found is not None and found.loader is not None:
        found.loader.exec_module(importlib.util.module_from_spec(found))


if __name__ == "sitecustomize":
    if VARIABLE in os.environ and "--fd" in sys.argv:  # a worker: it gets its socket by this option
        _guard_uvicorn(taken_guard())
    elif VARIABLE in os.environ and "serve" in sys.argv:  # the process that starts and supervises the workers
        _close_ports_of_circus()
    _run_the_other()
