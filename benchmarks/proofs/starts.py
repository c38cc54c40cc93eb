"""`python -m benchmarks starts`: how soon late harm is found with different priors over the window of its beginning.

All priors judge the same simulated counts. Kanaria's is the real one (`rollout.judge.starts`); the bets are placed here
for all releases at once, and a unit test compares them with the judge's.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.output import FOLDER, Out, Write
from benchmarks.proofs.cells import times
from benchmarks.proofs.sections import Scale, Section, page_command, publish, simulated
from rollout.format import share
from rollout.judge import JudgeConfig
from rollout.judge.starts import CHANGES, EVER, FIRST, Starts
from rollout.signals.catalogue import catalogue
from rollout.simulate.summary import quantile

PAGE = "start-prior.md"
HOUR = 720  # windows of 5 s
BASE = 0.01
_WINDOW_S = 5.0
_REQUESTS = 90, 10  # a window, on stable and on canary, on average
_RELEASES = 1000
_SEED = 1870
_CONFIG, _RULE = JudgeConfig(), catalogue().rules["errors"]
_MARGIN = _CONFIG.risk_budget / 10

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prior:
    """A distribution over the window in which harm begins."""

    name: str
    shares: Callable[[int, Sequence[int]], Numbers]  # (windows, the windows after a change of weight) -> (windows,)


@dataclass(frozen=True, slots=True)
class Case:
    """When harm begins in a release, in windows."""

    name: str
    begins: int
    changes: tuple[int, ...] = ()  # the windows before which the weight changes


def _kanaria(windows: int, changes: Sequence[int]) -> Numbers:
    starts, shares = Starts(), []
    for window in range(windows):
        if window in changes:
            starts.weight_changed()
        shares.append(math.exp(starts.log_next()))
    return np.array(shares)


def _an_hour(windows: int, changes: Sequence[int]) -> Numbers:  # noqa: ARG001 - the signature of a prior
    shares = np.where(np.arange(windows) < HOUR, 0.5 / HOUR, 0.0)
    shares[0] += 0.5
    return shares


def _log(windows: int, changes: Sequence[int]) -> Numbers:
    left = math.log(20) / np.log(np.arange(windows + 1) + 20)
    shares = EVER * (left[:-1] - left[1:])
    shares[0] += FIRST
    for number, at in enumerate(changes, 1):
        shares[at] += CHANGES * 2 / ((number + 1) * (number + 2))
    return shares


OURS = Prior("Kanaria", _kanaria)
PRIORS = (Prior("an hour", _an_hour), OURS, Prior("1/(t log² t)", _log))
CASES = (
    Case("from the start", 0),
    Case("after 3 min", 36),
    Case("after 30 min", HOUR // 2),
    Case("after 3 h", 3 * HOUR),
    Case("after 12 h", 12 * HOUR),
    Case("after 4 min, with the second change of weight", 48, (24, 48)),
    Case("after an hour, with the fourth", HOUR, (180, 360, 540, HOUR)),
)
_RATIOS = (0.05, 0.1, 0.5)

_TEXT = """
# When harm begins

Written by `{command}`.

The evidence of harm is a sum over every window in which the harm may have begun. A prior, fixed before the release,
weighs these windows. This page compares three priors on the same {releases} simulated releases: 2 of 20 requests a
second go to the canary, {base} of all requests fail until the harm begins, and only errors are judged.
A change of weight changes the prior here, not the traffic.

*An hour*: half on the first window, half spread over the 720 windows of the first hour, which is how long the default
plan lasts if each step takes its deadline; this was Kanaria's prior. *Kanaria*: {first} on the first window, {changes}
on the changes of weight, {ever} on all windows, falling like t^-1.5. *1/(t log² t)*: the same three shares, but the
last falls about as slowly as a prior can. The reasons: [decision 23](../decisions/0023-prior-on-the-start-of-harm.md).

