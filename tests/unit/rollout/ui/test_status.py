"""The status as data and as a page: the current state in one object that survives JSON."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.explain.why import one_sentence, why
from rollout.fleet import Health
from rollout.ledger.state import Deployment
from rollout.signals.options import Classes
from rollout.signals.plan import Signals
from rollout.sources.firing import Firing
from rollout.spec import RiskBudget, RolloutSpec
from rollout.ui.html import Link
from rollout.ui.status import build_status
from rollout.ui.views import StatusView, strongest
from rollout.ui.web import RUNBOOKS, status_page
from tests.support.releases import LIVE, NO_SEVENS, SPEC, UNPROVEN, UNPROVEN_S, DigitsWorld, digits_world, newest

ReadStatus = Callable[[], StatusView]


def released(path: Path, spec: RolloutSpec = SPEC, **canary: object) -> tuple[DigitsWorld, Controller, ReadStatus]:
    """A world in which v2's release was just requested, and a function that reads its status."""
    world, controller = digits_world(path, **canary)
    controller.execute(c.StartRelease("digits:v2", spec, "ann"))
    return world, controller, lambda: build_status("digits", controller.snapshot, newest(path))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> StatusView:
    """The status in the second step, which needs many more requests."""
    path = tmp_path_factory.mktemp("running") / "ledger.db"
    world, controller, look = released(path, UNPROVEN, error_ratio=0.002)
    world.live(controller, UNPROVEN_S)
    controller.close()
    return look()


def test_a_status_survives_json(running: StatusView) -> None:
    """The command line reads it over HTTP and shows the same."""
    assert StatusView.model_validate_json(running.model_dump_json()) == running
    assert running.clients is not None
    assert running.clients.saved == 0
    assert '"saved"' not in running.model_dump_json(), "an earlier version's command accepts no unknown key"


def test_a_status_has_no_number_that_json_cannot_hold(tmp_path: Path) -> None:
    """If no number of requests is enough, the text says so."""
    spec = SPEC.model_copy(update={"risk_budget": RiskBudget(share=0.00002)})
    world, controller, look = released(tmp_path / "ledger.db", spec, error_ratio=0.01)
    world.live(controller, 40)
    controller.close()
    assert "Infinity" not in look().model_dump_json()


def test_weights_are_those_read_back_from_the_gateway(running: StatusView) -> None:
    """Both versions have their weight and their health."""
    assert running.stable is not None
    assert running.canary is not None
    assert (running.stable.weight_percent, running.canary.weight_percent) == (60, 40)
    assert (running.stable.health, running.canary.health) == ("ready", "ready")


def test_the_current_step_is_marked(running: StatusView) -> None:
    """The steps are listed in order as done, current or next."""
    assert running.release is not None
    assert [(step.name, step.state) for step in running.release.steps] == [
        ("shadow", "done"),
        ("40 %", "current"),
        ("100 %", "next"),
    ]


def test_it_says_how_many_more_requests_are_needed(running: StatusView) -> None:
    """It gives requests, the time at the rate of the step, and the time left."""
    assert running.release is not None
    assert running.release.more_requests_needed
    assert running.release.eta_s
    assert 0 < (running.release.deadline_s or 0) < SPEC.step_deadline


def test_progress_of_making_an_environment_is_shown(tmp_path: Path) -> None:
    """It is shown instead of the loading time, which does not run meanwhile."""
    world, controller, look = released(tmp_path / "ledger.db", prepare_s=60.0)
    world.live(controller, 5)
    controller.close()
    status = look()
    assert status.canary is not None
    assert status.release is not None
    assert status.canary.preparing == "Downloading torch"
    assert status.release.sentence == "digits:v2 waits for its environment: Downloading torch"
    assert "Downloading torch" in status_page(status)


def test_in_a_watch_the_signals_of_the_steps_are_still_shown(tmp_path: Path) -> None:
    """The status has the evidence of the steps, and what is watched now."""
    world, controller, look = released(tmp_path / "ledger.db")
    while controller.snapshot.deployment.stable != "digits:v2":
        world.live(controller, 1)
    world.live(controller, 10)
    controller.close()
    release = look().release
    assert release is not None
    assert release.watch is not None
    names = {signal.name for signal in (*release.signals, *release.watch.signals)}
    assert {"watched_errors", "errors", "latency:100", "class:7", "wrong_label"} <= names


