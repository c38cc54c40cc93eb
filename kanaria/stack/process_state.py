"""What the keeper writes down about a program, in a file for each. Commands read it, so it imports little."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from kanaria.stack.identity import Identity, boot
from kanaria.stack.shortage import text_of


class ProcessState(BaseModel):
    """What is known of one program."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int = 0  # 0: no process now
    started_s: float = 0.0  # 0: nobody may look at it
    boot: str = ""  # of the machine, that it was started in; "": nobody knows
    starts: int = 0
    exits: int = 0  # how often it ended by itself
    exit_code: int | None = None  # when it did so last; negative: a signal; None: nobody knows
    stop_wait_s: float = 30.0
    stop_order: int = 50

    @property
    def identity(self) -> Identity | None:
        """None: it has no process; since the machine was started again, its number is another's."""
        if not self.pid or (self.boot and boot() not in ("", self.boot)):
            return None
        return Identity(self.pid, self.started_s)

    @property
    def is_alive(self) -> bool:
        """Raises OSError: nobody knows. A process that this user may not look at is taken for it."""
        try:
            return self.identity is not None and self.identity.is_alive
        except PermissionError:
            return True


def state_in(path: Path) -> ProcessState | None:
    """What such a file says; None where it is not there or cannot be read. Raises OSError where nobody knows."""
    try:
        return ProcessState.model_validate_json(text_of(path) or b"")
    except ValidationError:
        return None
