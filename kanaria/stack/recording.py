"""Makes the gateway copy users' requests to the observer for a while, which records some of them."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import httpx
import structlog
from prometheus_client.parser import text_string_to_metric_families

from contract import loopback
from contract import metrics as m
from contract.http import METRICS_PATH
from contract.recorded import MOST_PER_ROUTE, RecordedFolder, RecordedRequest, Recording, route_key
from kanaria.errors import SetupError, StackError
from kanaria.settings import Settings
from kanaria.stack.locks import holder, locked
from kanaria.stack.observer_program import OBSERVER, ObserverProgram
from kanaria.stack.supervision import Supervisor
from rollout.fleet import Service
from rollout.routers.envoy import admin
from rollout.routers.envoy.observation import NOT_RECORDED_PERCENT
from rollout.routers.envoy.settings import GatewaySettings

log = structlog.get_logger()

_LOCK = "recording.lock"
_POLL_S = 0.25
_TIMEOUT_S = 2.0
_PREFLIGHT, _BEFORE_A_RELEASE_S = "a preflight", 10.0
_ENDS_S = 1.0  # for requests that are on their way to the observer
_WHY = {
    m.UNWRITTEN_REQUEST: "that could not be written (see logs/observer.log in the state folder)",
    m.KNOWN: "that are recorded already",
    m.TOO_LARGE: "whose body is too large",
    m.PRIVATE: "with a key or a token in their path or query",
    m.UNSUCCESSFUL: "that were not answered with success",
    m.CUT_REQUEST: "that did not reach the observer in full",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of a recording."""

    by_route: dict[str, int]  # number of recorded requests, by route
    outcomes: dict[str, int]  # number of all requests that were looked at, by `metrics.RECORDED`

    @property
    def count(self) -> int:
        return sum(self.by_route.values())

    def left_out(self) -> tuple[str, ...]:
        """Why requests were not recorded, in words."""
        return tuple(
            f"requests {why}: {self.outcomes[outcome]}" for outcome, why in _WHY.items() if self.outcomes[outcome]
        )


def recordable_routes(service: Service, leave_out: Collection[str] = ()) -> tuple[str, ...]:
    """The routes whose requests can be recorded: those whose answers come as a whole."""
    return tuple(route.path for route in service.answers_whole if route.path not in leave_out)


def record(
    settings: Settings,
    service: Service,
    *,
    for_s: float,
    share_percent: int = 100,
    leave_out: tuple[str, ...] = (),
    enough: int = MOST_PER_ROUTE,
    doing: str = "kanaria record",
    say: Callable[[str], None] = lambda _: None,
) -> Recorded:
    """Record requests for `for_s` seconds, or until there are `enough` new ones of each route.

    Args:
        share_percent: share of the requests that are looked at, 1 to 100.
        doing: what this process does, for the messages of other processes.
        say: prints which preflight this one waits for.

    Raises: StackError if nothing can be recorded, also while another process records: the first to finish would stop
        the other's recording. A preflight records for seconds only, so this waits for it.
    """
    with _alone(settings, doing, say):
        routes, folder = recordable_routes(service, leave_out), RecordedFolder(settings.recorded)
        observer = _observer(settings)
        before, outcomes = {file.number for file in folder.files()}, _outcomes(observer)
        deadline_s = time.monotonic() + for_s
        try:
            folder.begin(Recording(until_s=time.time() + for_s + _ENDS_S, leave_out=leave_out))
        except OSError as error:
            raise StackError(
                "nothing can be recorded", saw=f"{error.filename}: {error.strerror}", do="make room on that disk"
            ) from error
        try:
            _set_share(settings, share_percent)
            while time.monotonic() < deadline_s:
                new = _new(folder, before)
                if all(new[route_key(route)] >= enough for route in routes):
                    break
                time.sleep(min(_POLL_S, max(0.0, deadline_s - time.monotonic())))
            _set_share(settings, 0)
            time.sleep(_ENDS_S if not _new(folder, before) else _POLL_S)
        except BaseException:
            with suppress(OSError):
                folder.end()
            with suppress(StackError):  # the first error is the one to report
                _set_share(settings, 0)
            raise
        folder.end()
        new, now = _new(folder, before), _outcomes(observer)
        return Recorded(
            {route: new[route_key(route)] for route in routes}, {each: now[each] - outcomes[each] for each in now}
        )