def test_copied_requests_do_not_count_as_users_requests(tmp_path: Path) -> None:
    """In the shadow step only stable's answers count, although the canary answered as many copies."""
    spec = SPEC.model_copy(update={"soak": 60.0})
    world, controller, look = released(tmp_path / "ledger.db", spec)
    world.live(controller, 20)
    controller.close()
    status = look()
    assert status.clients is not None
    assert status.canary is not None
    assert status.canary.is_mirrored
    stable_requests = newest(tmp_path / "ledger.db").steps[0].stable.total
    assert status.clients.requests == stable_requests
    assert status.clients.span_s == status.at_s - newest(tmp_path / "ledger.db").steps[0].from_s < 30


def test_requests_answered_by_the_other_version_did_not_fail_for_users(tmp_path: Path) -> None:
    """The canary hangs and the gateway asks stable. These are the canary's failures, but no user saw one."""
    world, controller, look = released(tmp_path / "ledger.db", LIVE.model_copy(update={"soak": 60.0}))
    world.edit("digits:v1", error_ratio=0.0)
    world.live(controller, 40)
    world.edit("digits:v2", hangs=True)
    seen = 0
    while not (release := controller.snapshot.deployment.release) or not release.outcome:
        world.live(controller, 0.5)
        if (clients := look().clients) and clients.saved:
            assert (clients.failed, clients.requests > clients.saved) == (0, True)
            assert "none failed</strong>, " in (page := status_page(look()))
            assert re.search(r"[\d,]+ that failed at one version w(as|ere) answered by the other", page)
            assert StatusView.model_validate_json(look().model_dump_json()).clients == clients
            seen = clients.saved
    world.live_until_ended(controller)
    controller.close()
    ended = newest(tmp_path / "ledger.db")
    assert ended.canary_saved == ended.canary_failures >= seen > 0
    failed = f"{ended.canary_failures:,}"
    assert one_sentence(ended).endswith(f"{failed} of which failed; digits:v1 answered all {failed} in its place.")


def test_a_rolled_back_release_is_shown_with_its_last_step(tmp_path: Path) -> None:
    """The status has its sentence and the quarantine."""
    world, controller, look = released(tmp_path / "ledger.db", classes=NO_SEVENS)
    world.live_until_ended(controller)
    controller.close()
    status = look()
    assert status.release is not None
    assert [step.state for step in status.release.steps if step.state not in ("done", "next")] == ["left"]
    assert "was rolled back" in status.release.sentence
    assert set(status.quarantined) == {"digits:v2"}
    assert strongest(status.release.signals)[0].name == "class:7"


def test_during_the_watch_both_versions_are_shown(tmp_path: Path) -> None:
    """The promoted version is stable; the old one runs without traffic."""
    spec = SPEC.model_copy(update={"watch": 600.0})
    world, controller, look = released(tmp_path / "ledger.db", spec)
    world.live(controller, 60)
    controller.close()
    status = look()
    assert status.stable is not None
    assert status.canary is not None
    assert (status.stable.tag, status.stable.weight_percent) == ("digits:v2", 100)
    assert (status.canary.tag, status.canary.weight_percent) == ("digits:v1", 0)
    assert status.canary_role == "before", "its page said that v1 was the canary"
    assert ">before</th>" in status_page(status)
    assert status.clients is None, "users' requests are no longer counted; those of the last step are old"


def test_a_status_without_a_release_has_stable_only(tmp_path: Path) -> None:
    """Stable serves; there is no release to show."""
    _, controller = digits_world(tmp_path / "ledger.db")
    controller.close()
    status = build_status("digits", controller.snapshot, None)
    assert (status.release, status.clients, status.stable and status.stable.tag) == (None, None, "digits:v1")
    assert "digits:v1" in status_page(status)


class _Text(HTMLParser):
    """Collects the text and the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_the_sentence_and_links_to_the_report(running: StatusView) -> None:
    """Everything on the page is in the page or served by the controller."""
    page = _Text()
    page.feed(status_page(running))
    assert running.release is not None
    assert running.release.sentence in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert {"/releases/1", "/releases/1#why-1", "/api/status", "/releases", "/static/page.js"} <= set(page.links)
    assert all(link.startswith(("/", "data:,")) for link in page.links)


def test_the_status_has_the_name_of_the_model(running: StatusView, tmp_path: Path) -> None:
    """The folder's name is used only before there is a model."""
    _, controller = digits_world(tmp_path / "other.db")
    controller.close()
    assert build_status("folder", controller.snapshot, None).name == "digits"
    assert build_status("folder", replace(controller.snapshot, deployment=Deployment()), None).name == "folder"
    assert f"<title>{running.name}: stepping</title>" in status_page(running)


