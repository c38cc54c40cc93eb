"""`python -m benchmarks callers`: what one caller's labels can do to a release, and what it costs to prevent it.

The judge is the real one; labels are simulated and seeded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.output import FOLDER, Out, Write
from benchmarks.proofs.sections import Scale, Section, page_command, publish, simulated
from rollout.format import share
from rollout.judge import Pair, Verdict, Window
from rollout.judge.judge import Judge
from rollout.judge.types import BothPairs
from rollout.signals.options import WrongLabel
from rollout.signals.plan import Signals
from rollout.simulate.summary import quantile
from rollout.spec import RolloutSpec

PAGE = "callers.md"
_WINDOW_S = 5.0
_WINDOWS = 240  # twenty minutes
_LABELS = 100  # a window, half of them about each version
_STABLE = 0.05  # wrong answers of stable
_RELEASES = 20
_SEED = 1953

_LIARS = """
# What one caller's labels can do

Written by `{command}`.

Labels of 20 requests a second for 20 minutes at a weight of 50 %. Stable is wrong in 5 %. {releases} releases a row.
Only labels are judged (`wrong_label`). *Before*: all labels count together. *Now*: a rollback must hold without the
labels of any one caller. If callers disagree, a person is asked and the release is held until then. Times are medians
of the releases in which this happened.

## A caller who lies

The caller calls all answers of a good canary wrong and none of stable's, or the other way round for a bad canary."""

_HONEST = """
## Nobody lies

What the protection costs: harm counts as proven only when it is proven without each single caller. *Wrong for one of
five*: the canary is wrong for one caller alone, in 30 % of that caller's requests."""

_HEADS = ("callers", "canary", "before: rolled back", "now: rolled back", "a person is asked first")


@dataclass(frozen=True, slots=True)
class World:
    """The callers, and what their labels say."""

    shares: tuple[float, ...]  # of the labels, by caller
    canary: float = _STABLE  # share of its answers that is wrong
    lies: bool | None = None  # the last caller calls the canary wrong (True) or right (False), and stable the opposite
    harmed: float | None = None  # share of the first caller's answers of the canary that is wrong


def equal(callers: int, liar: float | None = None) -> tuple[float, ...]:
    """The shares of this many callers; the last one has the share `liar`, if given."""
    if liar is None:
        return (1 / callers,) * callers
    return (*((1 - liar) / (callers - 1),) * (callers - 1), liar)


LIARS = tuple(
    World(equal(callers, liar), canary, lies=canary == _STABLE)
    for callers, liar in ((5, 0.02), (5, 0.1))
    for canary in (_STABLE, 0.1, 0.15)
)
HONEST = (
    *(World(equal(callers), canary) for callers in (3, 5) for canary in (_STABLE, 0.1, 0.15)),
    *(World(equal(20), canary) for canary in (0.1, 0.15)),
    *(World(shares, 0.1) for shares in ((0.6, 0.1, 0.1, 0.1, 0.1), (0.9, 0.05, 0.05))),
    World(equal(5), harmed=0.3),
)


@dataclass(frozen=True, slots=True)
class End:
    """How one release ended; None: this did not happen."""

    rolled_back_s: float | None
    asked_s: float | None  # when a person was asked, before the rollback


def ended(world: World, seed: Sequence[int], *, by_caller: bool) -> End:
    """One release.

    Args:
        by_caller: whether the judge knows who sent which labels.
    """
    rng, asked_s = np.random.default_rng(seed), None
    config = RolloutSpec(signals=Signals.model_validate({"wrong_label": WrongLabel()})).judge_config()
    judge = Judge(replace(config, rules={"wrong_label": config.rules["wrong_label"]}))
    for number in range(1, _WINDOWS + 1):
        window = _window(world, rng, _WINDOW_S * number)
        judge.observe([window if by_caller else replace(window, callers=None)])
        judgement = judge.judgement(next_weight=None)
        if judgement.verdict is Verdict.FAIL and judgement.on_fail == "rollback":
            return End(window.end_s, asked_s)
        if judgement.verdict is Verdict.FAIL and asked_s is None:
            asked_s = window.end_s
    return End(None, asked_s)


def _window(world: World, rng: np.random.Generator, end_s: float) -> Window:
    """Each version's labels, distributed over callers at random."""
    said: list[list[Pair]] = []
    for wrong, is_canary in ((_STABLE, False), (world.canary, True)):
        totals = rng.multinomial(rng.poisson(_LABELS / 2), world.shares).tolist()
        ratios = [wrong] * len(totals)
        if is_canary and world.harmed is not None:
            ratios[0] = world.harmed
        if world.lies is not None:
            ratios[-1] = float(world.lies == is_canary)
        bad = rng.binomial(totals, ratios).tolist()
        said.append([Pair(*counts) for counts in zip(bad, totals, strict=True)])
    stable, canary = (sum(pairs, Pair(0, 0)) for pairs in said)
    callers = {f"caller-{place}": BothPairs(*pairs) for place, pairs in enumerate(zip(*said, strict=True))}
    return Window(end_s, _WINDOW_S, "wrong_label", stable, canary, callers=callers)


def sections(releases: int, command: str) -> Iterator[Section]:
    """The page's texts and tables, simulated row by row."""
    yield Section(_LIARS.format(command=command, releases=releases), _HEADS, _rows(LIARS, releases))
    yield Section(_HONEST, _HEADS, _rows(HONEST, releases))


def _rows(worlds: Sequence[World], releases: int) -> Iterator[Sequence[str]]:
    for place, world in enumerate(worlds):
        cells = []
        for by_caller in (False, True):
            ends = [ended(world, (_SEED, place, number), by_caller=by_caller) for number in range(releases)]
            cells.append(_often([end.rolled_back_s for end in ends]))
        yield _callers(world), _canary(world), *cells, _often([end.asked_s for end in ends])


def _callers(world: World) -> str:
    if world.lies is not None:
        return f"{len(world.shares)}, one with {share(world.shares[-1])} lies"
    is_equal = world.shares[0] == world.shares[-1]
    return f"{len(world.shares)}" + ("" if is_equal else f", one has {share(world.shares[0])} of the labels")


def _canary(world: World) -> str:
    if world.harmed is not None:
        return "wrong for one of five"
    return "good" if world.canary == _STABLE else f"wrong in {share(world.canary)}"


def _often(times_s: Sequence[float | None]) -> str:
    """How often it happened, and after how long."""
    known = [time_s for time_s in times_s if time_s is not None]
    ratio = share(len(known) / len(times_s))
    return f"{ratio}, {quantile(known, 0.5).value:.0f} s" if known else ratio


def callers(scale: Scale = 1.0, write: Write = False, out: Out = FOLDER) -> None:
    """Simulate what one caller's labels can do to a release, and what it costs to prevent it.

    Prints the page as Markdown without `--write`.
    """
    releases = max(1, round(scale * _RELEASES))
    publish(map(simulated, sections(releases, page_command("callers", scale))), PAGE, out, write=write)
