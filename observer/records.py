"""What is kept of answers, so that labels and drift reports can be about them. Where it is kept is not known here."""

from dataclasses import dataclass
from typing import Protocol

from contract.http import OWN_CALLER
from contract.own_answers import OwnAnswers
from observer.reading import Row, Said


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as those know it who label its answer."""

    id: str
    caller: str = OWN_CALLER  # the name of the key that it brought


class Records(Protocol):
    """Keeps answers and what is declared of their requests. It never waits, and a failure costs records only."""

    def expect(self, answers: OwnAnswers) -> None:
        """Say what answers are from now on, and what rows are made of: its `features`, then its `words`."""

    def record(self, version: str, asked: Asked, said: Said, row: Row, *, is_copy: bool = False) -> None:
        """Keep what an answer of `version` says, and the row of its request.

        Args:
            is_copy: no user got it. It is compared by its label with the answer that the user got, and is no row.
        """
