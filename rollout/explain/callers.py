"""The labels of a release by caller, so that a person sees whose labels differ from the others'."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rollout.format import count
from rollout.judge import Pair, Window
from rollout.judge.words import tally

_SIGNALS = {"wrong_label": "wrong by label", "paired_label": "wrong where only one of the two is right"}
_MOST = 6  # callers that are named


def labels_by_caller(ticks: Iterable[Sequence[Window]], *, canary: str, stable: str) -> tuple[str, ...]:
    """One sentence for each signal that counts labels; none where one caller sent all, or the callers are not known.

    Args:
        ticks: the windows of each tick.
        canary: tag of the canary.
        stable: tag of stable.
    """
    counts: defaultdict[str, defaultdict[str, list[Pair]]] = defaultdict(lambda: defaultdict(lambda: [Pair(0, 0)] * 2))
    for window in (window for windows in ticks for window in windows):
        for caller, pairs in (window.callers or {}).items():
            before = counts[window.signal][caller]
            counts[window.signal][caller] = [one + more for one, more in zip(before, pairs, strict=True)]
    return tuple(
        _sentence(title, counts[signal], canary, stable)
        for signal, title in _SIGNALS.items()
        if len(counts[signal]) > 1
    )


def _sentence(title: str, callers: dict[str, list[Pair]], canary: str, stable: str) -> str:
    named = sorted(callers.items(), key=lambda item: -sum(pair.total for pair in item[1]))
    parts = [
        f"`{caller}` {tally(of_canary)} and {tally(of_stable)}" for caller, (of_stable, of_canary) in named[:_MOST]
    ]
    others = len(named) - _MOST
    rest = f"; and {count(others)} more" if others > 0 else ""
    return f"{title[0].upper()}{title[1:]}, of {canary} and of {stable}, by caller: {'; '.join(parts)}{rest}."
