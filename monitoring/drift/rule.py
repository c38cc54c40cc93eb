"""The rule for drift: columns in, findings out. Nothing else decides what counts as drift.

A column has drifted if its distance is large enough to matter and, corrected for the number of columns (Benjamini and
Hochberg 1995), too large for chance. Significance alone would flag every column once there are enough rows; distance
alone would flag every small sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from monitoring.drift.column import Column, Difference, difference
from monitoring.drift.result import Direction

ERROR = "error"  # the column of known mistakes: 1 or 0 for a label, the absolute error of a number


@dataclass(frozen=True, slots=True)
class Rule:
    """When a column counts as drifted."""

    threshold: float = 0.1  # the least distance of a drifted column: a tenth of its rows would have to change
    error_threshold: float = 0.05  # the same for mistakes, for which a smaller change matters
    alpha: float = 0.001  # probability that a report finds any drift if nothing changed
    min_rows: int = 100  # on each side
    min_requests: int = 20  # of these rows; fewer do not show how alike the rows of one request are

    def threshold_of(self, column: str) -> float:
        return self.error_threshold if column == ERROR else self.threshold

    def for_report(self, number: int) -> "Rule":
        """The rule for report `number` (from 1) of a series of reports that must together keep `alpha`."""
        alpha = self.alpha / (number * (number + 1))
        return Rule(self.threshold, self.error_threshold, alpha, self.min_rows, self.min_requests)

    def has_enough(self, column: Column) -> bool:
        return len(column.values) >= self.min_rows and len(np.unique(column.request)) >= self.min_requests


@dataclass(frozen=True, slots=True)
class Finding:
    """The rule's finding about one column."""

    column: str
    score: float  # distance, 0-1; higher is worse
    threshold: float
    p_value: float  # corrected for the number of columns
    direction: Direction
    says: str
    has_drifted: bool


def find(reference: Mapping[str, Column], current: Mapping[str, Column], rule: Rule) -> tuple[Finding, ...]:
    """Judge every column that has enough rows on both sides. Returns the findings, worst first."""
    differences = {
        name: difference(reference[name], current[name])
        for name in current
        if name in reference and rule.has_enough(reference[name]) and rule.has_enough(current[name])
    }
    if not differences:
        return ()
    corrected = stats.false_discovery_control([found.p_value for found in differences.values()], method="bh")
    findings = (
        _finding(name, found, float(p_value), rule)
        for (name, found), p_value in zip(differences.items(), corrected, strict=True)
    )
    return tuple(sorted(findings, key=lambda finding: (not finding.has_drifted, -finding.score, finding.column)))


def _finding(name: str, found: Difference, p_value: float, rule: Rule) -> Finding:
    threshold = rule.threshold_of(name)
    is_harm = name != ERROR or found.direction == "up"  # fewer mistakes need no warning
    return Finding(
        column=name,
        score=found.distance,
        threshold=threshold,
        p_value=p_value,
        direction=found.direction,
        says=found.says,
        has_drifted=is_harm and found.distance >= threshold and p_value <= rule.alpha,
    )
