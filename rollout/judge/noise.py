"""How much noisier than independent requests the counts are: the dispersion `phi` that tempers all evidence.

The controller measures it on stable alone, before the release. Bursts, retries and slow periods of one arm's own
make events come in clusters, and no test that counts events can tell a cluster from harm: without phi, clusters of
four retries fail 17 % of healthy canaries; with it 0.3 %.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from rollout.judge.types import Pair, Window

_BLOCK_WINDOWS = (1, 4, 12)  # clusters longer than a window show only between longer blocks
_MIN_DIFFERENCES = 20  # fewer neighbours say too little about a block length
_MIN_BAD = 20  # with fewer bad events any number would be chance


def dispersion(history: Sequence[Window]) -> float:
    """Phi of one signal: variance of stable's counts over that of independent requests, at least 1.

    Compares neighbouring blocks only, so that a drifting base rate is not taken for noise; takes the noisiest of
    several block lengths. 1 where the history is too short or too good to tell: an assumption, not a finding.

    Args:
        history: stable's windows of one signal, oldest first; 10 to 30 minutes are enough.
    """
    counts = [window.stable for window in history if window.stable.total]
    if sum(pair.bad for pair in counts) < _MIN_BAD:
        return 1.0
    return max(1.0, *(_between_neighbours(_blocks(counts, length)) for length in _BLOCK_WINDOWS))


def user_dispersion(bad_per_user: Iterable[int]) -> float:
    """Phi of events that users repeat: sum of b^2 over sum of b, b the bad events of each of stable's users.

    For PASS, where a user's repeated failures are harm each time but not independent evidence.
    """
    bad = squares = 0
    for events in bad_per_user:
        bad += events
        squares += events * events
    return squares / bad if bad else 1.0


def _blocks(counts: Sequence[Pair], length: int) -> list[Pair]:
    ends = range(length, len(counts) + 1, length)
    return [sum(counts[end - length : end], Pair(0, 0)) for end in ends]


def _between_neighbours(blocks: Sequence[Pair]) -> float:
    """Squared differences of neighbouring ratios over their binomial mean; 0 for too few of them."""
    if len(blocks) <= _MIN_DIFFERENCES:
        return 0.0
    seen = expected = 0.0
    for a, b in pairwise(blocks):
        both = a + b
        ratio = both.bad / both.total
        seen += (a.bad / a.total - b.bad / b.total) ** 2 / (1 / a.total + 1 / b.total)
        expected += ratio * (1 - ratio) * both.total / (both.total - 1)
    return seen / expected if expected else 0.0