Seconds from the first harmful window to FAIL: median / 90th percentile of the releases. *Ratio*: Kanaria's median over
that of *an hour*."""


def section(releases: int, command: str) -> Section:
    """The page's text and its table, simulated row by row."""
    names = [prior.name for prior in PRIORS]
    heads = ("harm begins", "canary fails", *names[:2], "ratio", *names[2:])
    shares = {"base": share(BASE), "first": share(FIRST), "changes": share(CHANGES), "ever": share(EVER)}
    return Section(_TEXT.format(command=command, releases=f"{releases:,}", **shares), heads, _rows(releases))


def _rows(releases: int) -> Iterator[Sequence[str]]:
    for case in CASES:
        for ratio in _RATIOS:
            found = [list(of_prior) for of_prior in failed_after_s(case, ratio, PRIORS, releases)]
            before, ours, *others = map(times, found)
            medians = [quantile(of_prior, 0.5).value for of_prior in found[:2]]
            compared = f"{medians[1] / medians[0]:.2f}" if math.isfinite(medians[0]) else ""
            yield case.name, share(ratio), before, ours, compared, *others


def failed_after_s(case: Case, ratio: float, priors: Sequence[Prior], releases: int) -> Numbers:
    """Seconds from the first harmful window to FAIL, for an hour at most; inf for never; shape (priors, releases).

    Args:
        ratio: share of the canary's requests that fail from `case.begins` on.
    """
    windows = case.begins + HOUR
    rng = np.random.default_rng((_SEED, case.begins, round(100 * ratio)))
    shares = np.stack([prior.shares(windows, case.changes) for prior in priors])[:, :, np.newaxis]
    left = 1 - shares.cumsum(axis=1)
    bets = np.zeros((len(priors), releases, len(_CONFIG.odds_ratios)))
    found_s = np.full((len(priors), releases), math.inf)
    for window in range(windows):
        is_harmful = window >= case.begins
        bets = (bets + shares[:, window, :, np.newaxis]) * _e_values(rng, ratio if is_harmful else BASE, releases)
        bets = np.minimum(bets, 1 / np.finfo(float).eps ** 4)  # far beyond FAIL, and no product overflows
        has_failed = bets.mean(axis=2) + left[:, window] >= 1 / _CONFIG.alpha
        if is_harmful:
            found_s[has_failed & np.isinf(found_s)] = _WINDOW_S * (window - case.begins + 1)
            if np.isfinite(found_s).all():
                break
    return found_s


def _e_values(rng: np.random.Generator, ratio: float, releases: int) -> Numbers:
    """`rare` of one window of each release, capped; shape (releases, odds ratios)."""
    stable, canary = (rng.poisson(mean, releases) for mean in _REQUESTS)
    return capped_e_values(rng.binomial(stable, BASE), stable, rng.binomial(canary, ratio), canary)


def capped_e_values(
    stable_bad: NDArray[np.int64], stable: NDArray[np.int64], canary_bad: NDArray[np.int64], canary: NDArray[np.int64]
) -> Numbers:
    """The formula of `rollout.judge.kernels.rare` for many windows, with the default rule of errors and cap."""
    odds = np.array(_CONFIG.odds_ratios)
    y, n_s, x, n_c = (counts[:, np.newaxis] for counts in (stable_bad, stable, canary_bad, canary))
    null = _RULE.tolerance * n_c / np.maximum(_RULE.tolerance * n_c + n_s, 1)
    inflation = 1 + null * (odds - 1)
    log_e = x * np.log(odds) - (x + y) * np.log(inflation) - _MARGIN * n_c * (odds - 1) * (1 - null) / inflation
    is_compared = (n_s > 0) & (n_c > 0)
    capped: Numbers = np.exp(np.where(is_compared, np.minimum(log_e, math.log(_CONFIG.window_cap)), 0.0))
    return capped


def starts(scale: Scale = 1.0, write: Write = False, out: Out = FOLDER) -> None:
    """Compare priors over the window in which harm begins: how soon is harm found?

    Prints the page as Markdown without `--write`.
    """
    releases = max(1, round(scale * _RELEASES))
    publish([simulated(section(releases, page_command("starts", scale)))], PAGE, out, write=write)
