"""What a drift report about the canary does: `why` reports it; it rolls back only if the plan says so."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from rollout.control import commands as c
from rollout.errors import CommandRefused
from rollout.explain.timeline import Timeline
from rollout.explain.why import why
from rollout.ledger.findings import DriftedColumn, DriftReport
from rollout.spec import RolloutSpec
from tests.support.releases import LIVE, digits_world, newest
from tests.support.world import Version, World

SENTENCE = "digits:v2 differs in 1 of 66 columns from digits:v1 over the same minutes: `confidence` mean 0.9 -> 0.6"


def drift(state: Literal["no_drift", "drift", "too_few_rows"] = "drift", *, look: int = 1) -> DriftReport:
    column = DriftedColumn("confidence", 0.31, 0.1, 1e-20, "mean 0.9 -> 0.6")
    return DriftReport(state, SENTENCE, rows=900, columns=66, look=look, drifted=(column,) if state == "drift" else ())


def released(path: Path, *reports: DriftReport, on_drift: Literal["report", "rollback"] = "report") -> Timeline:
    """A release that had traffic for half a minute before `reports` came."""
    world, controller = digits_world(path)
    spec: RolloutSpec = LIVE.model_copy(update={"on_drift": on_drift})
    controller.execute(c.StartRelease("digits:v2", spec, "ann"))
    world.live(controller, 30)
    for report in reports:
        controller.execute(c.ReportDrift("digits:v2", report))
        world.live(controller, 1)
    controller.close()
    return newest(path)


def topic(release: Timeline) -> str:
    return "\n".join(line for one in why(release).topics if one.title.startswith("Drift") for line in one.lines)


def test_drift_is_reported_and_changes_nothing_by_default(tmp_path: Path) -> None:
    """A better model is more confident, and that is drift too."""
    release = released(tmp_path / "ledger.db", drift())
    assert release.state.outcome is None
    assert "`confidence`: mean 0.9 -> 0.6; 31 % of the rows moved; from 10 % on it counts as drift." in topic(release)
    assert "900 rows of each version from the same half minutes." in topic(release)


def test_drift_rolls_back_if_the_plan_says_so(tmp_path: Path) -> None:
    """The finding is the reason."""
    release = released(tmp_path / "ledger.db", drift(), on_drift="rollback")
    assert (release.outcome, release.state.outcome_signal, release.state.outcome_reason) == (
        "rolled_back",
        "drift",
        SENTENCE,
    )


@pytest.mark.parametrize("state", ["no_drift", "too_few_rows"])
def test_no_drift_and_too_few_rows_never_roll_back(tmp_path: Path, state: Literal["no_drift", "too_few_rows"]) -> None:
    """Too few rows are not evidence of harm."""
    release = released(tmp_path / "ledger.db", drift(state), on_drift="rollback")
    assert (release.outcome, release.drift) == ("stepping", drift(state))


def test_the_newest_report_counts(tmp_path: Path) -> None:
    """Each report covers more rows than the one before."""
    release = released(tmp_path / "ledger.db", drift("too_few_rows"), drift("no_drift", look=2))
    assert release.drift == drift("no_drift", look=2)
    assert "they were compared 2 times" in topic(release)


def test_answer_drift_of_a_version_proven_better_is_excused(tmp_path: Path) -> None:
    """Once labels prove it better, only drift of its inputs or of its mistakes is a reason to roll back."""
    versions = {"m:v1": Version(), "m:v2": Version(differs_ratio=0.43, lost_ratio=0.05)}
    world = World(tmp_path / "ledger.db", versions=versions)
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    spec = RolloutSpec(steps=("shadow", 5, 50, 100), warmup=0, window=2, soak=300, on_drift="rollback")
    controller.execute(c.StartRelease("m:v2", spec, "ann"))
    world.live(controller, 60)
    controller.execute(c.ReportDrift("m:v2", drift()))
    world.live(controller, 1)
    excused = newest(tmp_path / "ledger.db")
    assert (excused.state.outcome, "Labels prove it better" in topic(excused)) == (None, True)
    of_inputs = replace(drift(), drifted=(*drift().drifted, DriftedColumn("age", 0.3, 0.1, 1e-9, "mean 40 -> 60")))
    controller.execute(c.ReportDrift("m:v2", of_inputs))
    controller.close()
    assert newest(tmp_path / "ledger.db").state.outcome_signal == "drift"


def test_a_report_about_another_version_is_refused(tmp_path: Path) -> None:
    """A late report must not roll back the next release."""
    world, controller = digits_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 10)
    with pytest.raises(CommandRefused, match="take a drift report about digits:v7"):
        controller.execute(c.ReportDrift("digits:v7", drift()))
    controller.close()
