"""The terminal output of `kanaria why` and `history`.

It fits 80 columns and is complete without colour. It takes finished timelines and fetches nothing.
"""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rollout.explain.format import date
from rollout.explain.timeline import Timeline
from rollout.explain.why import one_sentence
from rollout.explain.why import why as explain
from rollout.format import span

WIDEST = 100  # lines longer than this are hard to read
_OUTCOME_STYLES = {"promoted": "green", "restored": "green", "rolled_back": "red", "aborted": "magenta"}


def why(release: Timeline) -> RenderableType:
    """The verdict in one sentence, then everything behind it."""
    explanation = explain(release)
    style = _OUTCOME_STYLES.get(release.outcome, "yellow")
    parts: list[RenderableType] = [Text(explanation.verdict, style=f"bold {style}")]
    for topic in explanation.topics:
        parts += ["", Text(topic.title, style="bold"), *(_item(line) for line in topic.lines)]
    return _narrow(Group(*parts))


def history(releases: Sequence[Timeline]) -> RenderableType:
    """Every release, newest last."""
    if not releases:
        return Text("no release yet", style="dim")
    parts: list[RenderableType] = []
    for release in releases:
        outcome = release.outcome.replace("_", " ")
        line = Text.assemble(
            (f"{release.number:>3}  ", "bold"),
            (f"{outcome:<12}", _OUTCOME_STYLES.get(release.outcome, "yellow")),
            f"{release.canary}  ",
            (
                f"{date(release.requested_s)}, {span(release.seen_s - release.requested_s)}, by {release.state.by}",
                "dim",
            ),
        )
        parts += [line, Padding(Text(one_sentence(release)), (0, 0, 0, 5))]
    return _narrow(Group(*parts))


def _item(line: str) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_row(" •", Text(line))
    return row


def _narrow(content: RenderableType) -> RenderableType:
    table = Table.grid()
    table.add_column(max_width=WIDEST)
    table.add_row(content)
    return table
