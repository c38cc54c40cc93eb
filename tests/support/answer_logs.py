"""Answer logs whose counts a test can read."""

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
        self.by_caller: Counter[str] = Counter()  # the same labels as `outcome caller`, where the caller is known

    def feedback(self, labels: Mapping[tuple[str, str], int]) -> None:
        self.counts.update(correct=0, wrong=0)
        for (outcome, caller), requests in labels.items():
            self.counts[outcome] += requests
            self._of(caller, outcome, requests)

    def labels(self, by_age: Mapping[tuple[float, str, str], int]) -> None:
        for (age_s, outcome, caller), requests in by_age.items():
            self.by_age[age_s, outcome] += requests
            self._of(caller, f"{outcome} at {age_s:.0f} s", requests)

    def disagreement(self, *, same: int, different: int) -> None:
        self.counts.update(same=same, different=different)

    def pairs(self, labels: Mapping[tuple[str, str], int]) -> None:
        self.paired.update(better=0, worse=0)
        for (outcome, caller), requests in labels.items():
            self.paired[outcome] += requests
            self._of(caller, outcome, requests)

    def _of(self, caller: str, outcome: str, requests: int) -> None:
        if caller:
            self.by_caller[f"{outcome} {caller}"] += requests

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


def learn(log: AnswerLog, request_id: str, *labels: Label, **told: str) -> Feedback:
    return asyncio.run(log.learn(request_id, labels, **told))
