"""The controller over HTTP: commands in, state out. Reading is open; commands need a token.

It uses only the loop's `submit` and its snapshot; everything else comes from the ledger.
"""

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Literal, Self, TypeVar

import structlog
from anyio.to_thread import run_sync
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from contract.complaints import advice, listed
from contract.errors import KanariaError
from contract.http import DEADLINE_HEADER, LIVE_PATH, METRICS_PATH, READY_PATH
from contract.own_answers import NO_ANSWERS, OwnAnswers
from contract.threads import in_thread
from rollout.control import commands as c
from rollout.control.alerts import SIGNAL, Alert, objection
from rollout.control.controller import Controller
from rollout.control.metrics import ControllerMetrics
from rollout.control.snapshot import Snapshot
from rollout.errors import CommandRefused, LedgerError, NoSuchRelease, RolloutError, SourceUnreachable
from rollout.explain.timeline import Timeline, timeline
from rollout.ledger.events import Name
from rollout.ledger.ledger import Ledger
from rollout.ledger.own_names import is_own_name
from rollout.observe import BY_DEFAULT, Observe
from rollout.sources.firing import Firing
from rollout.sources.own_page import Finding, look
from rollout.spec import RolloutSpec
from rollout.ui.admission import Admission, RoleTooLow
from rollout.ui.callers import Callers
from rollout.ui.guarding import Guarding
from rollout.ui.html import Link
from rollout.ui.problems import problem
from rollout.ui.proof import PROOF_PATH
from rollout.ui.site import AlertsNow, Site
from rollout.ui.status import build_status
from rollout.ui.views import StatusView

log = structlog.get_logger()

Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*:[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]
_LONGEST_COMMAND, _LONGEST_ALERTS = 2**20, 4 * 2**20  # bytes; one request may have many alerts
_STALE_AFTER_S = 30.0  # a loop without a beat for this long is not ready
_PATIENCE_S = 30.0  # longest wait for the loop to take a command, whatever its sender says
# Commands by the name in their path; arguments: who gives the command, and the reason if there is one.
_COMMANDS: Mapping[str, Callable[[str, dict[str, str]], c.Command]] = {
    "pause": lambda by, reason: c.Pause(by=by, **reason),
    "resume": lambda by, _: c.Resume(by=by),
    "promote": lambda by, _: c.PromoteNow(by=by),
    "abort": lambda by, reason: c.Abort(by=by, **reason),
    "rollback": lambda by, reason: c.RollbackNow(by=by, **reason),
}
B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class UntrustedAlerts:
    """Alerts of an Alertmanager to which others may post: an alert counts only while it fires in Prometheus itself."""

    token: str  # of this Alertmanager; it allows nothing else
    firing: Callable[[], Sequence[Firing]]  # raises SourceUnreachable


def _not_our_own(name: str) -> str:
    if is_own_name(name):
        raise ValueError(f"the ledger uses `{name}` for a part of Kanaria; write the name of the person who asks")
    return name


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the pages need besides the controller."""

    links: Callable[[], Iterable[Link]] = tuple  # to other pages that are available now
    firing: Callable[[], Sequence[Firing]] = tuple  # firing alerts; raises SourceUnreachable
    names: frozenset[str] = frozenset()  # host names of the pages, besides `localhost` and addresses


class _TooLong(Exception):
    """A body that is longer than any valid one."""

    def __init__(self, most: int) -> None:
        super().__init__(f"more than {most:,} bytes")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: Annotated[Name, AfterValidator(_not_our_own)] = Field(default="api", max_length=100)
    release: int | None = None  # the newest release, as the sender saw it; None: any
    phase: str | None = None  # its phase, as the sender saw it; None: any


class _StableBody(_Body):
    tag: Tag
    answers: OwnAnswers = NO_ANSWERS
    observe: Observe = BY_DEFAULT


class _ReleaseBody(_Body):
    tag: Tag
    spec: RolloutSpec
    retry: bool = False


class _CheckBody(_Body):
    spec: RolloutSpec


class _ReasonBody(_Body):
    reason: str | None = Field(default=None, max_length=500)


class _RestoreBody(_ReasonBody):
    tag: Tag
    quarantine: bool = False
    anyway: bool = False


class _Alert(BaseModel):
    """One alert as Alertmanager posts it; other fields that it sends are not checked."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    began_at: AwareDatetime | None = Field(default=None, alias="startsAt")

    def parsed(self) -> Alert:
        name = self.labels.get("alertname", "alert")
        return Alert(
            name=name,
            summary=self.annotations.get("summary", name),
            is_firing=self.status == "firing",
            asks_for_rollback=self.labels.get("action") == "rollback",
            version=self.labels.get("version") or None,
            began_s=self.began_at.timestamp() if self.began_at else None,
        )

    def confirmed(self, firing: Sequence[Firing]) -> Self | None:
        """The alert with Prometheus's own time of its start; None: it does not fire in Prometheus."""
        own = next((one for one in firing if one.labels == self.labels), None)
        if own is None or self.status != "firing":
            return None
        return self.model_copy(update={"began_at": datetime.fromtimestamp(own.since_s, UTC)})