def end_left_behind(settings: Settings) -> None:
    """End a recording whose process was killed: its lock is free, and the gateway still copies requests."""
    folder = RecordedFolder(settings.recorded)
    if not folder.is_recording or holder(settings.root / _LOCK):
        return
    with suppress(StackError, OSError), _alone(settings, "the controller"):
        _set_share(settings, 0)
        folder.end()
        log.warning("recording_ended", reason="what recorded was killed")


@contextmanager
def _alone(settings: Settings, doing: str, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Keep others from recording. Raises StackError if another process records for longer than a preflight does."""
    lock = settings.root / _LOCK
    other = holder(lock)
    ends_soon = other is not None and other.doing == _PREFLIGHT != doing
    wait_s = 2 * _BEFORE_A_RELEASE_S if ends_soon else 0.0
    with ExitStack() as held:
        try:
            held.enter_context(locked(lock, doing=doing, wait_s=wait_s, say=say))
        except StackError as error:
            raise StackError(
                "requests are being recorded already",
                saw=error.saw,
                do="wait until it has ended: everyone uses the same recorded requests",
            ) from error
        yield


def to_replay(
    settings: Settings, stable: Service, *, leave_out: Collection[str]
) -> tuple[list[tuple[int, RecordedRequest]], list[str]]:
    """The recorded requests by number, without those of `leave_out`, and remarks for a person.

    If a route of stable has none and the stack runs, some are recorded first, for at most `_BEFORE_A_RELEASE_S`.
    """
    folder, said = RecordedFolder(settings.recorded), []
    known = {file.route_key for file in folder.files()}
    routes = recordable_routes(stable, leave_out)
    if settings.is_up and not all(route_key(route) in known for route in routes):
        try:
            record(settings, stable, for_s=_BEFORE_A_RELEASE_S, leave_out=tuple(leave_out), enough=1, doing=_PREFLIGHT)
        except StackError as error:
            said.append(f"no requests could be recorded: {error.what} ({error.saw})")
    found = list(folder.requests())
    if damaged := [str(number) for number, request in found if request is None]:
        said.append(
            f"recorded requests that are not used, because their files were damaged or changed: {', '.join(damaged)}"
        )
    wanted = [(number, request) for number, request in found if request and request.route not in leave_out]
    missing = sorted(set(routes) - {request.route for _, request in wanted})
    if missing:
        said.append(
            f"no request to {', '.join(missing)} is recorded: `kanaria record` keeps some while users send them"
        )
    return wanted, said


def _new(folder: RecordedFolder, before: Collection[int]) -> Counter[str]:
    return Counter(file.route_key for file in folder.files() if file.number not in before)


def _observer(settings: Settings) -> str:
    program = Supervisor(settings.root, settings.logs).program(OBSERVER) if settings.is_up else None
    if program is None:
        up = (
            "this stack has no observer: its versions keep the model contract"
            if settings.is_up
            else "no stack runs here"
        )
        raise SetupError(
            "there is nothing to record from",
            saw=up,
            do="nothing: a model of the contract has its own golden requests"
            if settings.is_up
            else "start it: `kanaria up TAG`",
        )
    return ObserverProgram.address_of(program)


def _outcomes(observer: str) -> Counter[str]:
    """The number of requests by outcome since the start of the observer."""
    with loopback.client(f"http://{observer}", timeout_s=_TIMEOUT_S, keeps_connections=False) as client:
        try:
            page = client.get(METRICS_PATH).raise_for_status().text
        except httpx.HTTPError as error:
            raise StackError(
                "the observer does not answer", saw=str(error), do="run `kanaria processes restart observer`"
            ) from error
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
    named = [sample for sample in samples if sample.name == m.OBSERVER_RECORDED.name]
    return Counter({sample.labels["outcome"]: int(sample.value) for sample in named})


def _set_share(settings: Settings, percent: int) -> None:
    """Make the gateway copy that share of the requests. Raises StackError."""
    gateway = GatewaySettings(directory=settings.root / "gateway")
    value = str(100 - percent) if percent else ""  # an empty one is removed
    with admin.client(gateway, timeout_s=_TIMEOUT_S) as client:
        try:
            client.post("/runtime_modify", params={NOT_RECORDED_PERCENT: value}).raise_for_status()
        except httpx.HTTPError as error:
            is_refused = isinstance(error, httpx.HTTPStatusError)
            raise StackError(
                "the gateway does not copy requests to the observer",
                saw="it was started by an earlier version" if is_refused else str(error) or type(error).__name__,
                do="see `kanaria status`; after an upgrade, `kanaria down` and `kanaria up`",
            ) from error
