"""How much noisier than independent requests the counts are: the dispersion `phi` that tempers all evidence.

It is measured on stable alone, before the release. Bursts, retries and slow periods that hit one version make events
come in clusters, and no test that counts events can tell a cluster from harm: without phi, clusters of four retries
fail 18 % of healthy canaries and bursts of half a minute 88 %; with it at most 0.2 % (docs/benchmarks/noise.md).
"""

from collections.abc import Iterable, Sequence
from statistics import fmean

from rollout.judge.types import Numbers, Pair, Window

BLOCKS_S = (5.0, 20.0, 60.0)  # clusters longer than a window show only between longer blocks
_MIN_BLOCKS = 10  # fewer say too little about a block length
MIN_BAD = 20  # with fewer bad events any number would be chance
_CHANCE_SDS = 2.0  # an excess over 1 of this many standard deviations is halved


def dispersion(history: Sequence[Window]) -> float:
    """Phi of one signal: variance of stable's counts over that of independent requests, at least 1.

    Compares neighbouring blocks only, so that a drifting base rate does not count as noise. Takes the noisiest of
    several block lengths, each less what chance alone explains. 1 where the history is too short or has too few bad
    events: an assumption, not a finding.

    Args:
        history: stable's windows of one signal, oldest first; 10 to 30 minutes are enough.
    """
    windows = [window for window in history if window.stable.total]
    if sum(window.stable.bad for window in windows) < MIN_BAD:
        return 1.0
    window_s = fmean(window.window_s for window in windows)
    lengths = {1, *(max(1, round(block_s / window_s)) for block_s in BLOCKS_S)}
    counts = [window.stable for window in windows]
    return max(beyond_chance(counts, length) for length in lengths)


def user_dispersion(bad_per_user: Iterable[int]) -> float:
    """Phi of events that users repeat: sum of b^2 over sum of b, b the bad events of each of stable's users.

    For PASS: each repeated failure of a user is harm, but not independent evidence.
    """
    bad = squares = 0
    for events in bad_per_user:
        bad += events
        squares += events * events
    return squares / bad if bad else 1.0


def beyond_chance(counts: Sequence[Pair | Numbers], length: int) -> float:
    """Phi between blocks of `length` windows, shrunk towards 1 where chance may well explain it.

    Their estimate has a variance of 4/3 (1 + 5 / (4 length^2)) over the number of blocks, whatever their rate: that of
    the mean of squares of a triangular filter, as for the overlapping Allan variance of white noise.
    """
    blocks = len(counts) / length
    if blocks < _MIN_BLOCKS:
        return 1.0
    excess = max(0.0, _between_neighbours(counts, length) - 1)
    chance = _CHANCE_SDS**2 * 4 / 3 * (1 + 5 / (4 * length**2)) / blocks
    return 1 + excess**3 / (excess**2 + chance)


def _between_neighbours(counts: Sequence[Pair | Numbers], length: int) -> float:
    """Squared differences of the means of all neighbouring blocks over their mean for independent events.

    Blocks begin at every window. Source: Howe, Allan & Barnes 1981 (overlapping estimates, half of the variance).
    """
    import numpy as np  # noqa: PLC0415 - commands that only look load no library

    table = np.array(counts, dtype=np.float64)  # of pairs: bad and all; each bad event is a 1
    columns = table if isinstance(counts[0], Numbers) else table[:, [1, 0, 0]]
    total, sums, squares = np.insert(columns, 0, 0.0, axis=0).cumsum(axis=0).T
    first, middle, end = (slice(at, len(counts) - 2 * length + 1 + at) for at in (0, length, 2 * length))
    a, b = total[middle] - total[first], total[end] - total[middle]
    difference = (sums[middle] - sums[first]) / a - (sums[end] - sums[middle]) / b
    mean = (sums[end] - sums[first]) / (a + b)
    scatter = np.maximum(0.0, (squares[end] - squares[first]) / (a + b) - mean * mean)
    seen = float((difference * difference / (1 / a + 1 / b)).sum())
    expected = float((scatter * (a + b) / (a + b - 1)).sum())
    return seen / expected if expected else 0.0
