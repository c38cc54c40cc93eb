"""The judge over HTTP, for engines that move traffic themselves: Argo Rollouts, Flagger, a CI job.

A verdict is always a 200 with a JSON object, and everything else is a problem, because Argo Rollouts would treat any
other 200 as success.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

import structlog
from anyio import CapacityLimiter, move_on_after
from anyio.to_thread import run_sync
from prometheus_client import generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from contract.deadline import left_s, own_deadline, within
from contract.http import LIVE_PATH, METRICS_PATH, READY_PATH
from rollout.errors import NoSuchRelease
from rollout.explain.format import date
from rollout.judge import JudgeConfig, Verdict
from rollout.judge.jsonl import judgement_object, parse_windows
from rollout.judge.judge import Judge
from rollout.server.answers import with_notes
from rollout.server.evidence import NeverSeen
from rollout.server.kept import Attempt
from rollout.server.metrics import JudgeMetrics
from rollout.server.questions import FlaggerBody, JudgeBody, Name, Namespace, Percent, Version
from rollout.server.refusals import Endpoint, TooBusy, TooLong, counted, exception_handlers
from rollout.server.releases import Releases
from rollout.server.tokens import is_given
from rollout.signals.catalogue import catalogue
from rollout.ui.guarding import Guarding
from rollout.ui.html import templates
from rollout.ui.problems import problem
from rollout.ui.runbooks import NOT_HERE, runbooks
from rollout.ui.status import signal_views

log = structlog.get_logger()

_LONGEST_QUESTION, _LONGEST_WINDOWS = 100_000, 16_000_000  # bytes
_TOKEN = "token"  # noqa: S105 - the name of a parameter
_TOLD = ("eventType", "eventMessage", "timestamp")  # logged from Flagger's metadata; the rest may be secret
_WAITS = "Waiting"  # the phase of a Canary whose new spec was not applied yet
_LONGEST_TOLD = 300  # characters
_ANSWERED_WITHIN_S = 25.0  # including all requests to others; the engines wait 30 s, as `render` writes it
_UNDONE_WITHIN_S = 10.0  # for undoing the effects of an answer that was not received


class _LiftBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    namespace: Namespace
    rollout: Name
    canary: Version


class _WindowsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weight: Percent = 100.0


class _FirstWeight(PlainTextResponse):
    """Permission for the first weight. It is given once, so it must be received."""


T = TypeVar("T")


class _Threads:
    """Separate threads for each thing that is waited for. Pages, and windows in a body, use anyio's threads.

    A hanging store blocks one thread per question; probes, `/metrics`, tokens and the quarantine must not wait for it.
    """

    def __init__(self) -> None:
        self._own, self._kept, self._asking = (CapacityLimiter(most) for most in (8, 40, 40))

    async def own(self, work: Callable[[], T]) -> T:
        """Run work that waits only for this machine."""
        return await run_sync(work, limiter=self._own)

    async def kept(self, work: Callable[[], T]) -> T:
        """Run work that waits for the ledger or for the replicas' shared state. Raises TooBusy."""
        return await _in_turn(work, self._kept)

    async def asking(self, work: Callable[[], T]) -> T:
        """Run work that waits for Prometheus. Raises TooBusy."""
        return await _in_turn(work, self._asking)


async def _in_turn(work: Callable[[], T], limiter: CapacityLimiter) -> T:
    """Run work once a thread is free. Work that starts in time ends in time: its waits have the same deadline."""
    with move_on_after(left_s()):
        return await run_sync(work, limiter=limiter)
    raise TooBusy(limiter.statistics().tasks_waiting)


@dataclass(frozen=True, slots=True)
class _Answers:
    """Answers for all routes: first from the quarantine, then from the samples."""

    releases: Releases
    metrics: JudgeMetrics
    threads: _Threads

    async def answer(self, asked: JudgeBody, *, attempt_of: str = "", must_be_seen: bool = False) -> dict[str, Any]:
        """The answer, counted. Raises TooBusy, and what `Releases.question` and `Releases.judged` raise."""
        began_s = time.perf_counter()
        question = await self.threads.kept(partial(self.releases.question, asked, attempt_of=attempt_of))
        said = question.answer
        if said is None:
            said = await self.threads.asking(partial(self.releases.judged, question, must_be_seen=must_be_seen))
        self.metrics.took.observe(time.perf_counter() - began_s)
        self.metrics.answers.labels(said["verdict"]).inc()
        return said


