"""Means and their difference in words, in their unit. Logarithms are converted back before they are shown."""

import math

from rollout.format import count, share
from rollout.judge.types import Difference, NumberRule, SignalJudgement


def value(number: float, rule: NumberRule) -> str:
    """One number, or a mean, with its unit."""
    return _with_unit(_digits(shown(number, rule)), rule)


def shown(number: float, rule: NumberRule) -> float:
    """A number in its unit; a logarithm is converted back."""
    return number if rule.per_tenfold is None else 10 ** ((number - rule.one) / rule.per_tenfold)


def moved(difference: float, rule: NumberRule) -> str:
    """How much more or less one mean is than another, in words."""
    more = "more" if difference > 0 else "less"
    if not difference:
        return "no more"
    if rule.per_tenfold is not None:
        return f"{share(abs(10 ** (difference / rule.per_tenfold) - 1))} {more}"
    return f"{_with_unit(_digits(abs(difference)), rule)} {more}"


def contrast(difference: Difference, rule: NumberRule, *, stable: str = "stable") -> str:
    """Both means, their difference, and the limits of the true difference."""
    if difference.stable is None or difference.canary is None:
        return "nothing to compare yet"
    seen = moved(difference.canary - difference.stable, rule)
    means = f"{value(difference.canary, rule)} on average, {value(difference.stable, rule)} on {stable}: {seen}"
    return f"{means} ({limits(difference, rule)})"


def said(judged: SignalJudgement, rule: NumberRule) -> str:
    """The finding of a signal that cannot FAIL, for a person; empty where it found nothing."""
    if not judged.difference or judged.decided_at_s is None or judged.threshold < math.inf:
        return ""
    return f"{contrast(judged.difference, rule)}; {allowed(rule)}. It does not affect the verdict"


def limits(difference: Difference, rule: NumberRule) -> str:
    """The limits of the true difference, in words."""
    width = rule.between[1] - rule.between[0]
    least = moved(difference.least, rule) if difference.least > -width else None
    most = moved(difference.most, rule) if difference.most < width else None
    if least and most:
        return f"between {least} and {most}"
    return f"at least {least}" if least else f"at most {most}" if most else "it may be chance"


def allowed(rule: NumberRule) -> str:
    """The harmless difference, in words."""
    if not rule.tolerance:
        return "no difference is allowed"
    return f"{moved(rule.upwards * rule.tolerance, rule)} is allowed"


def _with_unit(digits: str, rule: NumberRule) -> str:
    return f"{digits} {rule.unit}".rstrip()


def _digits(number: float) -> str:
    return count(number) if 1000 <= abs(number) < 1e15 else f"{number:.3g}"
