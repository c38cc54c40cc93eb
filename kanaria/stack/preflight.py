"""Checks a version before user requests reach it: golden requests, compatibility with stable, memory and speed."""

import math
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, TypeGuard

import httpx
import psutil
from pydantic import BaseModel, Field, JsonValue, ValidationError

from contract import loopback
from contract.complaints import listed
from contract.http import PREDICT_PATH, REQUEST_ID_HEADER
from contract.prediction_log import OWN_REQUESTS
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.bentos import model_folder, model_of
from kanaria.stack.compatibility import GoldenRequest, Interface, differences, remarks
from kanaria.stack.manifests import losses
from kanaria.stack.recording import to_replay
from kanaria.stack.replay import Replayed, Replayer
from kanaria.stack.versions import Versions
from rollout.control.preflight import Loss
from rollout.fleet import Backend, Service
from rollout.ledger.findings import PreflightResult
from rollout.spec import RolloutSpec

TOLERANCE = 1e-3  # of numbers in an answer, absolute and relative: another CPU may sum in another order
SHOWN_DIFFERENCES = 3  # the rest is counted
_TIMEOUT_S = 10.0
_LARGEST_ANSWER = 16 * 2**20  # bytes
_MEGABYTE = 1e6
_DEFAULTS = RolloutSpec()


class _Answer(BaseModel):
    """The part of an answer that callers rely on."""

    version: str
    # Stop at the first error: an answer of some megabytes may cause millions, which would fill the memory.
    predictions: Annotated[list[dict[str, JsonValue]], Field(fail_fast=True)]


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of the golden requests."""

    differences: tuple[str, ...]
    took_ms: tuple[float, ...]  # latency of each answer


class LocalPreflight:
    """The `Preflight` of one machine."""

    def __init__(
        self,
        process_of: Callable[[str], int | None],
        service_of: Callable[[str], Service],
        settings: Settings | None = None,
    ) -> None:
        """Args:
        process_of: returns the pid of a version's main process; None if it does not run here.
        service_of: returns the routes and limits of a version.
        settings: of the stack whose recorded requests are replayed; None: none are.
        """
        self._process_of, self._service_of, self._settings = process_of, service_of, settings

    def losses(self, canary: str, stable: str) -> tuple[Loss, ...]:
        """See `Preflight`. For models of the contract `check` compares the files."""
        if all(self._service_of(tag).keeps_contract for tag in (canary, stable)):
            return ()
        own, known = Versions.schemas(canary), Versions.schemas(stable)
        return () if own is None or known is None else losses(own, known)

    def check(
        self,
        canary: Backend,
        stable: str | None,
        plan: RolloutSpec = _DEFAULTS,
        *,
        beside: Backend | None = None,
    ) -> PreflightResult:
        """See `Preflight`. Without `stable` there is nothing to compare with."""
        try:
            services = [self._service_of(tag) for tag in (canary.tag, stable) if tag]
            if not all(service.keeps_contract for service in services):
                return self._of_services(canary, stable, plan, beside)
            own = Interface.read(model_folder(model_of(canary.tag)))
            known = Interface.read(model_folder(model_of(stable))) if stable else own
        except SetupError as error:
            return PreflightResult(differences=(f"{error.what}: {error.saw}",))
        replayed = replay(canary, own.golden)
        memory_mb = self._memory_mb(canary.tag)
        return PreflightResult(
            differences=(*differences(own, known), *_first(replayed.differences)),
            remarks=remarks(own, known),
            golden_requests=len(own.golden),
            p50_ms=statistics.median(replayed.took_ms) if replayed.took_ms else None,
            slowest_ms=max(replayed.took_ms, default=None),
            memory_mb=memory_mb,
            stable_memory_mb=self._memory_mb(stable) if stable else None,
        )

    def _of_services(
        self, canary: Backend, stable: str | None, plan: RolloutSpec, beside: Backend | None
    ) -> PreflightResult:
        """Compare the schemas of two services, and their answers to recorded requests."""
        unlike = [tag for tag in (canary.tag, stable) if tag and stable and Versions.schemas(tag) is None]
        unknown = [f"inputs and answers could not be compared: {tag} has no schemas" for tag in unlike[:1]]
        by_manifest = self.losses(canary.tag, stable) if stable else ()
        replayed = self._replayed(canary, plan, beside)
        found = (*by_manifest, *replayed.losses)
        refused = [loss.says for loss in found if not loss.is_allowed(plan.may_break)]
        allowed = [loss.says for loss in found if loss.is_allowed(plan.may_break)]
        return PreflightResult(
            differences=_first(refused),
            remarks=(*unknown, *replayed.remarks),
            allowed=_first(allowed),
            is_comparable=not unknown,
            recorded_requests=replayed.count,
            p50_ms=statistics.median(replayed.took_ms) if replayed.took_ms else None,
            slowest_ms=max(replayed.took_ms, default=None),
            memory_mb=self._memory_mb(canary.tag),
            stable_memory_mb=self._memory_mb(stable) if stable else None,
        )

    def _replayed(self, canary: Backend, plan: RolloutSpec, beside: Backend | None) -> Replayed:
        """Replay the recorded requests to both, if the plan asks for it."""
        later = "so its answers are first seen under traffic"
        if plan.golden.requests != "recorded" or self._settings is None:
            return Replayed(remarks=(f"it has no golden requests, and its plan has no `golden: recorded`, {later}",))
        if beside is None:
            return Replayed(remarks=(f"stable does not answer now, so no recorded request was replayed, {later}",))
        service, ends_s = self._service_of(beside.tag), time.monotonic() + plan.startup_deadline / 2
        known = {route.path for each in (service, self._service_of(canary.tag)) for route in each.routes}
        if unknown := [route for route in plan.golden.leave_out if route not in known]:
            typo = f"`leave_out` names {unknown[0]}, a route of neither version (theirs are {', '.join(sorted(known))})"
            return Replayed(remarks=(f"no recorded request was replayed, because {typo}; {later}",))
        requests, said = to_replay(self._settings, service, leave_out=plan.golden.leave_out)
        if not requests:
            return Replayed(remarks=(*said, f"nothing is recorded, {later}"))
        left_s = ends_s - time.monotonic()
        replayer = Replayer(canary, beside, limit_s=service.timeout_s, budget_s=left_s, answers=plan.answers)
        replayed = replayer.run(requests)
        return replace(replayed, remarks=(*said, *replayed.remarks))

    def _memory_mb(self, tag: str) -> float | None:
        pid = self._process_of(tag)
        return None if pid is None else memory_mb(pid)


def replay(canary: Backend, golden: Sequence[GoldenRequest]) -> Replay:
    """Send each golden request to `canary`, one after the other. Stops at the first without an answer."""
    if not golden:
        return Replay(("it has no golden requests, so its answers are unknown",), ())
    found: list[str] = []
    took_ms: list[float] = []
    run = uuid.uuid4().hex  # unique: answers of two versions with one request id count as one mirrored request
    with loopback.client(canary.url, timeout_s=_TIMEOUT_S, headers=canary.headers) as client:
        for number, request in enumerate(golden):
            started_s = time.perf_counter()
            try:
                answer = loopback.whole(
                    client,
                    PREDICT_PATH,
                    method="POST",
                    most=_LARGEST_ANSWER,
                    json={"features": request.features},
                    headers={REQUEST_ID_HEADER: f"{OWN_REQUESTS}{run}-{number}"},
                )
            except httpx.HTTPError as error:
                found.append(f"golden request {number} got no answer: {error!r}")
                break
            took_ms.append(1000 * (time.perf_counter() - started_s))
            found += (f"golden request {number}: {what}" for what in _wrong(answer, canary.tag, request.predictions))
    return Replay(tuple(found), tuple(took_ms))


def memory_mb(pid: int) -> float | None:
    """Memory of a process and its children, megabytes. Shared pages count once if the system reports them."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
        return sum(_bytes_of(process) for process in tree) / _MEGABYTE
    except (psutil.Error, OSError):  # it ended meanwhile, cannot be inspected, or file descriptors ran out
        return None


