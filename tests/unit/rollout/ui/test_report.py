"""The report as a file: every release has one, and text from models and people cannot run in it."""

import re
from pathlib import Path

from rollout.control import commands as c
from rollout.signals.options import Classes
from rollout.signals.plan import Signals
from rollout.ui.report import render_report
from rollout.ui.report.pictures import pictures
from tests.support.releases import EVEN, LIVE, NO_SEVENS, SPEC, digits_world, finished, harmed_after_promotion, newest


def test_a_version_that_never_started_has_a_report_without_evidence(tmp_path: Path) -> None:
    """Only the traffic is drawn; the text has the reason."""
    release = finished(tmp_path / "ledger.db", starts_at_all=False)
    assert "did not start: ImportError" in render_report([release], title="Release 1")
    assert {picture.key for picture in pictures(release)} <= {"weight"}


def test_a_running_release_has_a_report(tmp_path: Path) -> None:
    """It has one from its first second."""
    world, controller = digits_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("digits:v2", SPEC, "ann"))
    begun = render_report([newest(tmp_path / "ledger.db")], title="Release 1")
    world.live(controller, 30)
    controller.close()
    assert "is being started" in begun
    assert "of the traffic (step" in render_report([newest(tmp_path / "ledger.db")], title="Release 1")


def test_an_automatic_ramp_has_a_report(tmp_path: Path) -> None:
    """Its steps are known only after they were taken."""
    release = finished(tmp_path / "ledger.db", SPEC.model_copy(update={"steps": "auto"}))
    assert "promoted" in render_report([release], title="Release 1")


def test_text_from_people_is_not_executed_by_the_browser(tmp_path: Path) -> None:
    """Reasons, names and titles are text."""
    world, controller = digits_world(tmp_path / "ledger.db")
    controller.execute(c.StartRelease("digits:v2", LIVE, "<img src=x>"))
    world.live(controller, 5)
    controller.execute(c.Abort("bob", "<script>alert(1)</script>"))
    world.live_until_ended(controller)
    controller.close()
    html = render_report([newest(tmp_path / "ledger.db")], title="<b>Release</b>")
    assert not any(harm in html for harm in ("<script>alert", "<img src=x>", "<b>Release"))


def test_colours_have_the_same_meaning_in_every_picture(tmp_path: Path) -> None:
    """Wherever both versions are drawn, stable has one colour and the canary another."""
    drawn = pictures(finished(tmp_path / "ledger.db", classes=EVEN))
    legends = {picture.legend[:2] for picture in drawn if picture.key in ("weight", "errors", "latency", "class")}
    assert len(legends) == 1


def test_differing_answers_are_drawn_with_their_limit(tmp_path: Path) -> None:
    """There is one bar and its limit if copied requests were compared, and no picture otherwise."""
    drawn = {picture.key: picture for picture in pictures(finished(tmp_path / "compared.db", differs_ratio=0.31))}
    assert "differ from digits:v1's: 3" in drawn["disagreement"].caption
    assert "10 % are allowed" in drawn["disagreement"].caption
    not_compared = pictures(finished(tmp_path / "not.db", LIVE))
    assert "disagreement" not in {picture.key for picture in not_compared}


def test_the_watch_is_drawn(tmp_path: Path) -> None:
    """Its evidence reaches the threshold, and its failures are drawn."""
    evidence, errors = (
        picture
        for picture in pictures(harmed_after_promotion(tmp_path / "ledger.db"))
        if picture.key in ("evidence", "errors")
    )
    (watched,) = (trace for trace in evidence.figure.data if trace.name == "errors with all traffic")
    assert watched.y[-1] >= 100
    (canary,) = (trace for trace in errors.figure.data if trace.name == "digits:v2")
    assert canary.y[-1] > 4


def test_a_threshold_crossed_without_a_decision_is_explained(tmp_path: Path) -> None:
    """The picture would seem to contradict the release. If the crossing decided, there is no explanation."""
    held = LIVE.model_copy(update={"signals": Signals({"class": Classes(on_fail="hold")})})
    captions = {}
    for name, spec in (("held", held), ("decided", LIVE.model_copy(update={"signals": SPEC.signals}))):
        release = finished(tmp_path / f"{name}.db", spec, classes=NO_SEVENS)
        captions[name] = next(picture.caption for picture in pictures(release) if picture.key == "evidence")
    assert re.search(
        r"first crossed at [\d:]+ UTC, (4|5) min.* before it was rolled back.*the plan leaves this to a person",
        captions["held"],
    )
    assert "crossed" not in captions["decided"]


def test_a_served_report_runs_only_its_own_scripts(tmp_path: Path) -> None:
    """Each script has the nonce of the answer; the file for the disk has no nonce and no navigation."""
    release = finished(tmp_path / "ledger.db")
    served = render_report([release], title="Release 1", nonce="n-1")
    scripts = [tag for tag in re.findall(r"<script[^>]*>", served) if not tag.endswith('\\">')]
    assert len(scripts) > 5
    assert all('nonce="n-1"' in tag for tag in scripts)
    written = render_report([release], title="Release 1")
    assert "<nav>" in served
    assert "<nav>" not in written
    assert 'nonce="' not in written.partition("</head>")[2]
