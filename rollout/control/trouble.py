"""Consecutive failed beats of the control loop: what people read, and when traffic returns to stable."""

from contract.errors import KanariaError

# Failed beats before people read of it. A beat takes at least half a second; fewer failures are usual while a keeper or
# a gateway is restarted.
SAID_AFTER = 5
# Failed beats, half a minute without a judgement, before the canary's traffic goes back to stable.
RETURNED_AFTER = 60


class Trouble:
    """Counts the failures since the last successful beat."""

    def __init__(self) -> None:
        self.beats = 0  # failed beats in a row
        self._why = ""

    def failed(self, error: Exception) -> bool:
        """Count one more failed beat. Returns whether it failed in another way than the beat before."""
        before, self.beats = self._why, self.beats + 1
        if isinstance(error, KanariaError):
            self._why = f"{error.what}: {error.saw}"
        else:
            self._why = f"{type(error).__name__}: {error}"
        return self.beats == 1 or self._why != before

    def over(self) -> None:
        """Note a successful beat."""
        self.beats = 0

    @property
    def sentence(self) -> str | None:
        """The message for people; None while the failure may be short."""
        return f"the controller cannot work: {self._why}" if self.beats >= SAID_AFTER else None

    @property
    def must_return(self) -> bool:
        """Whether a canary must not keep its traffic any longer."""
        return self.beats >= RETURNED_AFTER
