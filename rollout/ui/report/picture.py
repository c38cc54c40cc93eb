"""The type of a picture, and the numbers and words that pictures share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from rollout.explain.timeline import SignalTick, Timeline
from rollout.judge import Pair
from rollout.judge.words import share_of, tally
from rollout.ui.report.style import CANARY, STABLE


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with its title and caption."""

    key: str
    title: str
    caption: str
    figure: go.Figure
    legend: tuple[tuple[str, str], ...]  # (name, colour); written in HTML, where it fits any width
    height: int  # CSS pixels
    is_wide: bool = False


def arms(release: Timeline, ticks: Sequence[SignalTick]) -> tuple[tuple[str, list[Pair], str], ...]:
    """Name, counts and colour of stable and of canary."""
    stable, canary = [tick.window.stable for tick in ticks], [tick.window.canary for tick in ticks]
    return (release.stable, stable, STABLE), (release.canary, canary, CANARY)


def both(release: Timeline) -> tuple[tuple[str, str], ...]:
    """A legend of the two versions."""
    return (release.stable, STABLE), (release.canary, CANARY)


def total(pairs: Iterable[Pair]) -> Pair:
    """All events of all pairs."""
    return sum(pairs, Pair(0, 0))


def totals(ticks: Sequence[SignalTick]) -> tuple[Pair, Pair]:
    """All events of stable and of canary."""
    return total(tick.window.stable for tick in ticks), total(tick.window.canary for tick in ticks)


def ratio(pair: Pair) -> float:
    """Share of bad events, 0 to 1; 0 without events."""
    return pair.bad / pair.total if pair.total else 0.0


def compared(release: Timeline, signal: str, ticks: Sequence[SignalTick]) -> str:
    """Both versions' counts of a signal in one sentence."""
    words = release.spec.words(signal)
    stable, canary = totals(ticks)
    return (
        f"{tally(canary)} {words.unit} of {release.canary} {words.event} ({share_of(canary)}), "
        f"{tally(stable)} of {release.stable} ({share_of(stable)})."
    )
