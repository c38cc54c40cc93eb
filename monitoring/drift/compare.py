"""The two drift comparisons: traffic against the model's reference data, and a canary against stable.

Each reads samples, judges them by the rule and returns the result with the rows behind it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.column import Column
from monitoring.drift.reference import read_reference
from monitoring.drift.result import ColumnDrift, DriftResult, Kind, State
from monitoring.drift.rule import ERROR, Rule, find
from monitoring.drift.sample import draw
from monitoring.drift.truth import Answered, answered

MAX_ROWS = 5000  # on each side: many times what a distance of 0.1 needs
_STRATUM_S = 30.0  # a canary's rows are compared with the same number of stable's from the same half minute
_DRAWN_FOR_MATCHING = 4  # times MAX_ROWS, because not every row has a match


@dataclass(frozen=True, slots=True)
class Logs:
    """The folders to which the service writes."""

    predictions: Path
    answers: Path


@dataclass(frozen=True, slots=True)
class Period:
    """A period, Unix seconds."""

    since_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class Side:
    """The rows of one side of a comparison."""

    columns: Mapping[str, Column]
    answers: Answered

    @property
    def compared(self) -> dict[str, Column]:
        """Every column, and the mistakes. The rows with feedback are other rows, and their number differs."""
        return {**self.columns, ERROR: self.answers.mistakes}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A result and the rows behind it."""

    result: DriftResult
    reference: Side
    current: Side


def data_drift(logs: Logs, version: str, model_folder: Path, period: Period, rule: Rule) -> Comparison:
    """Compare the traffic to `version` with its model's reference data.

    Raises: NoLog, NoReference, AnswersUnreadable.
    """
    sample = draw(logs.predictions, version, period.since_s, period.until_s, rows=MAX_ROWS)
    reference = read_reference(model_folder)
    labelled = answered(logs.answers, version, period.since_s, period.until_s, requests=MAX_ROWS)
    return compared(
        "data",
        version,
        sample.model,
        period,
        rule,
        reference=Side(reference.columns, reference.answers),
        current=Side(sample.columns, labelled),
        logged=(sample.logged_requests, sample.logged_rows),
    )


def release_drift(logs: Logs, canary: str, stable: str, period: Period, rule: Rule, *, number: int = 1) -> Comparison:
    """Compare a canary with stable over the same minutes.

    Both get requests of the same users at random, so a change of the traffic affects both equally. While the canary's
    share of the traffic changes, its rows come from other minutes than stable's. So the same number of rows is taken
    from both sides in each half minute.

    Args:
        number: the 1-based number of this report about the release; all reports together keep the rule's alpha.

    Raises: NoLog, AnswersUnreadable.
    """
    drawn, truths = [], []
    for version in (stable, canary):
        drawn.append(
            draw(logs.predictions, version, period.since_s, period.until_s, rows=_DRAWN_FOR_MATCHING * MAX_ROWS)
        )
        truths.append(answered(logs.answers, version, period.since_s, period.until_s, requests=MAX_ROWS))
    kept = matched(drawn[0].at_s, drawn[1].at_s, most=MAX_ROWS)
    labelled = matched(truths[0].at_s, truths[1].at_s, most=MAX_ROWS)
    sides = [
        Side(sample.take(rows).columns, truth.take(known))
        for sample, rows, truth, known in zip(drawn, kept, truths, labelled, strict=True)
    ]
    return compared(
        "release",
        canary,
        stable,
        period,
        rule.for_report(number),
        reference=sides[0],
        current=sides[1],
        logged=(drawn[1].logged_requests, drawn[1].logged_rows),
        number=number,
    )


def matched(
    one_s: NDArray[np.float64], other_s: NDArray[np.float64], *, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of as many rows of one side as of the other from each half minute, at random, at most `most` in all."""
    random = np.random.default_rng(0)
    strata = [(side // _STRATUM_S).astype(np.int64) for side in (one_s, other_s)]
    kept: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for stratum in np.intersect1d(strata[0], strata[1]):
        places = [np.flatnonzero(side == stratum) for side in strata]
        count = min(map(len, places))
        for side, own in zip(kept, places, strict=True):
            side.append(random.choice(own, count, replace=False))
    pairs = [np.concatenate([np.zeros(0, np.int64), *side]) for side in kept]
    chosen = random.permutation(len(pairs[0]))[:most]
    return np.sort(pairs[0][chosen]), np.sort(pairs[1][chosen])


def compared(
    kind: Kind,
    version: str,
    against: str,
    period: Period,
    rule: Rule,
    *,
    reference: Side,
    current: Side,
    logged: tuple[int, int],
    number: int = 1,
) -> Comparison:
    """Judge two sides by the rule.

    Args:
        logged: requests and rows of `version` in the period, of which `current` is a sample.
        number: kept in the result; the alpha of `rule` already accounts for it.
    """
    before, after = reference.compared, current.compared
    findings = find(before, after, rule)
    main = next(iter(current.columns.values()), None)
    rows = len(main.values) if main else 0
    has_enough = any(finding.column != ERROR for finding in findings)
    state = State.TOO_FEW_ROWS
    if has_enough:
        state = State.DRIFT if any(finding.has_drifted for finding in findings) else State.NO_DRIFT
    return Comparison(
        DriftResult(
            kind=kind,
            version=version,
            against=against,
            state=state,
            at_s=time.time(),
            since_s=period.since_s,
            until_s=period.until_s,
            logged_requests=logged[0],
            logged_rows=logged[1],
            rows=rows,
            reference_rows=len(next(iter(reference.columns.values())).values) if reference.columns else 0,
            labelled_rows=len(current.answers),
            min_rows=rule.min_rows,
            min_requests=rule.min_requests,
            alpha=rule.alpha,
            look=number,
            columns=tuple(ColumnDrift.model_validate(finding) for finding in findings) if has_enough else (),
            left_out=_left_out(before, after, rule) if has_enough else (),
        ),
        reference,
        current,
    )


def _left_out(before: Mapping[str, Column], after: Mapping[str, Column], rule: Rule) -> tuple[str, ...]:
    """The columns that were not compared, with the reason."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            lines.append(f"`{name}` is {'new' if name not in before else 'no longer logged'}")
        elif not rule.has_enough(after[name]) or not rule.has_enough(before[name]):
            lines.append(f"`{name}`: {len(after[name].values):,} rows, {rule.min_rows:,} are needed")
    return tuple(lines)
