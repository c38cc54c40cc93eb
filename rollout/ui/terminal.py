"""The terminal output of `kanaria status` and `release --wait`; `terminal_reports` has that of `why` and `history`.

It fits 80 columns and is complete without colour. It takes finished views and fetches nothing.
"""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rollout.explain.format import clock, one_line, rescued, slowness
from rollout.fleet import Health
from rollout.format import count, span, weight
from rollout.judge import Pair, Verdict
from rollout.judge.words import share_of
from rollout.ui.views import ClientsView, DecisionView, ReleaseStatus, SignalView, StatusView, VersionView, strongest

_STEP_MARKS = {"done": ("✔", "green"), "current": ("▶", "bold yellow"), "left": ("✖", "red"), "next": ("·", "dim")}
_VERDICT_MARKS = {
    Verdict.PASS: ("✔", "green"),
    Verdict.FAIL: ("✖", "bold red"),
    Verdict.NO_DATA: ("?", "magenta"),
    Verdict.INCONCLUSIVE: ("…", "yellow"),
}


def status(view: StatusView) -> RenderableType:
    """Everything at a glance, like `kubectl argo rollouts get rollout --watch`."""
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right", style="dim")
    head.add_row(Text(view.name, style="bold"), f"{clock(view.at_s)} UTC")
    troubles = [Text(f"! {trouble}", style="bold red") for trouble in view.troubles]
    parts: list[RenderableType] = [head, *troubles, _versions(view)]
    if view.release:
        parts += ["", *_release(view.release)]
    else:
        parts += ["", Text("no release yet; start one with `kanaria release TAG`", style="dim")]
    if view.clients:
        parts += ["", _clients(view.clients)]
    if view.quarantined:
        again = "`kanaria why TAG` says why, `kanaria retry TAG` puts it on trial again"
        parts += ["", Text(f"in quarantine: {', '.join(view.quarantined)}; {again}", style="dim")]
    if view.release:
        parts += ["", *map(decision, view.release.decisions)]
    return Group(*parts)


def _versions(view: StatusView) -> Table:
    table = Table.grid(padding=(0, 2))
    for role, version, colour in (("stable", view.stable, "blue"), (view.canary_role, view.canary, "yellow")):
        if version is not None:
            table.add_row(
                Text(f" {role}", style=colour), Text(version.tag), _health(version), *_weight(version, colour)
            )
    return table


def _health(version: VersionView) -> Text:
    match Health(version.health):
        case Health.READY if version.restarts:
            return Text(f"✔ ready, workers lost: {version.restarts}", style="yellow")
        case Health.READY:
            return Text("✔ ready", style="green")
        case Health.STARTING if version.preparing:
            return Text("… creating its environment", style="yellow")
        case Health.STARTING:
            return Text("… starting", style="yellow")
        case health:
            return Text(f"✖ {health.value}", style="bold red")


def _weight(version: VersionView, colour: str) -> tuple[Text, Text]:
    if version.weight_percent is None:
        return Text("?" * 3, style="dim"), Text("weight unknown", style="magenta")
    share_of_bar = Text("copies" if version.is_mirrored else f"{weight(version.weight_percent):>5}")
    return _bar(version.weight_percent / 100, width=25, style=colour), share_of_bar


