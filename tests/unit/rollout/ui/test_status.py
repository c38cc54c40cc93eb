"""The status as data and as a page: the present state in one object that survives JSON."""

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
    """A world in which v2's release was just requested, and a way to read its status."""
    world, controller = digits_world(path, **canary)
    controller.execute(c.StartRelease("digits:v2", spec, "ann"))
    return world, controller, lambda: build_status("digits", controller.snapshot, newest(path))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> StatusView:
    """Status in the second step, which needs many more requests."""
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
    assert '"saved"' not in running.model_dump_json(), "a command of an earlier version takes no key that it lacks"


def test_a_status_has_no_number_that_json_lacks(tmp_path: Path) -> None:
    """Where no number of requests is enough, the words say so."""
    spec = SPEC.model_copy(update={"risk_budget": RiskBudget(share=0.00002)})
    world, controller, look = released(tmp_path / "ledger.db", spec, error_ratio=0.01)
    world.live(controller, 40)
    controller.close()
    assert "Infinity" not in look().model_dump_json()


def test_weights_are_those_that_were_read_back(running: StatusView) -> None:
    """Both versions have their weight and their health."""
    assert running.stable is not None
    assert running.canary is not None
    assert (running.stable.weight_percent, running.canary.weight_percent) == (60, 40)
    assert (running.stable.health, running.canary.health) == ("ready", "ready")


def test_the_present_step_is_marked(running: StatusView) -> None:
    """The steps are done, current and next, in order."""
    assert running.release is not None
    assert [(step.name, step.state) for step in running.release.steps] == [
        ("shadow", "done"),
        ("40 %", "current"),
        ("100 %", "next"),
    ]


def test_it_says_how_much_more_is_needed(running: StatusView) -> None:
    """Requests, time at the rate of the step, and the time that is left."""
    assert running.release is not None
    assert running.release.more_requests_needed
    assert running.release.eta_s
    assert 0 < (running.release.deadline_s or 0) < SPEC.step_deadline


def test_what_is_done_to_make_an_environment_is_shown(tmp_path: Path) -> None:
    """In place of a time to load, which does not pass meanwhile."""
    world, controller, look = released(tmp_path / "ledger.db", prepare_s=60.0)
    world.live(controller, 5)
    controller.close()
    status = look()
    assert status.canary is not None
    assert status.release is not None
    assert status.canary.preparing == "Downloading torch"
    assert status.release.sentence == "digits:v2 waits for its environment: Downloading torch"
    assert "Downloading torch" in status_page(status)


def test_in_a_watch_the_signals_before_it_stay_in_view(tmp_path: Path) -> None:
    """It shows the evidence of the steps, and what is watched now."""
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


def test_mirrored_requests_are_not_charged_to_users(tmp_path: Path) -> None:
    """In the shadow step only stable's answers count, though the canary answered as many copies."""
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


def test_what_the_other_version_answered_did_not_fail_for_users(tmp_path: Path) -> None:
    """A canary that hangs: the gateway asks stable. Those are failures of the canary, and no user met one."""
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


def test_a_rolled_back_release_is_marked_where_it_ended(tmp_path: Path) -> None:
    """Its last step, its sentence, and the quarantine."""
    world, controller, look = released(tmp_path / "ledger.db", classes=NO_SEVENS)
    world.live_until_ended(controller)
    controller.close()
    status = look()
    assert status.release is not None
    assert [step.state for step in status.release.steps if step.state not in ("done", "next")] == ["left"]
    assert "was rolled back" in status.release.sentence
    assert set(status.quarantined) == {"digits:v2"}
    assert strongest(status.release.signals)[0].name == "class:7"


def test_a_promoted_version_is_stable_and_the_old_one_is_still_shown(tmp_path: Path) -> None:
    """During the watch both run; the old one has no traffic."""
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
    assert status.clients is None, "users' requests are not counted any more: those of the last step are old"


def test_nothing_released_yet_is_a_status_too(tmp_path: Path) -> None:
    """Stable serves; there is no release to show."""
    _, controller = digits_world(tmp_path / "ledger.db")
    controller.close()
    status = build_status("digits", controller.snapshot, None)
    assert (status.release, status.clients, status.stable and status.stable.tag) == (None, None, "digits:v1")
    assert "digits:v1" in status_page(status)


class _Text(HTMLParser):
    """Collects a page's text and its links."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_the_sentence_and_links_to_the_report(running: StatusView) -> None:
    """Everything on the page is in the page, or served by the controller itself."""
    page = _Text()
    page.feed(status_page(running))
    assert running.release is not None
    assert running.release.sentence in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert {"/releases/1", "/releases/1#why-1", "/api/status", "/releases", "/static/page.js"} <= set(page.links)
    assert all(link.startswith(("/", "data:,")) for link in page.links)


def test_the_status_has_the_name_of_the_model(running: StatusView, tmp_path: Path) -> None:
    """Not that of the folder, which is the name only before there is a model."""
    _, controller = digits_world(tmp_path / "other.db")
    controller.close()
    assert build_status("folder", controller.snapshot, None).name == "digits"
    assert build_status("folder", replace(controller.snapshot, deployment=Deployment()), None).name == "folder"
    assert f"<title>{running.name}: stepping</title>" in status_page(running)


def test_the_page_shows_a_reason_as_text(tmp_path: Path) -> None:
    """A person's reason may hold anything; a browser must not run it."""
    world, controller, look = released(tmp_path / "ledger.db")
    controller.execute(c.Pause("bob", "<script>alert(1)</script>"))
    world.live(controller, 1)
    controller.close()
    assert "<script>alert" not in status_page(look())


def test_a_dead_canary_is_shown_as_dead(tmp_path: Path) -> None:
    """It is shown while the controller has not acted, or cannot act."""
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
    """In the watch and after it: of each signal what decided, and apart from that what was counted since."""
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


def test_that_a_person_is_needed_comes_first_with_what_happens_by_itself(tmp_path: Path) -> None:
    """On the page before everything else, with the time that is left and every command."""
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


def test_alerts_lead_to_their_runbooks_where_there_are_some(running: StatusView) -> None:
    """The oldest first; an alert need not name a version, and one may name anything."""
    alerts = [Firing({"alertname": "KanariaNoTraffic"}, 200.0), Firing({"alertname": "<b>", "version": "m:v2"}, 100.0)]
    linked = status_page(running, links=[Link("Runbooks", RUNBOOKS)], alerts=alerts)
    assert linked.index("&lt;b&gt;") < linked.index('href="/runbooks#kanarianotraffic"')
    assert "(m:v2)" in linked
    assert "#kanarianotraffic" not in status_page(running, alerts=alerts)
    assert "Firing" not in status_page(running)
