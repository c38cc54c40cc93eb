"""Answer logs whose counts a test reads."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.answer_types import Label
from service.logs.answers import AnswerLog, Feedback

BODY = b"a request's body"


class Tally:
    """Counts what an AnswerLog reports."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.by_age: Counter[tuple[float, str]] = Counter()
        self.paired: Counter[str] = Counter()

    def feedback(self, *, correct: int, wrong: int) -> None:
        self.counts.update(correct=correct, wrong=wrong)

    def labels(self, by_age: Mapping[tuple[float, str], int]) -> None:
        self.by_age.update(by_age)

    def disagreement(self, *, same: int, different: int) -> None:
        self.counts.update(same=same, different=different)

    def pairs(self, *, better: int, worse: int) -> None:
        self.paired.update(better=better, worse=worse)

    def dropped(self, answers: int) -> None:
        self.counts.update(dropped=answers)

    def failed(self) -> None:
        self.counts.update(failed=1)


def open_log(folder: Path, version: str, tally: Tally, **options: Any) -> AnswerLog:
    return AnswerLog(
        folder,
        version,
        count_feedback=tally.feedback,
        count_labels=tally.labels,
        count_disagreement=tally.disagreement,
        count_pairs=tally.pairs,
        count_dropped=tally.dropped,
        count_failure=tally.failed,
        **options,
    )


def learn(log: AnswerLog, request_id: str, *labels: Label) -> Feedback:
    return asyncio.run(log.learn(request_id, labels))