class _Hooks:
    """Flagger's webhooks. 200 lets it continue, 409 holds it; for the rollback hook, 200 means roll back."""

    def __init__(self, answers: _Answers) -> None:
        self._answers, self._releases, self._threads = answers, answers.releases, answers.threads

    async def start(self, asked: FlaggerBody) -> Response:
        """confirm-rollout: may this canary begin? Always yes: here Flagger sends the checksum of the previous spec."""
        failure = await self._threads.kept(partial(self._releases.last_failure, _attempt(asked).names))
        if failure is None:
            return PlainTextResponse("it may begin")
        return PlainTextResponse(
            f"it may begin; {date(failure.at_s)} a build failed, and it is rolled back if this is the same build: "
            f"{with_notes(failure.answer, ())['reason']}"
        )

    async def step(self, asked: FlaggerBody) -> Response:
        """confirm-traffic-increase: is the next weight safe?"""
        if "to_percent" not in asked.metadata:
            return problem(
                422,
                "the hook does not name the largest weight that it asks about",
                "metadata has no `to_percent`",
                do='write `metadata: {to_percent: "50"}` with the largest weight of the analysis, maxWeight',
            )
        said = await self._answers.answer(asked.question(), attempt_of=asked.checksum)
        if await self._threads.asking(partial(self._releases.may_have_first_weight, _attempt(asked), said)):
            return _FirstWeight("it has had no requests yet, and may have its first weight")
        return _passed(said)

    async def unheard(self, asked: FlaggerBody) -> None:
        """Flagger gave up before it received the permission for the canary's first weight."""
        await self._threads.kept(partial(self._releases.take_first_weight_back, _attempt(asked)))

    async def promote(self, asked: FlaggerBody) -> Response:
        """confirm-promotion: is all the traffic safe?"""
        question = asked.question().model_copy(update={"to_percent": 100.0})
        return _passed(await self._answers.answer(question, attempt_of=asked.checksum))

    async def failed(self, asked: FlaggerBody) -> Response:
        """rollback: 200 only if the canary is proven to do harm."""
        if asked.phase == _WAITS:
            return PlainTextResponse("it has not begun, and the checksum is that of the previous spec", status_code=409)
        question = asked.question().model_copy(update={"to_percent": None})
        try:
            said = await self._answers.answer(question, attempt_of=asked.checksum, must_be_seen=True)
        except NeverSeen as error:
            release = f"{asked.namespace}/{asked.name}"
            raise NoSuchRelease(f"{release}: Prometheus has no requests of this canary") from error
        status = 200 if said["verdict"] == Verdict.FAIL.value else 409
        return PlainTextResponse(said["reason"], status_code=status)

    async def event(self, asked: FlaggerBody) -> Response:
        """event and post-rollout: logged."""
        told = {key: asked.metadata[key][:_LONGEST_TOLD] for key in _TOLD if key in asked.metadata}
        log.info("flagger", namespace=asked.namespace, canary=asked.name, phase=asked.phase[:_LONGEST_TOLD], told=told)
        return PlainTextResponse("noted")


def _passed(said: Mapping[str, Any]) -> Response:
    return PlainTextResponse(said["reason"], status_code=200 if said["verdict"] == Verdict.PASS.value else 409)


