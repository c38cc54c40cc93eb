"""Records answers for the observer: in the table of answers and the prediction log, like a model's server."""

import time
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import orjson
from prometheus_client import CollectorRegistry

from contract.answer_types import Label
from contract.own_answers import NO_ANSWERS, OwnAnswers, label_of, number_of
from contract.prediction_log import LINE, Columns
from observer.labels import RecordMetrics
from observer.reading import Row, Said, is_right
from observer.records import Asked
from service.logs.answers import AnswerLog
from service.logs.segments import SegmentLog

_MOST_VERSIONS = 4  # with open files: stable, the canary, and earlier ones


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """The paths, size limit and key of the records."""

    answers: Path  # the folder of the answers table
    predictions: Path  # the folder of the prediction log
    predictions_bytes: int  # approximate limit of all versions together; 0: no prediction log
    key: bytes  # for the checksums in the table


class _RowLog(SegmentLog):
    """The prediction log of one version, for rows that are parsed already."""

    def record(self, row: Row, answer: bytes) -> None:
        """Log a row and its JSON answer. Never blocks."""
        if self._is_full:
            self._count_dropped(1)
        else:
            self._give(LINE % (time.time(), orjson.dumps({"features": [row]}), answer), 1)


@dataclass(slots=True)
class _Open:
    """The open files of one version."""

    answers: AnswerLog
    log: _RowLog | None = None
    opened: ExitStack = field(default_factory=ExitStack)


class KeptRecords:
    """The `Records` of an observer. Not thread-safe."""

    def __init__(self, settings: RecordSettings, registry: CollectorRegistry) -> None:
        self._settings, self._metrics = settings, RecordMetrics(registry)
        self.count_unknown = self._metrics.count_unknown
        self._expected = NO_ANSWERS
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def expect(self, answers: OwnAnswers) -> None:
        """See `Records`."""
        if (answers.features, answers.words) != (self._expected.features, self._expected.words):
            self.close()  # rows have new columns from now on
        self._expected = answers

    def truth(self, value: object) -> Label | None:
        """A caller's label in the form of the answers; None if no answer can have it."""
        has_labels, has_numbers = self._has_labels, self._has_numbers
        if has_numbers and not isinstance(value, str | bool):
            return number_of(value)
        return label_of(value) if has_labels else None

    @property
    def expected(self) -> str:
        """The accepted labels, in words; empty while no answers are read."""
        kinds = [("a label", self._has_labels), ("a finite number", self._has_numbers)]
        return " or ".join(words for words, is_expected in kinds if is_expected)

    @property
    def _has_labels(self) -> bool:
        return any(said.label is not None for said in self._expected.root.values())

    @property
    def _has_numbers(self) -> bool:
        return any(said.number is not None for said in self._expected.root.values())

    def record(self, version: str, asked: Asked, said: Said, row: Row, *, is_copy: bool = False) -> None:
        """See `Records`."""
        found = self._of(version)
        label = "" if said.label is None else said.label
        found.answers.record(asked.id, [label], body=b"", caller=asked.caller, is_copy=is_copy)
        if found.log and not is_copy:
            prediction = {"label": label, "confidence": said.confidence}
            answer = {"request_id": asked.id, "version": version, "predictions": [prediction]}
            found.log.record(row, orjson.dumps(answer))

    @property
    def table(self) -> AnswerLog | None:
        """A table that accepts feedback about any version; None until an answer was recorded."""
        return next(reversed(self._open.values())).answers if self._open else None

    def close(self) -> None:
        """Write buffered rows, and close all files."""
        while self._open:
            self._open.popitem()[1].opened.close()

    def _of(self, version: str) -> _Open:
        if version not in self._open:
            self._open[version] = self._opened(version)
            while len(self._open) > _MOST_VERSIONS:
                self._open.popitem(last=False)[1].opened.close()
        self._open.move_to_end(version)
        return self._open[version]

    def _opened(self, version: str) -> _Open:
        count, settings = self._metrics.of(version), self._settings
        answers = AnswerLog(
            settings.answers,
            version,
            count_feedback=count.of_labels.count_feedback,
            count_labels=count.of_labels.count_labels,
            count_disagreement=lambda **_: None,  # the observer compares whole answers
            count_pairs=count.of_labels.count_pairs,
            count_dropped=count.count_dropped,
            count_failure=partial(count.count_failure, "answers"),
            is_same=is_right,
            key=settings.key,
        )
        opened = _Open(answers)
        opened.opened.enter_context(answers)
        if settings.predictions_bytes:
            features, words = self._expected.features, self._expected.words
            opened.log = opened.opened.enter_context(
                _RowLog(
                    settings.predictions,
                    Columns(version=version, model="", features=(*features, *words), words=words, hashed=()),
                    max_bytes=settings.predictions_bytes,
                    count_dropped=count.count_rows_dropped,
                    count_failure=partial(count.count_failure, "predictions"),
                )
            )
        return opened
