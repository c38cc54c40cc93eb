"""What is kept of answers for labels and drift reports. This module does not know where it is kept."""

from dataclasses import dataclass
from typing import Protocol

from contract.http import OWN_CALLER
from contract.own_answers import OwnAnswers
from observer.reading import Row, Said


@dataclass(frozen=True, slots=True)
class Asked:
    """The identity of a request, as used by feedback about its answer."""

    id: str
    caller: str = OWN_CALLER  # the name of the request's key


class Records(Protocol):
    """Keeps answers and the declared values of their requests. It never waits; a failure loses only records."""

    def expect(self, answers: OwnAnswers) -> None:
        """Declare what answers mean from now on. Rows consist of its `features`, then its `words`."""

    def record(self, version: str, asked: Asked, said: Said, row: Row, *, is_copy: bool = False) -> None:
        """Keep what an answer of `version` says, and the row of its request.

        Args:
            is_copy: no user got the answer. Its label is compared with the user's answer; no row is kept.
        """