def _release(release: ReleaseStatus) -> list[RenderableType]:
    phase = release.outcome.replace("_", " ") if release.outcome else "paused" if release.is_paused else release.phase
    title = Text.assemble(f"release {release.number}: {release.canary} against {release.stable}, ", (phase, "bold"))
    parts: list[RenderableType] = [Rule(title, align="left", style="dim"), _steps(release), "", Text(release.sentence)]
    if release.earlier:
        parts.append(Text(f"It {release.earlier}.", style="dim"))
    if asked := release.asked:
        reason = f"since {clock(asked.since_s)} UTC it waits for a person: {one_line(asked.reason)}"
        parts += [Text(reason, style="bold yellow"), Text(asked.by_itself, style="yellow")]
    elif release.deadline_s is not None and not release.is_paused:
        parts.append(Text(f"This step has {span(release.deadline_s)} of measured time left.", style="dim"))
    if release.not_judged:
        parts.append(Text(release.not_judged, style="dim"))
    if release.caution:
        parts.append(Text(release.caution, style="yellow"))
    parts += [
        Text(line, style="dim") for line in (release.labels, release.budget, release.compared) if line is not None
    ]
    if release.signals and release.log_e is not None and release.threshold is not None and release.verdict is not None:
        parts += ["", _signals(release.signals, release.verdict, release.log_e, release.threshold)]
    if watch := release.watch:
        head = Text("since it was restored:" if release.is_restore else "since its promotion:", style="dim")
        parts += ["", head, _signals(watch.signals, watch.verdict, watch.log_e, watch.threshold)]
    return parts


def _steps(release: ReleaseStatus) -> Text:
    line = Text()
    for step in release.steps:
        mark, style = _STEP_MARKS[step.state]
        line.append(f" {mark} {step.name} ", style=style)
    return line


def _signals(signals: Sequence[SignalView], verdict: Verdict, log_e: float, threshold: float) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("signal", no_wrap=True)
    table.add_column("canary", justify="right", no_wrap=True)
    table.add_column("stable", justify="right", no_wrap=True)
    table.add_column("evidence against it", no_wrap=True)
    for signal in strongest(signals):
        evidence = _evidence(signal.log_e, signal.threshold)
        canary, stable = _ratio(signal.canary), _ratio(signal.stable)
        if means := signal.means:
            canary, stable = Text(means.canary or "none yet"), Text(means.stable or "none yet")
            evidence = Text(means.difference, style="dim") if means.is_said_only else evidence
        table.add_row(_verdict(signal.verdict), signal.title, canary, stable, evidence)
    together, said = Text("all together", style="bold"), verdict.value.replace("_", " ")
    table.add_row(_verdict(verdict), together, said, "", _evidence(log_e, threshold))
    return table


def _verdict(verdict: Verdict) -> Text:
    mark, style = _VERDICT_MARKS[verdict]
    return Text(f" {mark}", style=style)


def _ratio(pair: Pair) -> Text:
    return (
        Text.assemble(share_of(pair), (f" of {count(pair.total)}", "dim"))
        if pair.total
        else Text("none yet", style="dim")
    )


def _evidence(log_e: float, threshold: float | None) -> Text:
    """A bar that is full when the evidence fails the canary."""
    if threshold is None:
        return Text("bounds the risk only", style="dim")
    reached = max(0.0, log_e) / threshold
    style = "red" if reached >= 1 else "yellow" if reached >= 0.5 else "green"
    return Text.assemble(_bar(reached, width=8, style=style), f" {max(0.0, log_e):.1f} of {threshold:.1f}")


def _clients(clients: ClientsView) -> Text:
    failed = (
        Text("none failed", style="green")
        if not clients.failed
        else Text(f"{count(clients.failed)} failed", style="bold red")
    )
    lead = f"users, last {span(clients.span_s)}: {count(clients.requests)} requests, "
    return Text.assemble(lead, failed, rescued(clients.saved), slowness(clients.slow))


def decision(made: DecisionView) -> RenderableType:
    """One line for one decision of a release."""
    row = Table.grid(padding=(0, 2))
    row.add_column(style="dim", no_wrap=True)
    row.add_column()
    by = "" if made.by in ("judge", "controller") else f" (by {made.by})"
    row.add_row(
        clock(made.at_s), Text.assemble((made.title, "bold"), by, f": {one_line(made.reason)}" if made.reason else "")
    )
    return row


def _bar(filled: float, *, width: int, style: str) -> Text:
    full = round(min(max(filled, 0.0), 1.0) * width)
    return Text.assemble(("█" * full, style), ("░" * (width - full), "dim"))
