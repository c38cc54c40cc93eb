"""The weather in which release tools are compared: what happens to real services while a release runs.

It does not depend on the tools.
"""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchmarks.judge.cases import Case
from benchmarks.judge.weather import SECONDS, Rates, Weather, World
from rollout.signals.options import Latency
from rollout.simulate.traffic import Behaviour

_RPS = 100.0
_BASE = 0.005  # error ratio of both versions unless a world says otherwise
_LOW = 0.001
_MINUTE_S, _HOUR_S = 60, 3600
_LEAK_S = 20 * _MINUTE_S
_MEDIAN_MS, _SPREAD = 60.0, 0.5  # log-normal; 0.2 % of the answers take over 250 ms, 2 % when cold
_SLOWER_COLD = 1.5

Maker = Callable[[np.random.Generator], Weather]


def _level(value: float) -> Rates:
    return np.full(len(SECONDS), value)


def _plus(ratios: Rates, excess: float) -> Rates:
    """Add failures of one version: this share of the requests that were good."""
    return np.asarray(ratios + (1 - ratios) * excess, dtype=np.float64)


def _is_within(start_s: float, seconds: float) -> NDArray[np.bool_]:
    return np.asarray((start_s <= SECONDS) & (start_s + seconds > SECONDS), dtype=np.bool_)


def _steady(base: float, canary: float | None = None, *, rps: float = _RPS, hanging: float = 0.0) -> Maker:
    ratio = base if canary is None else canary
    return lambda _: Weather(_level(rps), _level(base), _level(ratio), hanging=hanging)


def _shared(ratios: Callable[[np.random.Generator], Rates], excess: float = 0.0) -> Maker:
    """Both versions fail equally often, the canary with an additional excess."""

    def make(rng: np.random.Generator) -> Weather:
        stable = ratios(rng)
        return Weather(_level(_RPS), stable, _plus(stable, excess))

    return make


def _blips(rng: np.random.Generator) -> Rates:
    """A dependency of both: half of all requests fail for 3 s, about every 5 min."""
    starts_s = np.arange(SECONDS[0], SECONDS[-1], 5 * _MINUTE_S) + rng.integers(0, 5 * _MINUTE_S)
    is_blip = (SECONDS[:, np.newaxis] - starts_s >= 0) & (SECONDS[:, np.newaxis] - starts_s < 3)
    return np.where(is_blip.any(axis=1), 0.5, _LOW)


