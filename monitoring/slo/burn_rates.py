"""Turns one objective into recording rules and multi-window, multi-burn-rate alerts.

Source: The Site Reliability Workbook, chapter 5, "Alerting on SLOs"; the recorded series are named as in Sloth.
Unlike there, every ratio, even that of the whole period, divides one sum of events by another: a mean of ratios
would count a quiet night as much as a busy day.
"""

from dataclasses import dataclass, field

from contract import metrics as m
from monitoring.slo.objectives import BurnWindow, ReleaseWindow, Slo, seconds

VALUE = "{{ $value | humanizePercentage }}"  # the alert's value; Prometheus fills it into the summary
PERIOD = "30d"
BASE = "5m"  # windows longer than LONGEST_RAW are sums of consecutive windows of this length
LONGEST_RAW = "6h"  # the longest window counted from raw counters; a longer one would read too many samples


@dataclass(frozen=True, slots=True)
class Recording:
    """A rule that stores the result of a query as a series."""

    record: str
    expr: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that notifies people or the controller."""

    alert: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    for_: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after another."""

    name: str
    rules: list[Recording | Alert] = field(default_factory=list)
    interval: str | None = None  # None: Prometheus's own


def slo_groups(name: str, slo: Slo) -> tuple[Group, ...]:
    """The rules of one objective: for the whole service, and by version if one version may be at fault."""
    whole, versions = _Level(name, slo), _Level(name, slo, by_version=True)
    windows = sorted({BASE, *(w for pair in (*slo.fast, *slo.slow) for w in (pair.long, pair.short))}, key=seconds)
    rules: list[Recording | Alert] = [rule for window in (*windows, PERIOD) for rule in whole.recordings(window)]
    rules += _budget(whole)
    rules.append(_burns(whole, slo.fast, speed="Fast", severity="page"))
    rules.append(_burns(whole, slo.slow, speed="Slowly", severity="ticket"))
    if slo.release is None:
        return (Group(f"kanaria-slo-{name}", rules, interval="30s"),)
    rules += versions.recordings(slo.release.compared_over)
    recent = [rule for window in (slo.release.short, slo.release.long) for rule in versions.recordings(window)]
    return (
        Group(f"kanaria-slo-{name}", rules, interval="30s"),
        Group(f"kanaria-slo-{name}-version", [*recent, _blamed(versions, slo.release)]),
    )


@dataclass(frozen=True, slots=True)
class _Level:
    """The events of one objective, in total or by version."""

    name: str
    slo: Slo
    by_version: bool = False

    def series(self, what: str, window: str) -> str:
        """The selector of a recorded series: `events`, `bad_events` or `ratio` over `window`."""
        has_version = ',version!=""' if self.by_version else ""
        return f'{self._record(what, window)}{{slo="{self.name}"{has_version}}}'

    def recordings(self, window: str) -> list[Recording | Alert]:
        """Events, bad events and their ratio over `window`. Without events there is no ratio."""
        ratio = f"{self.series('bad_events', window)} / ({self.series('events', window)} > 0)"
        if seconds(window) > seconds(LONGEST_RAW):
            events, bad = self._added_up("events", window), self._added_up("bad_events", window)
            ratio += f" or {self.series('ratio', BASE)}"  # while all events are too new to be summed
        else:
            events, bad = self._counted(self.slo.total, window), self._bad(window)
        exprs = {"events": events, "bad_events": bad, "ratio": ratio}
        return [Recording(self._record(what, window), expr, {"slo": self.name}) for what, expr in exprs.items()]

    def exceeds(self, burn: BurnWindow) -> str:
        """The ratio over the long window, if the budget burned and still burns too fast, with enough bad events."""
        still_burns = f"{self.series('ratio', burn.short)} > {self._limit(burn.burn_rate)}"
        return f"{self.exceeded(burn.long, burn.burn_rate)}\nand {still_burns}"

    def exceeded(self, window: str, burn_rate: float) -> str:
        """The ratio over `window`, if the budget burned faster than `burn_rate` and enough events were bad."""
        return (
            f"{self.series('ratio', window)} > {self._limit(burn_rate)}\n"
            f"and {self.series('bad_events', window)} >= {self.slo.min_bad_events}"
        )

    def _limit(self, burn_rate: float) -> str:
        return _number(burn_rate * self.slo.budget)

    def _record(self, what: str, window: str) -> str:
        level = "slo_version" if self.by_version else "slo"
        return f"{level}:sli_error:ratio_rate{window}" if what == "ratio" else f"{level}:{what}:increase{window}"

    def _added_up(self, what: str, window: str) -> str:
        # The subquery's steps are at whole multiples of BASE. Before the first step only the current value exists.
        return f"sum_over_time({self.series(what, BASE)}[{window}:{BASE}]) or {self.series(what, BASE)}"

    def _bad(self, window: str) -> str:
        # A counter of failures has no series before the first failure; until then, 0 events are bad.
        events = self._sum(self.series("events", window))
        if self.slo.bad is not None:
            return f"{self._counted(self.slo.bad, window)}\nor 0 * {events}"
        good = f"{self._counted(self.slo.good or '', window)}\nor 0 * {events}"
        return f"clamp_min({events} - (\n{good}\n), 0)"

    def _counted(self, selector: str, window: str) -> str:
        """New events of a counter, summed over its series."""
        # `increase` misses the events that a series already has when it first appears within the window, such as a new
        # version's first failures. If its target was up without it when the window began, all of its events are new.
        new = f"({selector} unless {selector} offset {window}) and on (job, instance) up offset {window} == 1"
        label, events = self.slo.version_label, f"\n{new}\nor increase({selector}[{window}])\n"
        if not self.by_version or label == "version":
            return self._sum(events)
        return self._sum(f'label_replace(sum by ({label}) ({events}), "version", "$1", "{label}", "(.+)")')

    def _sum(self, expr: str) -> str:
        return f"sum by (version) ({expr})" if self.by_version else f"sum({expr})"


