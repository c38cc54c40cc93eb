"""Traffic whose rates change from second to second: arrivals and failures of both versions, as in real services.

Requests are independent given these rates. The caller passes the canary's share and gets the counts of a window. Sums
of the rates are stored, so that a window costs the same at any length. `worlds` lists the worlds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.judge.result import HORIZON_S
from rollout.control.calibration import HISTORY_S
from rollout.judge import Pair, Window
from rollout.simulate.traffic import Behaviour, Scenario, Traffic

TIMEOUT_S = 10  # after this time the gateway answers a request that hangs
SECONDS = np.arange(-int(HISTORY_S), int(HORIZON_S) + 60)  # since the canary's first request

_HARM_AT_FULL_S = 3600.0
_WEATHER = 3  # added to the seed of a release for its weather, which is the same for all tools
_STABLE_HAS_LITTLE = 0.5  # a canary with more than this share has all the traffic, or all but the holdback

Rates = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Weather:
    """The rates of one release's traffic; arrays have one entry for each of `SECONDS`."""

    arrivals: Rates  # requests a second to both versions together, on average
    stable: Rates  # ratio of its requests that fail, 0 to 1
    canary: Rates  # ratio of the canary's requests that fail
    at_full: Rates | None = None  # the canary's ratio after it got all the traffic, one entry for each second from then
    hanging: float = 0.0  # ratio of the canary's requests that hang, and fail after `TIMEOUT_S`
    cold_requests: int = 0  # number of the canary's first requests, which it answers as in `World.cold`


@dataclass(frozen=True, slots=True, kw_only=True)
class World(Scenario):
    """Traffic under weather: `stable` and `canary` give the latency only."""

    weather: Callable[[np.random.Generator], Weather]
    cold: Behaviour = field(default_factory=Behaviour)


def traffic_of(scenario: Scenario, seed: tuple[int, ...]) -> Traffic:
    """The traffic of one release. The same arguments give the same traffic."""
    return WeatherTraffic(scenario, seed) if isinstance(scenario, World) else Traffic(scenario, seed)


