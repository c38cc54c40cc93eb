"""What the benchmark asks a release tool: which weight it wants, and what it decided.

Tools see only error counts.
"""

from typing import Literal, Protocol

from rollout.judge import Pair

Outcome = Literal["promoted", "rolled_back", "held"]  # held: it waits for a person


class Tool(Protocol):
    """One release, from the canary's first request to an outcome."""

    @property
    def weight_percent(self) -> int:
        """Canary share of the traffic from now on, 0 to 100."""

    def observe(self, elapsed_s: float, stable: Pair, canary: Pair) -> Outcome | None:
        """Take in the next window of errors and do what is due.

        Args:
            elapsed_s: end of the window, seconds since the canary's first request.
            stable: failed of all requests in the window.
            canary: the same of the canary.

        Returns: the outcome, once there is one; after that the tool is not asked again.
        """