def _budget(whole: _Level) -> list[Recording | Alert]:
    """The series of dashboards: the objective, how fast its budget burns now, and how much of it is left."""
    budget = _number(whole.slo.budget)
    exprs = {
        "slo:objective:ratio": f"vector({_number(whole.slo.objective)})",
        "slo:error_budget:ratio": f"vector({budget})",
        "slo:current_burn_rate:ratio": f"{whole.series('ratio', BASE)} / {budget}",
        "slo:period_burn_rate:ratio": f"{whole.series('ratio', PERIOD)} / {budget}",
        "slo:period_error_budget_remaining:ratio": f"1 - {whole.series('ratio', PERIOD)} / {budget}",
    }
    return [Recording(record, expr, {"slo": whole.name}) for record, expr in exprs.items()]


def _burns(whole: _Level, windows: tuple[BurnWindow, ...], *, speed: str, severity: str) -> Alert:
    slo = whole.slo
    spans = " or ".join(f"over {window.burn_rate:g} for {window.long}" for window in windows)
    return Alert(
        alert=f"Kanaria{_camel(whole.name)}BudgetBurns{speed}",
        expr="\nor\n".join(f"(\n{whole.exceeds(window)}\n)" for window in windows),
        labels={"severity": severity, "slo": whole.name},
        annotations={
            "summary": f"{VALUE} {slo.bad_means}; the objective allows {_percent(slo.budget)}",
            "description": f"The burn rate was {spans}, and still is; at 1 the budget lasts {PERIOD}.",
        },
    )


def _blamed(versions: _Level, burn: ReleaseWindow) -> Alert:
    """An alert if one version burns the budget and no other running version did: else a rollback would not help."""
    slo, exceeds = versions.slo, versions.exceeds(burn)
    guilty = f"((\n{exceeds}\n) or (\n{versions.exceeded(burn.compared_over, burn.burn_rate)}\n))"
    return Alert(
        alert=f"Kanaria{_camel(versions.name)}BurnedByVersion",
        expr=f"{exceeds}\nunless on (slo) count by (slo) (\n{guilty} and on (version) {m.VERSION_UP}\n) > 1",
        labels={"severity": "page", "slo": versions.name, "action": "rollback"},
        annotations={
            "summary": f"{{{{ $labels.version }}}}: {VALUE} {slo.bad_means}; the objective allows "
            f"{_percent(slo.budget)}",
            "description": "No other running version does so. A canary or a just promoted version is rolled back.",
        },
    )


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.4g}%"


def _number(value: float) -> str:
    return f"{value:.9g}"