def _log_normal(rng: np.random.Generator) -> Rates:
    minutes = -(-len(SECONDS) // _MINUTE_S)
    ratios = np.minimum(0.5, _BASE * np.exp(rng.normal(size=minutes)))
    return np.asarray(np.repeat(ratios, _MINUTE_S)[: len(SECONDS)], dtype=np.float64)


def _cold_start(_: np.random.Generator) -> Weather:
    return Weather(_level(_RPS), _level(_LOW), np.where(_is_within(0, 30), 0.05, _LOW))


def _leak(since_s: Rates) -> Rates:
    return np.asarray(_LOW + (0.05 - _LOW) * np.clip(since_s / _LEAK_S, 0, 1), dtype=np.float64)


def _leak_at_once(_: np.random.Generator) -> Weather:
    return Weather(_level(_RPS), _level(_LOW), _leak(SECONDS.astype(np.float64)))


def _leak_at_full(_: np.random.Generator) -> Weather:
    since_s = np.arange(len(SECONDS), dtype=np.float64)
    return Weather(_level(_RPS), _level(_LOW), _level(_LOW), at_full=_leak(since_s))


def _own_bursts(rng: np.random.Generator) -> Weather:
    """Windows of 5 s whose ratios are beta-distributed: any two requests in one have a correlation of 0.01."""
    spread = (1 - 0.01) / 0.01
    ratios = rng.beta(_BASE * spread, (1 - _BASE) * spread, size=-(-len(SECONDS) // 5))
    return Weather(_level(_RPS), _level(_BASE), np.repeat(ratios, 5)[: len(SECONDS)])


def _cold_cache(_: np.random.Generator) -> Weather:
    return Weather(_level(_RPS), _level(0.0), _level(0.0), cold_requests=3000)


def _daily(rng: np.random.Generator) -> Weather:
    """The release begins within an hour of the peak; load makes both versions fail more."""
    from_peak = (SECONDS + rng.uniform(-_HOUR_S, _HOUR_S)) / (24 * _HOUR_S)
    load = 1 + 0.8 * np.cos(2 * np.pi * from_peak)
    ratios = 0.002 * load**2
    return Weather(_RPS * load, ratios, ratios)


def _silence(rng: np.random.Generator) -> Weather:
    is_silent = _is_within(rng.uniform(0, 6 * _MINUTE_S), 10 * _MINUTE_S)
    return Weather(np.where(is_silent, 0.0, _RPS), _level(_BASE), _level(_BASE))


def _route(rng: np.random.Generator) -> Weather:
    """A job calls one route for 15 s every 3 min: 5 % of all requests; the canary fails half of them."""
    is_called = (SECONDS + rng.integers(0, 180)) % 180 < 15
    share = 0.05 * 12  # of the requests while the job runs
    arrivals = np.where(is_called, _RPS * 0.95 / (1 - share), _RPS * 0.95)
    return Weather(arrivals, _level(_LOW), np.where(is_called, _LOW + share / 2, _LOW))


def _stable_restarts(rng: np.random.Generator) -> Weather:
    start_s = rng.uniform(20, 5 * _MINUTE_S)
    stable = np.where(_is_within(start_s, 8), 1.0, np.where(_is_within(start_s + 8, 20), 0.2, _BASE))
    return Weather(_level(_RPS), stable, _level(_BASE))


def _pulses(rng: np.random.Generator) -> Weather:
    is_pulse = (SECONDS + rng.integers(0, 30)) % 30 == 0
    return Weather(_level(_RPS), _level(_LOW), np.where(is_pulse, 1.0, _LOW))


def _dependency_deployed(rng: np.random.Generator) -> Rates:
    return np.where(rng.uniform(_MINUTE_S, 6 * _MINUTE_S) <= SECONDS, 2 * _BASE, _BASE)


def _slow_start(_: np.random.Generator) -> Weather:
    """As in the morning of a new service: next to no requests before the release."""
    arrivals = np.clip(_RPS * SECONDS / (30 * _MINUTE_S), 0.5, _RPS)
    return Weather(arrivals, _level(_BASE), _level(_BASE))


def _retry_storms(rng: np.random.Generator) -> Weather:
    """About every 10 min a dependency fails for 30 s and clients retry: three times the traffic, 40 % of it fails."""
    starts_s = rng.uniform(SECONDS[0], SECONDS[-1], size=rng.poisson(len(SECONDS) / (10 * _MINUTE_S)))
    is_storm = np.any([_is_within(start_s, 30) for start_s in starts_s], axis=0)
    ratios = np.where(is_storm, 0.4, _BASE)
    return Weather(np.where(is_storm, 3 * _RPS, _RPS), ratios, ratios)


def _latency(slower: float = 1.0) -> Behaviour:
    """Log-normal, at the bounds of the default plan."""
    times_ms = NormalDist(np.log(slower * _MEDIAN_MS), _SPREAD)
    return Behaviour(slow_ratios=tuple((bound, 1 - times_ms.cdf(np.log(bound))) for bound in Latency().slower_than_ms))


def _world(make: Maker, *, rps: float = _RPS, version: Behaviour | None = None, cold: Behaviour | None = None) -> World:
    version = version or Behaviour()
    return World(rps, version, version, weather=make, cold=cold or version)


WORLDS = (
    Case("clean", "0.5 % errors, no weather", _world(_steady(_BASE)), "healthy"),
    Case(
        "blips",
        "a dependency's blips: half of all requests fail for 3 s every 5 min",
        _world(_shared(_blips)),
        "healthy",
    ),
    Case("blips+30", "the same blips; the canary fails 30 % more", _world(_shared(_blips, 0.3)), "worse"),
    Case("blips+5", "the same blips; the canary fails 5 % more", _world(_shared(_blips, 0.05)), "worse"),
    Case("cold-start", "a cold canary: 5 % errors in its first 30 s, then 0.1 %", _world(_cold_start), "healthy"),
    Case("leak", "a leak from the first request: 0.1 to 5 % errors within 20 min", _world(_leak_at_once), "worse"),
    Case("leak-at-full", "the same leak, from when the canary has all the traffic", _world(_leak_at_full), "worse"),
    Case(
        "hangs",
        "2 % of the canary's requests hang until the gateway gives up after 10 s; 1,000 requests/s",
        _world(_steady(_LOW, hanging=0.02, rps=1000.0), rps=1000.0),
        "worse",
    ),
    Case("heavy", "20,000 requests/s, 0.1 % errors", _world(_steady(_LOW, rps=20_000.0), rps=20_000.0), "healthy"),
    Case(
        "heavy-x2",
        "20,000 requests/s, 0.1 % errors become 0.2 %",
        _world(_steady(_LOW, 2 * _LOW, rps=20_000.0), rps=20_000.0),
        "worse",
    ),
    Case(
        "log-normal",
        "an error ratio for each minute, log-normal around 0.5 %, sigma 1",
        _world(_shared(_log_normal)),
        "healthy",
    ),
    Case("few", "2 requests/s, 0.5 % errors", _world(_steady(_BASE, rps=2.0), rps=2.0), "healthy"),
    Case("own-bursts", "0.5 % errors; the canary's come in bursts, stable's do not", _world(_own_bursts), "healthy"),
    Case(
        "cold-cache",
        "a cold cache: the canary's first 3,000 answers take 1.5 times as long",
        _world(_cold_cache, version=_latency(), cold=_latency(_SLOWER_COLD)),
        "healthy",
    ),
    Case("daily", "around the daily peak, where both versions fail more", _world(_daily), "healthy"),
    Case("silence", "no request for 10 min, soon after the start", _world(_silence), "healthy"),
    Case(
        "route",
        "half of the requests to one route fail; a job calls it for 15 s every 3 min, 5 % of all requests",
        _world(_route),
        "worse",
    ),
    Case(
        "restart",
        "stable restarts within the first 5 min: 8 s down, 20 s at 20 % errors",
        _world(_stable_restarts),
        "healthy",
    ),
    Case("pulses", "the canary fails every request in 1 second of 30", _world(_pulses), "worse"),
    Case(
        "dependency",
        "a dependency's deploy doubles everybody's errors soon after the start",
        _world(_shared(_dependency_deployed)),
        "healthy",
    ),
    Case("slow-start", "traffic grows from 0.5 to 100 requests/s within 30 min", _world(_slow_start), "healthy"),
    Case(
        "storms",
        "retry storms: three times the traffic for 30 s about every 10 min, 40 % of it fails",
        _world(_retry_storms),
        "healthy",
    ),
)