def _bytes_of(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))  # only Linux reports the proportional share


def _wrong(answer: httpx.Response, tag: str, expected: Sequence[dict[str, JsonValue]]) -> Iterator[str]:
    """How an answer differs from the golden one."""
    if answer.status_code != 200:
        yield f"HTTP {answer.status_code}, {answer.content[:200].decode(errors='replace')}"
        return
    try:
        document = _Answer.model_validate_json(answer.content)
    except ValidationError as error:
        first = listed(error)[0]
        yield f"the answer breaks the contract: {first['loc']} {first['msg']}"
        return
    if document.version != tag:
        yield f"answered by {document.version}"
    rows = document.predictions
    if len(rows) != len(expected):
        yield f"{len(rows)} answers to {len(expected)} rows"
        return
    for number, (row, wanted) in enumerate(zip(rows, expected, strict=True)):
        for field, value in wanted.items():
            if field not in row:
                yield f"row {number} lacks `{field}`"
            elif not _is_same(row[field], value):
                yield f"row {number}: `{field}` is {row[field]!r}, expected {value!r}"


def _is_same(seen: JsonValue, expected: JsonValue) -> bool:
    """Whether two values are equal; numbers within the tolerance."""
    if _is_number(seen) and _is_number(expected):
        return math.isclose(seen, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(seen, list) and isinstance(expected, list):
        return len(seen) == len(expected) and all(map(_is_same, seen, expected))
    if isinstance(seen, dict) and isinstance(expected, dict):
        return seen.keys() == expected.keys() and all(_is_same(seen[key], expected[key]) for key in seen)
    return type(seen) is type(expected) and seen == expected


def _is_number(value: JsonValue) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first(found: Sequence[str]) -> tuple[str, ...]:
    more = len(found) - SHOWN_DIFFERENCES
    return (*found[:SHOWN_DIFFERENCES], *((f"and {more} more like these",) if more > 0 else ()))