class _AlertsBody(BaseModel):
    alerts: Annotated[list[_Alert], Field(fail_fast=True)]


def make_app(
    controller: Controller,
    metrics: ControllerMetrics,
    *,
    read_ledger: Callable[[], Ledger],
    callers: Callers,
    name: str,
    alerts: UntrustedAlerts | None = None,
    surroundings: Surroundings = Surroundings(),
) -> Starlette:
    """The ASGI application.

    Args:
        controller: its `run` must be running in another thread.
        metrics: shown by `/metrics`.
        read_ledger: opens the ledger for reading.
        callers: the people whose bearer tokens are accepted.
        name: the deployment's name on the pages.
        alerts: alerts that count only if Prometheus confirms them; None: all alerts carry the owner's token.
        surroundings: the pages' links, alerts and host names.
    """

    admission = Admission(callers, alerts.token if alerts else None)

    def status() -> StatusView:
        snapshot = controller.snapshot
        ledger = read_ledger()
        try:
            release = snapshot.deployment.release
            return build_status(name, snapshot, _story(release.number, ledger, snapshot) if release else None)
        finally:
            ledger.close()

    async def get_status(_: Request) -> Response:
        return Response((await in_thread(status, by=run_sync)).model_dump_json(), media_type="application/json")

    async def get_metrics(_: Request) -> Response:
        return PlainTextResponse(metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def get_live(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def get_ready(_: Request) -> Response:
        if controller.is_beating(_STALE_AFTER_S):
            return PlainTextResponse("ok")
        snapshot = controller.snapshot
        return problem(503, "the control loop has stopped", "; ".join(snapshot.troubles) or snapshot.last_action)

    async def submit(request: Request, command: c.Command, seen: _Body) -> Response:
        asked = c.ForWhatWasSeen(command, seen.release, seen.phase)
        number = await in_thread(partial(controller.submit, asked, timeout_s=_patience_s(request)), by=run_sync)
        troubles = controller.snapshot.troubles
        return JSONResponse({"release": number} | ({"troubles": troubles} if troubles else {}), status_code=202)

    async def post_stable(request: Request) -> Response:
        body = await _parse(request, _StableBody)
        by = admission.person(request, body.by, "stable")
        command = c.SetStable(tag=body.tag, by=by, answers=body.answers, observe=body.observe)
        return await submit(request, command, body)

    async def post_release(request: Request) -> Response:
        body = await _parse(request, _ReleaseBody)
        person = admission.person(request, body.by, "retry" if body.retry else "release")
        return await submit(request, c.StartRelease(tag=body.tag, spec=body.spec, by=person, retry=body.retry), body)

    async def post_restore(request: Request) -> Response:
        body = await _parse(request, _RestoreBody)
        person = admission.person(request, body.by, "restore")
        command = c.Restore(
            tag=body.tag,
            by=person,
            reason=body.reason,
            quarantine=body.quarantine,
            anyway=body.anyway,
            may_end_watch=admission.may(request, "promote"),
        )
        return await submit(request, command, body)

    async def post_command(request: Request) -> Response:
        named = str(request.path_params["command"])
        if named not in _COMMANDS:
            return problem(404, "no such command", named)
        body = await _parse(request, _ReasonBody)
        person = admission.person(request, body.by, named)
        return await submit(request, _COMMANDS[named](person, {"reason": body.reason} if body.reason else {}), body)

    async def post_alerts(request: Request) -> Response:
        """Roll back for a firing alert with the label for it; answer what was done for each alert."""
        body = await _parse(request, _AlertsBody, most=_LONGEST_ALERTS)
        untrusted = alerts if alerts is not None and admission.is_alertmanager(request) else None
        did = await in_thread(partial(_act_on_all, controller, body.alerts, untrusted), by=run_sync)
        return JSONResponse({"alerts": did})

    site = Site(status, read_ledger, surroundings.links, AlertsNow(surroundings.firing))
    return Starlette(
        routes=[
            *site.routes(),
            Route("/api/status", get_status),
            Route(PROOF_PATH, admission.get_proof),
            Route("/api/stable", admission.for_people(post_stable), methods=["POST"]),
            Route("/api/releases", admission.for_people(post_release), methods=["POST"]),
            Route("/api/checks", admission.for_people(partial(_post_check, controller)), methods=["POST"]),
            Route("/api/restore", admission.for_people(post_restore), methods=["POST"]),
            Route("/api/commands/{command}", admission.for_people(post_command), methods=["POST"]),
            Route("/api/alerts", admission.for_alerts(post_alerts), methods=["POST"]),
            Route(METRICS_PATH, get_metrics),
            Route(LIVE_PATH, get_live),
            Route(READY_PATH, get_ready),
        ],
        middleware=[Middleware(Guarding, names=surroundings.names)],
        exception_handlers={
            RoleTooLow: _refused(403),
            CommandRefused: _refused(409),
            LedgerError: _refused(503),
            RolloutError: _refused(500),
            KanariaError: _refused(409),  # from the fleet, which runs the versions
            ValidationError: _invalid,
            _TooLong: _too_long,
            NoSuchRelease: _refused(404),
            TimeoutError: _too_late,
        },
    )


async def _post_check(controller: Controller, request: Request) -> Response:
    """Check whether a plan's own signals can be counted."""
    body = await _parse(request, _CheckBody)
    Admission.person(request, "", "release")
    stable, found = await run_sync(partial(_looked, controller.snapshot, body.spec))
    return JSONResponse({"stable": stable, "findings": [asdict(finding) for finding in found]})


def _looked(snapshot: Snapshot, spec: RolloutSpec) -> tuple[str | None, list[Finding]]:
    """The stable version, and problems with a plan's own signals on its page. Raises SourceUnreachable."""
    stable, own = snapshot.deployment.stable, spec.signals.own
    backends = snapshot.backends.get(stable, ()) if stable else ()
    return (stable, look(backends[0], own)) if backends and own else (stable if backends else None, [])


def _story(number: int, ledger: Ledger, snapshot: Snapshot) -> Timeline:
    """A release as of the snapshot: from the ledger up to then, plus events that are not written yet."""
    written = ledger.of_release(number, to=snapshot.head.events)
    known = {(event.kind, event.at_s) for event in written}
    own = (event for event in snapshot.unwritten if event.release == number)
    return timeline([*written, *(event for event in own if (event.kind, event.at_s) not in known)])


def _act_on_all(
    controller: Controller, alerts: Sequence[_Alert], untrusted: UntrustedAlerts | None
) -> list[dict[str, str]]:
    """Act on each alert in order. Once one has rolled the release back, the others have nothing left to do."""
    firing, doubt = None, "Prometheus has no such alert firing"
    if untrusted is not None and any(alert.parsed().asks_for_rollback for alert in alerts):
        try:
            firing = untrusted.firing()
        except SourceUnreachable as error:
            firing, doubt = (), f"it cannot be confirmed: {error.what}"
    done = []
    for alert in alerts:
        known = alert if firing is None else alert.confirmed(firing)
        did = f"nothing: {doubt}" if known is None else _act_on(controller, known.parsed())
        done.append({"alert": alert.parsed().name, "did": did})
    log.info("alerts", received=len(done), did=dict(Counter(answer["did"] for answer in done)))
    return done


def _act_on(controller: Controller, alert: Alert) -> str:
    snapshot = controller.snapshot  # a new one for each alert: it shows a rollback for an earlier alert
    if why_not := objection(alert, snapshot.deployment, snapshot.health, loaded_s=snapshot.loaded_s):
        return f"nothing: {why_not}"
    command = c.RollbackNow(
        by="alertmanager", reason=f"{alert.name}: {alert.summary}", signal=SIGNAL, tag=alert.version
    )
    try:
        number = controller.submit(command)
    except CommandRefused as refused:  # the release moved on in between
        return f"nothing: {refused.what}"
    log.warning("alert_rolled_back", alert=alert.name, version=alert.version, release=number, summary=alert.summary)
    return "rolled back"


def _patience_s(request: Request) -> float:
    """How long the sender of a command still waits, seconds. Raises CommandRefused if it no longer waits.

    A request may wait in a socket while the controller hangs; by then its sender may have given up and done something
    else.
    """
    given = request.headers.get(DEADLINE_HEADER)
    if given is None:
        return _PATIENCE_S
    now_s = time.time()
    try:
        left_s = float(given) - now_s
    except ValueError:
        left_s = math.nan
    if math.isnan(left_s):
        raise CommandRefused(f"`{DEADLINE_HEADER}` must be a time in Unix seconds", saw=given, do="correct it")
    if left_s <= 0:
        raise CommandRefused(
            "the command arrived too late: its sender no longer waits for the answer, so it is not carried out",
            saw=f"its deadline was {-left_s:.1f} s ago by the controller's clock",
            do="look at `kanaria status` and send it again; from another machine, compare the clocks",
        )
    return min(left_s, _PATIENCE_S)


async def _parse(request: Request, model: type[B], *, most: int = _LONGEST_COMMAND) -> B:
    """The body of a request. Raises ValidationError, and _TooLong as soon as it exceeds `most` bytes."""
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise _TooLong(most)
        parts.append(part)
    return model.model_validate_json(b"".join(parts) or b"{}")


# These are coroutines: Starlette runs a plain function in a thread, and the system may be out of threads.
def _refused(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_: Request, error: Exception) -> Response:
        if not isinstance(error, KanariaError):
            raise error
        return problem(status, error.what, error.saw, do=error.do)

    return answer


async def _too_long(_: Request, error: Exception) -> Response:
    return problem(413, "the request is too long", str(error), do="send only the expected fields")


async def _too_late(_: Request, error: Exception) -> Response:
    do = "see `kanaria status` and the log of the controller"
    return problem(503, "the control loop did not answer in time", str(error), do=do)


async def _invalid(_: Request, error: Exception) -> Response:
    if not isinstance(error, ValidationError):
        raise error
    places = "; ".join(f"{'.'.join(str(part) for part in e['loc']) or 'body'}: {advice(e)}" for e in listed(error))
    return problem(422, "the request is not valid", places)
