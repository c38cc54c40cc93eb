"""Times of day and texts for a person, besides the numbers of `rollout.format`. It reads no clock.

It is separate from `rollout.format` because it needs `datetime`, which the deciding code must not import.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from rollout.format import count, share


def slowness(slow: Mapping[int, float]) -> str:
    """The longest bound that some answers exceeded, and the shortest that none did; `slow`: share by bound, ms."""
    exceeded = [bound for bound, ratio in slow.items() if ratio]
    met = [bound for bound, ratio in slow.items() if not ratio]
    some = f", {share(slow[max(exceeded)])} slower than {max(exceeded)} ms" if exceeded else ""
    return some + (f", none slower than {min(met)} ms" if met else "")


def rescued(saved: int) -> str:
    """How many requests failed at one version but for no user, in words."""
    if not saved:
        return ""
    return f", {count(saved)} that failed at one version {'was' if saved == 1 else 'were'} answered by the other"


def clock(at_s: float) -> str:
    """Time of day, UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%H:%M:%S}"


def date(at_s: float) -> str:
    """Date and time, UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def one_line(text: str) -> str:
    """`text` on one line: the output of a process may have line breaks."""
    return " ".join(text.split())
