"""The state of a program that the keeper records, one file per program. Commands read it, so it imports little."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from kanaria.stack.identity import Identity, boot
from kanaria.stack.shortage import text_of


class ProcessState(BaseModel):
    """The state of one program."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int = 0  # 0: no process now
    started_s: float = 0.0  # as in `Identity`; 0: it is hidden from this user
    boot: str = ""  # the machine's boot in which it was started; "": unknown
    starts: int = 0
    exits: int = 0  # how often it ended by itself
    exit_code: int | None = None  # of the last exit; negative: a signal; None: unknown
    stop_wait_s: float = 30.0
    stop_order: int = 50

    @property
    def identity(self) -> Identity | None:
        """The process; None if it has none. After a restart of the machine its pid may be another process's."""
        if not self.pid or (self.boot and boot() not in ("", self.boot)):
            return None
        return Identity(self.pid, self.started_s)

    @property
    def is_alive(self) -> bool:
        """Whether the process lives. One that this user cannot inspect counts as it. Raises OSError if unknown."""
        try:
            return self.identity is not None and self.identity.is_alive
        except PermissionError:
            return True


def state_in(path: Path) -> ProcessState | None:
    """The state in the file `path`; None if it is missing or damaged. Raises OSError if that is unknown."""
    try:
        return ProcessState.model_validate_json(text_of(path) or b"")
    except ValidationError:
        return None