def make_app(
    releases: Releases,
    *,
    token: Callable[[], str],
    names: frozenset[str] = frozenset(),
    within_s: float = _ANSWERED_WITHIN_S,
) -> Starlette:
    """The ASGI application.

    Args:
        releases: answers the questions.
        token: reads the token that questions must carry; it may change at any time.
        names: host names by which people reach the pages, besides addresses.
        within_s: how long a question may wait for other servers, seconds.
    """
    metrics, threads = JudgeMetrics(releases), _Threads()
    answers = _Answers(releases, metrics, threads)
    hooks = _Hooks(answers)
    every_hook = (hooks.start, hooks.step, hooks.promote, hooks.failed, hooks.event)
    steps: Mapping[str, Callable[[FlaggerBody], Awaitable[Response]]] = {hook.__name__: hook for hook in every_hook}

    async def post_judge(request: Request) -> Response:
        asked = JudgeBody.model_validate_json(await _body(request, _LONGEST_QUESTION))
        metrics.asked.set_to_current_time()
        return JSONResponse(await answers.answer(asked))

    async def post_flagger(request: Request) -> Response:
        hook = steps.get(request.path_params["hook"])
        if hook is None:
            raise HTTPException(404)
        asked = FlaggerBody.model_validate_json(await _body(request, _LONGEST_QUESTION))
        metrics.asked.set_to_current_time()
        answer = await hook(asked)
        if isinstance(answer, _FirstWeight) and await request.is_disconnected():
            with own_deadline(_UNDONE_WITHIN_S):
                await hooks.unheard(asked)
        return answer

    async def post_windows(request: Request) -> Response:
        query = _WindowsQuery.model_validate(
            {key: value for key, value in request.query_params.items() if key != _TOKEN}
        )
        body = await _body(request, _LONGEST_WINDOWS)
        return JSONResponse(await run_sync(partial(_judged, body, query.weight)))

    async def post_lift(request: Request) -> Response:
        asked = _LiftBody.model_validate_json(await _body(request, _LONGEST_QUESTION))
        attempt = Attempt(asked.namespace, asked.rollout, asked.canary)
        lifted, notes = await threads.kept(partial(releases.lift, attempt))
        return JSONResponse({"lifted": lifted} | ({"notes": notes} if notes else {}))

    async def get_live(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def get_ready(_: Request) -> Response:
        await threads.own(releases.check)
        return PlainTextResponse("ok")

    async def get_metrics(_: Request) -> Response:
        page = await threads.own(partial(generate_latest, metrics.registry))
        return Response(page, media_type="text/plain; version=0.0.4")

    async def get_releases(_: Request) -> Response:
        return HTMLResponse(await run_sync(partial(_overview, releases)))

    async def get_release(request: Request) -> Response:
        return HTMLResponse(await run_sync(partial(_page, releases, Attempt(**request.path_params))))

    def guarded(endpoint: Endpoint) -> Endpoint:
        return partial(counted, partial(_for_callers, endpoint, partial(threads.own, token), within_s), metrics)

    routes = f"/v1/judge, /v1/windows, /v1/lift, {', '.join(f'/v1/flagger/{hook}' for hook in steps)}"
    made = Starlette(
        routes=[
            Route("/v1/judge", guarded(post_judge), methods=["POST"]),
            Route("/v1/windows", guarded(post_windows), methods=["POST"]),
            Route("/v1/lift", guarded(post_lift), methods=["POST"]),
            Route("/v1/flagger/{hook}", guarded(post_flagger), methods=["POST"]),
            Route("/", get_releases),
            Route("/releases/{namespace}/{rollout}/{canary:path}", get_release),
            Route("/runbooks", _runbooks),
            Route("/static/style.css", _style),
            Route(METRICS_PATH, get_metrics),
            Route(LIVE_PATH, get_live),
            Route(READY_PATH, get_ready),
        ],
        middleware=[Middleware(Guarding, names=names, who="the judge", named_by="--url")],
        exception_handlers=exception_handlers(metrics, routes),
    )
    made.router.redirect_slashes = False  # an engine treats a redirect as an error and loses the message
    return made


async def _for_callers(
    endpoint: Endpoint, token: Callable[[], Awaitable[str]], within_s: float, request: Request
) -> Response:
    """Call the endpoint if the request has the token: in the header, or in the query if no header can be set."""
    known = await token()
    if not is_given(known, request.headers.get("authorization", ""), request.query_params.getlist(_TOKEN)):
        return problem(401, "this needs the judge's token", "send `Authorization: Bearer TOKEN`, or `?token=TOKEN`")
    with within(within_s):
        return await endpoint(request)


async def _body(request: Request, most: int) -> bytes:
    """The whole body. Raises TooLong before more than `most` bytes are kept."""
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise TooLong(most)
        parts.append(part)
    return b"".join(parts)


def _judged(body: bytes, weight: float) -> dict[str, object]:
    """What `kanaria judge` prints for these lines. Raises LineError."""
    judge = Judge(JudgeConfig(rules=catalogue().rules))
    judge.observe(parse_windows(body.split(b"\n"), tuple(catalogue().rules)))
    return judgement_object(judge.judgement(next_weight=weight / 100))


def _attempt(asked: FlaggerBody) -> Attempt:
    return Attempt(asked.namespace, asked.name, asked.name, asked.checksum)


def _overview(releases: Releases) -> str:
    known = releases.all()
    shown = {each.attempt.names for each in known}
    others = [each for each in releases.failures() if each.attempt.names not in shown]
    page = templates().get_template("judged.html")
    return page.render(known=known, failures=others, more=releases.not_shown(), elsewhere=releases.elsewhere())


def _page(releases: Releases, attempt: Attempt) -> str:
    """The evidence of one release. Raises NoSuchRelease."""
    found = [known for known in releases.all() if known.attempt.names == attempt.names]
    failed = releases.failures_of(attempt.names)
    if not found and not failed:
        release = f"{attempt.namespace}/{attempt.rollout}"
        pods = [each.pod for each in releases.elsewhere() if (each.release, each.canary) == (release, attempt.canary)]
        raise NoSuchRelease("/".join(attempt.names)[:300] + (f", but {', '.join(pods)} was" if pods else ""))
    known = found[0] if found else None
    judgement = known.answer.judgement if known and known.answer else None
    names = dict(zip(("namespace", "rollout", "canary"), attempt.names, strict=True))
    return (
        templates()
        .get_template("judged_release.html")
        .render(
            attempt=attempt,
            known=known,
            failure=failed[0] if failed else None,
            signals=signal_views(judgement, known.evidence.spec) if known and judgement else (),
            lift=json.dumps(names),
            shares=releases.shares,
        )
    )


async def _runbooks(_: Request) -> Response:
    try:
        body = await run_sync(runbooks)
    except OSError:
        return PlainTextResponse(NOT_HERE, 404)
    return HTMLResponse(templates().get_template("judged_runbooks.html").render(body=body))


async def _style(_: Request) -> Response:
    content = files("rollout.ui").joinpath("templates", "style.css").read_text()
    return Response(content, media_type="text/css", headers={"cache-control": "no-cache"})
