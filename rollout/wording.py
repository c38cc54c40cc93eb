"""Numbers, times and signals in the words of a person; everything readable about a release is worded here. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rollout.judge import Pair
from rollout.spec import RolloutSpec

_LOG_MANY = math.log(1e9 + 1)  # more than a billion says no more than a billion


@dataclass(frozen=True, slots=True)
class SignalWords:
    """How to speak of one signal: "3 of 812 `unit` `event`"."""

    title: str
    unit: str
    event: str


def signal_words(signal: str, spec: RolloutSpec, *, stable: str = "stable") -> SignalWords:
    """The words for `signal`, a name such as `errors`, `latency:100` or `class:7`."""
    family, _, key = signal.partition(":")
    match family:
        case "errors":
            return SignalWords("errors", "requests", "failed")
        case "affected_users":
            return SignalWords("users affected", "requests", "were the first failure of their user")
        case "latency":
            return SignalWords(f"slower than {key} ms", "requests", f"took longer than {key} ms")
        case "class":
            return SignalWords(f'predicted "{key}"', "predictions", f'were "{key}"')
        case "low_confidence" if spec.signals.low_confidence:
            bound = share(spec.signals.low_confidence.below)
            return SignalWords(f"confidence < {bound}", "predictions", f"had a confidence under {bound}")
        case "wrong_label":
            return SignalWords("wrong by label", "labelled predictions", "were wrong")
        case "disagreement":
            return SignalWords("unlike stable", "answers to copied requests", f"differ from {stable}'s")
        case _:
            return SignalWords(signal, "events", f"were `{signal}`")


def count(number: float) -> str:
    """A whole number with thousands separators."""
    return f"{number:,.0f}"


def about(number: float) -> str:
    """An estimate, to two significant digits."""
    return count(round(number, 1 - math.floor(math.log10(number))) if number >= 1 else number)


def share(ratio: float) -> str:
    """A ratio as a percentage with two significant digits, three from 10 %."""
    percent = 100 * ratio
    if percent == 0 or abs(percent) >= 10:
        return f"{percent:.3g} %"
    decimals = 1 - math.floor(math.log10(abs(percent)))
    return f"{percent:.{decimals}f}".rstrip("0").rstrip(".") + " %"


def share_up(ratio: float) -> str:
    """The same rounded up, and at most 100 %: for bounds, "fewer than"."""
    if not 0 < ratio < 1:
        return share(min(ratio, 1.0))
    digit = 10.0 ** (math.floor(math.log10(ratio)) - 1)
    return share(math.ceil(ratio / digit - 1e-9) * digit)


def share_of(pair: Pair) -> str:
    """The share that `bad` has in `total`."""
    return share(pair.bad / pair.total) if pair.total else "none yet"


def tally(pair: Pair) -> str:
    """The counts behind a share."""
    return f"{count(pair.bad)} of {count(pair.total)}"


def slowness(slow: Mapping[int, float]) -> str:
    """The longest bound that some answers exceeded and the shortest that none did; `slow` is by bound, ms."""
    exceeded = [bound for bound, ratio in slow.items() if ratio]
    met = [bound for bound, ratio in slow.items() if not ratio]
    some = f", {share(slow[max(exceeded)])} slower than {max(exceeded)} ms" if exceeded else ""
    return some + (f", none slower than {min(met)} ms" if met else "")


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole_s = round(seconds)
    if whole_s < 120:
        return f"{whole_s} s"
    large_s, small_s, large, small = (3600, 60, "h", "min") if whole_s >= 7200 else (60, 1, "min", "s")
    number, rest = divmod(round(whole_s / small_s), large_s // small_s)
    return f"{number} {large} {rest} {small}" if rest else f"{number} {large}"


def clock(at_s: float) -> str:
    """Time of day, UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%H:%M:%S}"


def date(at_s: float) -> str:
    """Date and time, UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def odds(log_e: float) -> str:
    """How rarely a harmless canary shows evidence this strong in a whole release (Ville's inequality)."""
    if log_e < math.log(2):
        return "most harmless canaries show as much"
    releases = int(math.exp(min(log_e, _LOG_MANY)))
    digit = 10 ** max(0, len(str(releases)) - 2)
    return f"a harmless canary shows this at most once in {count(releases // digit * digit)} releases"


def one_line(text: str) -> str:
    """`text` without line breaks, such as the last words of a process have."""
    return " ".join(text.split())
