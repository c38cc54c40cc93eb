"""Releases in the words of a person: their signals, counts, times of day. Pure.

What the judge says by itself is in `judge.words`; here is what takes the release's plan and versions to say.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from rollout.judge import Pair
from rollout.judge import words as judge_words
from rollout.judge.words import SignalWords
from rollout.numerals import count, share
from rollout.spec import RolloutSpec


def signal_words(signal: str, spec: RolloutSpec, *, stable: str = "stable") -> SignalWords:
    """The words for `signal`, a name such as `errors`, `latency:100` or `class:7`."""
    words = judge_words.signal_words(signal)
    match signal.partition(":")[0]:
        case "low_confidence" if spec.signals.low_confidence:
            bound = share(spec.signals.low_confidence.below)
            return replace(words, title=f"confidence < {bound}", event=f"had a confidence under {bound}")
        case "disagreement":
            return replace(words, event=f"differ from {stable}'s")
        case _:
            return words


def tally(pair: Pair) -> str:
    """The counts behind a share."""
    return f"{count(pair.bad)} of {count(pair.total)}"


def slowness(slow: Mapping[int, float]) -> str:
    """The longest bound that some answers exceeded and the shortest that none did; `slow` is by bound, ms."""
    exceeded = [bound for bound, ratio in slow.items() if ratio]
    met = [bound for bound, ratio in slow.items() if not ratio]
    some = f", {share(slow[max(exceeded)])} slower than {max(exceeded)} ms" if exceeded else ""
    return some + (f", none slower than {min(met)} ms" if met else "")


def clock(at_s: float) -> str:
    """Time of day, UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%H:%M:%S}"


def date(at_s: float) -> str:
    """Date and time, UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def one_line(text: str) -> str:
    """`text` without line breaks, such as the last words of a process have."""
    return " ".join(text.split())
