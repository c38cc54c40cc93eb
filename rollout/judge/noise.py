"""How much noisier than independent requests the counts are: the dispersion `phi` that tempers all evidence.

It is measured on stable alone, before the release. Bursts, retries and slow periods that hit one version make events
come in clusters, and a test that counts events cannot tell a cluster from harm. Without phi, clusters of four retries
fail 12 % of healthy canaries, and bursts of half a minute 80 %; with phi at most 0.6 % (docs/benchmarks/noise.md).
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from rollout.judge.types import Numbers, Pair, Window

if TYPE_CHECKING:  # commands that only read must start quickly, so they load no library
    import numpy as np
    from numpy.typing import NDArray

BLOCKS_S = (5.0, 20.0, 60.0)  # clusters longer than a window show only between longer blocks
_MIN_BLOCKS = 10  # with fewer blocks of one length, its estimate is too uncertain
MIN_BAD = 20  # with fewer bad events, any estimate would be chance
_CHANCE_SDS = 2.0  # an excess over 1 of this many standard deviations is halved


def dispersion(history: Sequence[Window]) -> float:
    """Phi of one signal: variance of stable's counts over that of independent requests, at least 1.

    Only neighbouring blocks are compared, so that a drifting base rate does not count as noise. The result is the
    largest phi of several block lengths, each shrunk by what chance alone explains. It is 1 where the history is too
    short or has too few bad events; that is an assumption, not a finding.

    Args:
        history: stable's windows of one signal, oldest first; 10 to 30 minutes are enough.
    """
    windows = [window for window in history if window.stable.total]
    if sum(window.stable.bad for window in windows) < MIN_BAD:
        return 1.0
    window_s = fmean(window.window_s for window in windows)
    lengths = {1, *(max(1, round(block_s / window_s)) for block_s in BLOCKS_S)}
    sums = running_sums([window.stable for window in windows])
    return max(beyond_chance(sums, length) for length in lengths)


def user_dispersion(bad_per_user: Iterable[int]) -> float:
    """Phi of events that users repeat: sum of b^2 over sum of b, with b the bad events of one of stable's users.

    Used for PASS: each repeated failure of a user is harm, but not independent evidence.
    """
    bad = squares = 0
    for events in bad_per_user:
        bad += events
        squares += events * events
    return squares / bad if bad else 1.0


def running_sums(counts: Sequence[Pair | Numbers]) -> "NDArray[np.float64]":
    """Cumulative count of events, their sum and their sum of squares; shape (windows + 1, 3), the first row all 0.

    In pairs each bad event is a 1, and each other event a 0.
    """
    import numpy as np  # noqa: PLC0415 - commands that only read load no library

    table = np.array(counts, dtype=np.float64)  # for pairs: bad and all
    sums = np.zeros((len(table) + 1, 3))
    columns = table if counts and isinstance(counts[0], Numbers) else table.reshape(-1, 2)[:, [1, 0, 0]]
    np.cumsum(columns, axis=0, out=sums[1:])
    return sums


def beyond_chance(sums: "NDArray[np.float64]", length: int) -> float:
    """Phi between blocks of `length` windows, shrunk towards 1 where chance may explain it.

    The estimate has a variance of 4/3 (1 + 5 / (4 length^2)) over the number of blocks, whatever the rate: the variance
    of the mean of squares of a triangular filter, as for the overlapping Allan variance of white noise.

    Args:
        sums: see `running_sums`.
    """
    blocks = (len(sums) - 1) / length
    if blocks < _MIN_BLOCKS:
        return 1.0
    excess = max(0.0, _between_neighbours(sums, length) - 1)
    chance = _CHANCE_SDS**2 * 4 / 3 * (1 + 5 / (4 * length**2)) / blocks
    return 1 + excess**3 / (excess**2 + chance)


def _between_neighbours(sums: "NDArray[np.float64]", length: int) -> float:
    """Squared differences of the means of all neighbouring blocks, over their expectation for independent events.

    A block begins at every window. Source: Howe, Allan & Barnes 1981 (overlapping estimates, half of the variance).
    """
    import numpy as np  # noqa: PLC0415 - commands that only read load no library

    first, middle, end = sums[: -2 * length].T, sums[length:-length].T, sums[2 * length :].T
    a, b = middle[0] - first[0], end[0] - middle[0]
    difference = (middle[1] - first[1]) / a - (end[1] - middle[1]) / b
    mean = (end[1] - first[1]) / (a + b)
    scatter = np.maximum(0.0, (end[2] - first[2]) / (a + b) - mean * mean)
    seen = float((difference * difference / (1 / a + 1 / b)).sum())
    expected = float((scatter * (a + b) / (a + b - 1)).sum())
    return seen / expected if expected else 0.0
