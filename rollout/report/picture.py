"""What a picture is, and the numbers and words that pictures share. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go

from rollout.judge import Pair
from rollout.judge.words import share_of
from rollout.report.look import CANARY, STABLE
from rollout.view import ReleaseView, SignalSeries
from rollout.wording import signal_words, tally


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with the words that stand under it and for it."""

    key: str
    title: str
    caption: str
    figure: go.Figure
    legend: tuple[tuple[str, str], ...]  # (name, colour); in HTML it fits any width
    height: int  # CSS pixels
    is_wide: bool = False


def arms(release: ReleaseView, series: SignalSeries) -> tuple[tuple[str, list[Pair], str], ...]:
    """Name, counts and colour of stable and of canary."""
    return (release.stable, series.stable, STABLE), (release.canary, series.canary, CANARY)


def both(release: ReleaseView) -> tuple[tuple[str, str], ...]:
    """A legend of the two versions."""
    return (release.stable, STABLE), (release.canary, CANARY)


def total(pairs: Iterable[Pair]) -> Pair:
    """All events of all pairs."""
    return sum(pairs, Pair(0, 0))


def totals(series: SignalSeries) -> tuple[Pair, Pair]:
    """All events of stable and of canary."""
    return total(series.stable), total(series.canary)


def ratio(pair: Pair) -> float:
    """Share of bad events, 0 to 1; 0 of nothing."""
    return pair.bad / pair.total if pair.total else 0.0


def compared(release: ReleaseView, signal: str, series: SignalSeries) -> str:
    """Both versions' counts of a signal in one sentence."""
    words = signal_words(signal, release.spec)
    stable, canary = totals(series)
    return (
        f"{tally(canary)} {words.unit} of {release.canary} {words.event} ({share_of(canary)}), "
        f"{tally(stable)} of {release.stable} ({share_of(stable)})."
    )
