"""The terminal output: readable in 80 columns and without colour."""

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from rollout.control import commands as c
from rollout.explain.timeline import Decision
from rollout.ui import terminal, terminal_reports
from rollout.ui.status import build_status, decision_view
from rollout.ui.views import ClientsView, StatusView
from tests.support.releases import NO_SEVENS, SPEC, UNPROVEN, UNPROVEN_S, digits_world, finished, newest


def shown(picture: RenderableType, *, width: int = 80) -> str:
    """The output on a terminal without colour."""
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, color_system=None).print(picture)
    return out.getvalue()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> StatusView:
    """The status in the second step, which needs many more requests."""
    path = tmp_path_factory.mktemp("running") / "ledger.db"
    world, controller = digits_world(path, error_ratio=0.002)
    controller.execute(c.StartRelease("digits:v2", UNPROVEN, "ann"))
    world.live(controller, UNPROVEN_S)
    controller.close()
    return build_status("digits", controller.snapshot, newest(path))


def test_quarantine_is_shown_with_the_command_that_lifts_it(tmp_path: Path) -> None:
    """It is shown after the release that caused it, and during the next one."""
    world, controller = digits_world(tmp_path / "ledger.db", classes=NO_SEVENS)
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    world.live_until_ended(controller)
    controller.close()
    text = " ".join(shown(terminal.status(build_status("digits", controller.snapshot, newest(world.path)))).split())
    assert "in quarantine: digits:v2; `kanaria why TAG` says why, `kanaria retry TAG` puts it on trial again" in text


def test_status_fits_80_columns_without_truncation(running: StatusView) -> None:
    """No line is longer than the terminal, and no cell ends in an ellipsis."""
    lines = shown(terminal.status(running)).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert not any(line.rstrip().endswith("…") for line in lines)


def test_status_without_colour_distinguishes_the_steps(running: StatusView) -> None:
    """Each state has its mark: done, current, next."""
    assert "✔ shadow  ▶ 40 %  · 100 %" in shown(terminal.status(running))


def test_status_shows_each_family_of_signals_once(running: StatusView) -> None:
    """It shows the strongest signal of each family, and all together."""
    rows = [
        line[3:].split("  ")[0]
        for line in shown(terminal.status(running)).splitlines()
        if " of " in line and "░" in line
    ]
    assert sorted(row.split()[0] for row in rows) == [
        "all",
        "confidence",
        "errors",
        "predicted",
        "slower",
        "unlike",
        "wrong",
    ]


def test_status_says_what_it_waits_for(running: StatusView) -> None:
    """It gives the number of requests and the time that they take."""
    assert "more requests to the canary" in " ".join(shown(terminal.status(running)).split())


def test_an_empty_deployment_says_how_to_start(tmp_path: Path) -> None:
    """Without a release the output says what to do."""
    _, controller = digits_world(tmp_path / "ledger.db")
    controller.close()
    assert "kanaria release TAG" in shown(terminal.status(build_status("digits", controller.snapshot, None)))


def test_why_starts_with_the_verdict(tmp_path: Path) -> None:
    """The first line is enough."""
    assert shown(terminal_reports.why(finished(tmp_path / "ledger.db", classes=NO_SEVENS))).startswith(
        "digits:v2 was rolled back"
    )


def test_history_has_every_release_with_its_sentence(tmp_path: Path) -> None:
    """It has outcome, version and reason of each."""
    good = finished(tmp_path / "good.db")
    bad = finished(tmp_path / "bad.db", classes=NO_SEVENS)
    text = shown(terminal_reports.history([good, bad]))
    assert "promoted" in text
    assert "rolled back" in text
    assert 'were "7"' in " ".join(text.split())


@pytest.mark.parametrize(
    ("failed", "saved", "says"),
    [
        (0, 0, "none failed, 2 % slower"),
        (0, 1, "none failed, 1 that failed at one version was answered by the other, 2 % slower"),
        (3, 12, "3 failed, 12 that failed at one version were answered by the other, 2 % slower"),
    ],
)
def test_requests_answered_by_the_other_version_are_shown_beside_failures(
    running: StatusView, failed: int, saved: int, says: str
) -> None:
    """They are not part of the failures, as no user saw one."""
    clients = ClientsView(span_s=30, requests=900, failed=failed, saved=saved, slow={250: 0.02})
    text = shown(terminal.status(running.model_copy(update={"clients": clients})), width=200)
    assert f"users, last 30 s: 900 requests, {says} than 250 ms" in text


def test_a_reason_with_brackets_is_shown_as_written() -> None:
    """Log lines are not markup."""
    made = Decision(at_s=0.0, action="aborted", title="aborted", reason="[bold]no[/bold] [Errno 2]", by="bob")
    assert "[bold]no[/bold] [Errno 2]" in shown(terminal.decision(decision_view(made)))
