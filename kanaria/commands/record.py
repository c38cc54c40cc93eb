"""`kanaria record`: records some of users' requests, to replay them to the next version before any traffic."""

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer

from contract.recorded import Damaged, RecordedFolder, RecordedRequest
from contract.terminal import say
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.recording import Recorded, record, recordable_routes
from kanaria.stack.versions import Versions
from rollout.fleet import Service
from rollout.format import count, span
from rollout.ui.cli import EXIT_DONE, EXIT_UNDECIDED, explained
from rollout.ui.cli.reading import stable_version
from rollout.units import seconds_in

_SHOWN_LETTERS = 2000
_LONGEST_S = 86400.0


def record_requests(
    *,
    for_: Annotated[
        str, typer.Option("--for", help="Longest time: 30s, 10m. It ends earlier when each route has 8 new requests.")
    ] = "30s",
    share: Annotated[str, typer.Option(help="Share of the requests that are looked at, 1% to 100%.")] = "100%",
    leave_out: Annotated[list[str] | None, typer.Option(help="A route that is not recorded. May be repeated.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the recorded requests, and record nothing.")] = False,
    show: Annotated[int | None, typer.Option(help="Show the recorded request with this number.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all recorded requests.")] = False,
) -> None:
    """Record some of users' requests with stable's answers, for the preflight of the next version."""
    with explained():
        settings = Settings()
        folder = RecordedFolder(settings.recorded)
        if sum((list_, show is not None, clear)) > 1:
            raise SetupError(
                "--list, --show and --clear exclude each other", saw="several of them", do="give one of them"
            )
        if clear:
            say(f"removed recorded requests: {count(folder.clear())}")
        elif show is not None:
            _show(folder, show)
        elif list_:
            for line in _listed(folder):
                say(line)
        else:
            for_s, percent = _seconds(for_), _percent(share)
            raise typer.Exit(_record(settings, for_s, percent, tuple(leave_out or ())))


def _record(settings: Settings, for_s: float, percent: int, leave_out: tuple[str, ...]) -> int:
    stable = stable_version(settings.ledger)
    if stable is None:
        raise SetupError("there is nothing to record from", saw="no stable version", do="start one: `kanaria up TAG`")
    service = Versions(settings.versions).service(stable)
    routes = recordable_routes(service, leave_out)
    if unknown := [route for route in leave_out if route not in {known.path for known in service.routes}]:
        raise SetupError(
            f"{stable} has no route {unknown[0]}",
            saw=f"its routes: {', '.join(route.path for route in service.routes) or 'none are named'}",
            do="correct the route",
        )
    if not routes and not service.keeps_contract:
        raise SetupError(
            f"nothing of {stable} can be recorded",
            saw="it names no route whose answers come as a whole" + (" except those left out" if leave_out else ""),
            do="nothing: answers in parts, WebSockets and mounted applications are never replayed",
        )
    if not service.keeps_contract:
        say(f"recording requests to {', '.join(routes)} for at most {span(for_s)}; Ctrl-C ends it", err=True)
    # Like Ctrl-C: `record` then stops the gateway's copies first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began_s = time.monotonic()
    found = record(
        settings, service, for_s=for_s, share_percent=percent, leave_out=leave_out, say=partial(say, err=True)
    )
    for line in _summary(found, service, time.monotonic() - began_s, settings):
        say(line)
    return EXIT_DONE if found.count else EXIT_UNDECIDED


def _summary(found: Recorded, service: Service, took_s: float, settings: Settings) -> Iterator[str]:
    if not found.count:
        yield f"no request was recorded in {span(took_s)}"
        if not any(found.outcomes.values()):
            route = next(iter(found.by_route))
            yield f"  no request came; send some while this runs, for example: curl {_example(route, settings)}"
    else:
        requests = "request" if found.count == 1 else "requests"
        yield f"{count(found.count)} {requests} recorded in {span(took_s)}; `kanaria record --list` shows them"
        for route, kept in found.by_route.items():
            yield f"  {route}: {count(kept)}" if kept else f"  {route}: none came"
    yield from (f"  {why}" for why in found.left_out())
    if streamed := [route.path for route in service.routes if route.is_streamed]:
        yield f"  left out, because their answers come in parts: {', '.join(streamed)}"


def _example(route: str, settings: Settings) -> str:
    key = f'-H "x-api-key: $(cat {settings.root / "api-key"})" ' if settings.needs_api_key else ""
    return f"{key}-H 'content-type: application/json' -d '{{}}' {settings.gateway_url}{route}"


def _listed(folder: RecordedFolder) -> Iterator[str]:
    found = list(folder.requests())
    if not found:
        yield "nothing is recorded; `kanaria record` records some of the requests that come while it runs"
    for number, request in found:
        if request is None:
            yield f"{number:>4}  its file was damaged or changed, so it is not used"
            continue
        at = datetime.fromtimestamp(request.at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
        sizes = f"{count(len(request.body))} bytes, answered {request.status}"
        yield f"{number:>4}  {at}  {request.method} {request.route}  {sizes} by {request.version}"


def _show(folder: RecordedFolder, number: int) -> None:
    try:
        request = folder.read(number)
    except Damaged as error:
        raise SetupError(
            f"recorded request {number} cannot be shown",
            saw=f"{error} was damaged or changed after it was written",
            do=f"remove it: {folder.path / str(error)}",
        ) from error
    if request is None:
        known = ", ".join(str(file.number) for file in folder.files()) or "none"
        raise SetupError(
            f"there is no recorded request {number}", saw=f"recorded: {known}", do="`kanaria record --list`"
        )
    for line in _as_text(request):
        say(line)


def _as_text(request: RecordedRequest) -> Iterator[str]:
    yield f"{request.method} {request.path}"
    yield from (f"{name}: {value}" for name, value in request.headers.items())
    yield from ("", _readable(request.body), "")
    yield f"{request.version} answered {request.status} {request.media_type}"
    yield "" if request.answer is not None else f"(only its hash was recorded: SHA-256 {request.answer_digest})"
    if request.answer is not None:
        yield _readable(request.answer)


def _readable(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"({count(len(body))} bytes that are not text)"
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]} ... ({count(len(text))} characters)"


def _seconds(given: str) -> float:
    seconds = seconds_in(given)
    if seconds is None or not 0 < seconds <= _LONGEST_S:
        raise SetupError("--for is not a valid time", saw=given, do="write 30s, 10m or 1h: more than 0, and at most 1d")
    return seconds


def _percent(given: str) -> int:
    digits = given.strip().removesuffix("%")
    if not given.strip().endswith("%") or not digits.isdecimal() or not 1 <= int(digits) <= 100:
        raise SetupError("--share is not a valid share", saw=given, do="write a whole percentage from 1% to 100%")
    return int(digits)