def test_the_page_escapes_a_reason(tmp_path: Path) -> None:
    """A person's reason may contain anything; a browser must not execute it."""
    world, controller, look = released(tmp_path / "ledger.db")
    controller.execute(c.Pause("bob", "<script>alert(1)</script>"))
    world.live(controller, 1)
    controller.close()
    assert "<script>alert" not in status_page(look())


def test_a_dead_canary_is_shown_as_dead(tmp_path: Path) -> None:
    """It is shown until the controller has acted, or if it cannot act."""
    world, controller, look = released(tmp_path / "ledger.db")
    world.live(controller, 8)
    world.edit("digits:v1", health=Health.UNREADY)
    world.edit("digits:v2", health=Health.DEAD, has_crashed=True)
    world.live(controller, 1)
    controller.close()
    status = look()
    assert status.canary is not None
    assert status.canary.health == "dead"


@pytest.mark.parametrize("holdback", [0.0, 0.05])
@pytest.mark.parametrize("seconds", [10.0, 100.0])
def test_status_and_why_count_the_same(tmp_path: Path, holdback: float, seconds: float) -> None:
    """In the watch and after it, each signal has the counts that decided, and separately those since."""
    path = tmp_path / "ledger.db"
    world, controller, look = released(path, SPEC.model_copy(update={"holdback": holdback}))
    while controller.snapshot.deployment.stable != "digits:v2":
        world.live(controller, 1)
    world.live(controller, seconds)
    controller.close()
    release = look().release
    assert release is not None
    assert release.watch is not None
    told = {topic.title: "\n".join(topic.lines) for topic in why(newest(path)).topics}
    for signals, title in ((release.signals, "The other signals"), (release.watch.signals, "Since its promotion")):
        seen = {signal.name: signal for signal in signals}
        for name, of in re.findall(r"`([\w:]+)`.*?: [\d.]+ % of ([\d,]+)", told[title]):
            assert seen[name].canary.total == int(of.replace(",", "")), (title, name)
        assert told[title].count("`") >= 2
    assert "Since its promotion" in status_page(look())


def test_the_page_starts_with_a_request_for_a_person(tmp_path: Path) -> None:
    """It gives what happens automatically, the time left, and every command."""
    spec = LIVE.model_copy(update={"signals": Signals({"class": Classes(on_fail="hold")})})
    world, controller, look = released(tmp_path / "ledger.db", spec, classes=NO_SEVENS)
    while not (release := controller.snapshot.deployment.release) or not release.asked:
        world.live(controller, 1)
    world.live(controller, 60)
    controller.close()
    status = look()
    assert status.release is not None
    assert status.release.asked is not None
    assert status.release.asked.left_s is not None
    assert 220 <= status.release.asked.left_s <= 242
    assert "the plan leaves this to a person" in status.release.asked.reason
    assert [decision.action for decision in status.release.decisions][-1] == "asked"
    assert {choice.name for choice in status.choices} == {"pause", "promote", "rollback", "abort"}
    page = status_page(status)
    assert page.index("waits for a person") < page.index("digits:v1")
    assert "If nobody decides, it is rolled back in" in page
    assert "kanaria rollback" in page
    assert StatusView.model_validate_json(status.model_dump_json()) == status


def test_alerts_link_to_their_runbooks(running: StatusView) -> None:
    """The oldest comes first. An alert need not name a version, and may name anything."""
    alerts = [Firing({"alertname": "KanariaNoTraffic"}, 200.0), Firing({"alertname": "<b>", "version": "m:v2"}, 100.0)]
    linked = status_page(running, links=[Link("Runbooks", RUNBOOKS)], alerts=alerts)
    assert linked.index("&lt;b&gt;") < linked.index('href="/runbooks#kanarianotraffic"')
    assert "(m:v2)" in linked
    assert "#kanarianotraffic" not in status_page(running, alerts=alerts)
    assert "Firing" not in status_page(running)
