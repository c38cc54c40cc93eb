"""Numbers, shares, durations and evidence as people write them."""

import math
import re

_LEAST_BOUND = 1e-6  # "fewer than 0 %" is never true
_LOG_MANY = math.log(1e9 + 1)  # "at most once in" more than a billion says no more than a billion


def sentence(text: str) -> str:
    """A text with a capital letter first, unless it begins with a tag: `toy:v1` and `Toy:v1` are two versions."""
    first = text.partition(" ")[0]
    return text if ":" in first.rstrip(":,;") else text[:1].upper() + text[1:]


def count(number: float) -> str:
    """A whole number with thousands separators."""
    return f"{number:,.0f}"


def about(number: float) -> str:
    """An estimate, to two significant digits, and at least 1 of what there is."""
    return count(round(number, 1 - math.floor(math.log10(number))) if number >= 1 else math.ceil(number))


def at_most(number: float) -> str:
    """A bound on a whole number of things, rounded up."""
    return f"at most {count(math.ceil(number))}"


def share(ratio: float) -> str:
    """A ratio as a percentage with two significant digits, three from 10 %; 0 % and 100 % only for none and all."""
    percent = 100 * ratio
    if percent == 0 or abs(percent) >= 10:
        return certainty(1 - ratio) if 99.95 <= percent < 100 else f"{percent:.3g} %"
    decimals = 1 - math.floor(math.log10(abs(percent)))
    return f"{percent:.{decimals}f}".rstrip("0").rstrip(".") + " %"


def certainty(alpha: float) -> str:
    """1 - `alpha` as a percentage, with three significant digits of what is missing: never 100 %."""
    if alpha > 0.5:
        return share(1 - alpha)
    missing = max(100 * alpha, 1e-12)
    decimals = 2 - math.floor(math.log10(missing))
    return f"{100 - missing:.{decimals}f}".rstrip("0").rstrip(".") + " %"


def weight(percent: float) -> str:
    """A share of the traffic as it is set, to the hundredth of a percent."""
    return f"{round(percent, 2):g} %"


def share_up(ratio: float) -> str:
    """Like `share`, but rounded up and at most 100 %: for bounds, "fewer than", and so at least 0.0001 %."""
    ratio = max(ratio, _LEAST_BOUND)
    if ratio >= 1:
        return share(1.0)
    digit = 10.0 ** (math.floor(math.log10(ratio)) - 1)
    return share(math.ceil(ratio / digit - 1e-9) * digit)


def span(seconds: float) -> str:
    """A duration in its two largest units; 0 where a clock that was set back would make it negative."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole_s = round(seconds)
    if whole_s < 120:
        return f"{whole_s} s"
    large_s, small_s, large, small = (3600, 60, "h", "min") if whole_s >= 7200 else (60, 1, "min", "s")
    number, rest = divmod(round(whole_s / small_s), large_s // small_s)
    return f"{number} {large} {rest} {small}" if rest else f"{number} {large}"


def about_span(seconds: float) -> str:
    """An estimated duration, to two significant digits."""
    size_s, unit = (1, "s") if seconds < 100 else (60, "min") if seconds < 6000 else (3600, "h")
    return f"about {about(max(1.0, seconds / size_s))} {unit}"


def odds(log_e: float) -> str:
    """How rarely a harmless canary shows evidence this strong in a whole release (Ville's inequality)."""
    if log_e < math.log(2):
        return "most harmless canaries show as much"
    releases = int(math.exp(min(log_e, _LOG_MANY)))
    digit = 10 ** max(0, len(str(releases)) - 2)
    return f"a harmless canary shows this at most once in {count(releases // digit * digit)} releases"


def in_order(name: str) -> tuple[str | int, ...]:
    """A key by which `latency:50` comes before `latency:100`."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name))