class WeatherTraffic(Traffic):
    """The traffic of one release in a world. Harm is counted up to the horizon."""

    def __init__(self, world: World, seed: tuple[int, ...]) -> None:
        super().__init__(world, seed)
        self._world = world
        self._weather = world.weather(np.random.default_rng((*seed, _WEATHER)))
        self._arrivals = _Sum(self._weather.arrivals)
        self._failed_on_stable = _Sum(self._weather.arrivals * self._weather.stable)
        self._full_s: float | None = None
        self._cold_left = self._weather.cold_requests
        self._spans: list[_Span] = []
        self._expect(self._weather.canary)

    def window(
        self,
        weight: float,
        *,
        mirror: bool = False,
        seconds: float | None = None,
        compare: float = 0.0,  # noqa: ARG002 - no answers are simulated, so there is nothing to compare
    ) -> tuple[Window, ...]:
        self._note_full(weight)
        start_s, window_s = self.elapsed_s, self.scenario.window_s if seconds is None else seconds
        self._note_span(1.0 if mirror else weight, start_s + window_s, mirror=mirror)
        to_stable, to_canary = (1.0, 1.0) if mirror else (1 - weight, weight)
        stable = self._counts(to_stable, self._failed_on_stable, start_s, window_s)
        canary = self._counts(to_canary, self._failed_on_canary, start_s, window_s, is_canary=True)
        self.skip(window_s)
        return _tick(stable, canary, self.now_s, window_s)

    def history(self, seconds: float) -> dict[str, list[Window]]:
        window_s = self.scenario.window_s
        by_signal: dict[str, list[Window]] = {}
        for start_s in np.arange(-seconds, 0, window_s):
            stable = self._counts(1.0, self._failed_on_stable, float(start_s), window_s)
            silent = dict.fromkeys(stable, Pair(0, 0))
            for window in _tick(stable, silent, self.now_s + float(start_s) + window_s, window_s):
                by_signal.setdefault(window.signal, []).append(window)
        return by_signal

    def harmed(self, weight: float, seconds: float) -> float:
        self._note_full(weight)
        start_s, end_s = self.elapsed_s, min(self._harm_ends_s, self.elapsed_s + seconds)
        if end_s <= start_s:
            return 0.0
        requests = weight * self._arrivals.between(start_s, end_s)
        cold = min(self._cold_left, requests) * self._world.cold.harm_over(self._world.stable)
        return weight * self._harm.between(start_s, end_s) + cold

    @property
    def _harm_ends_s(self) -> float:
        """When harm stops counting. Harm that begins at full traffic counts for the same time, however late it is."""
        if self._full_s is None or self._weather.at_full is None:
            return HORIZON_S
        return min(HORIZON_S, self._full_s + _HARM_AT_FULL_S)

    def _note_full(self, weight: float) -> None:
        """Start what begins at full traffic, if the canary has it now."""
        at_full = self._weather.at_full
        if self._full_s is None and weight > _STABLE_HAS_LITTLE:
            self._full_s = self.elapsed_s
            if at_full is not None:
                began = round(self._full_s) - int(SECONDS[0])
                ratios = self._weather.canary.copy()
                ratios[began:] = at_full[: len(ratios) - began]
                self._expect(ratios)

    def _expect(self, ratios: Rates) -> None:
        """The canary's own failures from now on."""
        weather = self._weather
        at_once = ratios * (1 - weather.hanging)
        self._failed_on_canary = _Sum(weather.arrivals * at_once)
        self._harm = _Sum(weather.arrivals * np.maximum(0.0, at_once + weather.hanging - weather.stable))

    def _note_span(self, share: float, end_s: float, *, mirror: bool) -> None:
        """Remember the canary's share up to `end_s`, for the requests that hang."""
        last = self._spans[-1] if self._spans else None
        if last and last.is_mirror and not mirror:
            last = None
            self._spans.clear()  # unanswered copies are never counted
        if last and last.share == share:
            last.end_s = end_s
        else:
            self._spans.append(_Span(share, last.end_s if last else self.elapsed_s, end_s, is_mirror=mirror))

    def _counts(
        self, share: float, failed: "_Sum", start_s: float, window_s: float, *, is_canary: bool = False
    ) -> dict[str, Pair]:
        """Bad and all events of each signal of one version in a window."""
        end_s, hanging = start_s + window_s, self._weather.hanging if is_canary else 0.0
        bad, requests = share * failed.between(start_s, end_s), share * self._arrivals.between(start_s, end_s)
        late = hanging * sum(self._arrived(span, start_s, end_s) for span in self._spans) if hanging else 0.0
        answered = max(0.0, requests * (1 - hanging) - bad)
        # One at a time: an array of three takes twice as long.
        failed_now, successes, timeouts = (int(self._rng.poisson(mean)) for mean in (bad, answered, late))
        errors = Pair(failed_now + timeouts, failed_now + successes + timeouts)
        return {"errors": errors, **self._slow(successes, is_canary=is_canary)}

    def _arrived(self, span: "_Span", start_s: float, end_s: float) -> float:
        """Requests of the canary in the span that would time out in the window, on average."""
        first_s, last_s = max(span.start_s, start_s - TIMEOUT_S), min(span.end_s, end_s - TIMEOUT_S)
        return span.share * self._arrivals.between(first_s, last_s) if last_s > first_s else 0.0

    def _slow(self, answered: int, *, is_canary: bool) -> dict[str, Pair]:
        """Slower answers and all answers, by bound; failures are quick and do not count."""
        world = self._world
        if not world.stable.slow_ratios:
            return {}
        cold = min(self._cold_left, answered) if is_canary else 0
        self._cold_left -= cold
        slow = [0] * len(world.stable.slow_ratios)
        for requests, version in ((cold, world.cold), (answered - cold, world.canary if is_canary else world.stable)):
            left, share = requests, 1.0
            for place, (_, ratio) in enumerate(version.slow_ratios):
                left = int(self._rng.binomial(left, ratio / share))
                slow[place] += left
                share = ratio
        return {
            f"latency:{bound}": Pair(late, answered)
            for (bound, _), late in zip(world.stable.slow_ratios, slow, strict=True)
        }


def failures(windows: tuple[Window, ...], slower_than_ms: int | None) -> tuple[Pair, Pair]:
    """Failed and all requests of stable and canary; with a limit, slower answers fail, too."""
    by_signal = {window.signal: window for window in windows}
    errors, late = by_signal.get("errors"), by_signal.get(f"latency:{slower_than_ms}")
    if errors is None:
        return Pair(0, 0), Pair(0, 0)
    if late is None:
        return errors.stable, errors.canary
    return errors.stable + Pair(late.stable.bad, 0), errors.canary + Pair(late.canary.bad, 0)


def _tick(stable: Mapping[str, Pair], canary: Mapping[str, Pair], end_s: float, window_s: float) -> tuple[Window, ...]:
    """The windows of all signals that have any events."""
    return tuple(
        Window(end_s, window_s, signal, pair, canary[signal])
        for signal, pair in stable.items()
        if pair.total or canary[signal].total
    )


@dataclass(slots=True)
class _Span:
    """A time in which the canary's share did not change, seconds since its first request."""

    share: float
    start_s: float
    end_s: float
    is_mirror: bool


class _Sum:
    """Integrates a rate that is constant within each of `SECONDS` over any time."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates.tolist()
        self._before = np.concatenate(([0.0], np.cumsum(rates))).tolist()

    def between(self, start_s: float, end_s: float) -> float:
        """The integral from `start_s` to `end_s`, seconds since the canary's first request."""
        return max(0.0, self._until(end_s) - self._until(start_s))

    def _until(self, at_s: float) -> float:
        at = min(max(0.0, at_s - float(SECONDS[0])), len(self._rates) - 1e-9)
        whole = int(at)
        return float(self._before[whole] + (at - whole) * self._rates[whole])
