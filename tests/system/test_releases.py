"""Real releases through the command line, with Envoy, BentoML, Prometheus and users, with and without failures."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from contract import loopback
from contract.http import READY_PATH, SECRET_HEADER
from kanaria.stack.supervision import Supervisor
from loadtest.results import Summary
from tests.support.grafana import ADMIN as GRAFANA_ADMIN
from tests.support.grafana import FakeGrafana
from tests.support.grafana import running as running_grafana
from tests.support.labellers import labelling
from tests.support.stack import Kanaria


def at_weight(percent: int) -> Any:
    return lambda status: status["release"] and status["canary"] and status["canary"]["weight_percent"] == percent


def is_over(status: dict[str, Any]) -> bool:
    return bool(status["release"]) and status["release"]["phase"] == "ended"


@pytest.fixture(params=["scrape", "prometheus"])
def source(request: pytest.FixtureRequest, kanaria: Kanaria, require_program: Any) -> None:
    """The source of the counters that releases are judged by: both must give the same result."""
    if request.param == "prometheus":
        require_program("prometheus")
        require_program("prometheus-alertmanager")
    kanaria.environment["KANARIA_METRICS"] = request.param


@pytest.mark.usefixtures("source")
def test_a_better_version_is_promoted_without_a_failed_request(kanaria: Kanaria, samples: Path) -> None:
    """Start, steps, promotion and the end of the watch: not one request fails, and the evidence is kept."""
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples) as users:
        output = kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(), "--wait")
        kanaria.until(is_over)
        summary = users.stop()
    assert summary.failures == 0, summary.failure_list
    assert summary.requests > 100
    assert "promoted" in output
    status = kanaria.status()
    assert (status["stable"]["tag"], status["canary"]) == ("digits:v2", None)
    assert "digits:v2 was promoted" in " ".join(kanaria.ok("why").split())


def test_a_failing_version_is_rolled_back_with_exit_code_1(kanaria: Kanaria, samples: Path) -> None:
    """With 5 % errors, traffic returns to stable, the reason names the errors, and the tag is in quarantine."""
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples, rate=60) as users:
        done = kanaria("release", "digits:failing", "--spec", kanaria.plan(steps=[50, 100]), "--wait")
        kanaria.until(is_over)
        summary = users.stop()
    assert done.returncode == 1, done.stdout + done.stderr
    why = json.loads(kanaria.ok("why", "--json"))
    assert "failed" in why["verdict"]
    assert {failure.version for failure in summary.failure_list} == {"digits:failing"}
    again = kanaria("release", "digits:failing")
    assert (again.returncode, "quarantine" in again.stderr, "kanaria retry" in again.stderr) == (2, True, True)


SHADOW_FIRST = ["shadow", 5, 50, 100]


def canary_counts(kanaria: Kanaria, signal: str) -> tuple[int, int]:
    """Bad and all events of the canary over the newest release."""
    ((bad, total),) = [seen["canary"] for seen in kanaria.status()["release"]["signals"] if seen["name"] == signal]
    return bad, total


@pytest.mark.usefixtures("source")
def test_a_silently_wrong_version_is_rolled_back_in_the_shadow_step(kanaria: Kanaria, samples: Path) -> None:
    """It answers fast and without errors, and is rolled back before any user gets one of its answers.

    Few answers get labels; otherwise the alert on the quality objective may be as fast as the judge. The step soaks for
    a few windows, because one alone is never enough.
    """
    kanaria.ok("up", "digits:v1")
    signals = {"disagreement": {"on_fail": "rollback"}, "latency": {"slower_than_ms": [250], "tolerance": 2}}
    plan = kanaria.plan(steps=SHADOW_FIRST, soak="6s", signals=signals)
    with kanaria.users(samples, labelled_ratio=0.06) as users:
        done = kanaria("release", "digits:v3", "--spec", plan, "--wait")
        kanaria.until(is_over)
        summary = users.stop()
    assert done.returncode == 1, done.stdout + done.stderr
    assert summary.failures == 0, summary.failure_list
    (row,) = json.loads(kanaria.ok("history", "--json"))
    assert row["signal"].partition(":")[0] in ("disagreement", "paired_label", "wrong_label", "class")
    why = json.loads(kanaria.ok("why", "--json"))
    assert "rolled back in the shadow step" in why["verdict"]
    assert "no user's request reached it" in why["verdict"]
    different, compared = canary_counts(kanaria, "disagreement")
    assert different > 0.1 * compared > 0
    assert canary_counts(kanaria, "wrong_label")[1] > 0, "a label for a copied request must also count for the copy"


@dataclass(frozen=True)
class Story:
    """A release from the shadow step to its promotion, with users all the time and a Grafana."""

    disagreement: tuple[int, int]  # of the canary
    summary: Summary
    panels: list[dict[str, Any]]  # the result of `dashboards check` for each query after enough time
    annotations: list[dict[str, Any]]
    runbooks: dict[str, str]  # the runbook link of each alert in the real Prometheus, and the page behind it


def panels_when_drawn(kanaria: Kanaria) -> list[dict[str, Any]]:
    """The result of `dashboards check` once all its data exist, including a drift report of the new stable."""
    deadline = time.monotonic() + 300  # a drift report has the lowest priority on a busy machine
    while True:
        panels: list[dict[str, Any]] = json.loads(kanaria("dashboards", "check", "--last", "5m", "--json").stdout)
        if time.monotonic() > deadline or all(panel["state"] == "drawn" for panel in panels):
            return panels
        time.sleep(3)  # each check queries Prometheus for all panels


def runbook_links(kanaria: Kanaria) -> list[str]:
    """The runbook links of all alerts that Prometheus evaluates."""
    address = (kanaria.home / "prometheus" / "url").read_text().strip()
    user, _, password = (kanaria.home / "prometheus-login").read_text().partition(":")
    rules, wanted = f"{address}/api/v1/rules", {"type": "alert"}
    answer = httpx.get(rules, params=wanted, auth=(user, password), trust_env=False, timeout=60)
    groups = answer.raise_for_status().json()["data"]["groups"]
    return [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, bento_home: Path, samples: Path, require_program: Any) -> Story:
    """Returns when everything has stopped again: this stack writes a drift report every few seconds while it runs."""
    for program in ("envoy", "prometheus", "prometheus-alertmanager"):
        require_program(program)
    with running_grafana(FakeGrafana()) as grafana:
        kanaria = Kanaria.at(
            tmp_path_factory.mktemp("story"),
            bento_home,
            KANARIA_METRICS="prometheus",
            KANARIA_GRAFANA_URL=grafana.url,
            KANARIA_GRAFANA_TOKEN=GRAFANA_ADMIN,
            KANARIA_DRIFT_EVERY_S="5",
            KANARIA_DRIFT_LAST_S="60",
        )
        try:
            kanaria.ok("up", "digits:v1")
            with kanaria.users(samples) as users:
                plan = kanaria.plan(steps=SHADOW_FIRST, soak="4s", watch="15s")  # long enough for a drift report
                kanaria.ok("release", "digits:v2", "--spec", plan, "--wait")
                kanaria.until(is_over)
                panels = panels_when_drawn(kanaria)
                summary = users.stop()
            return Story(
                disagreement=canary_counts(kanaria, "disagreement"),
                summary=summary,
                panels=panels,
                annotations=list(grafana.annotations),
                runbooks={link: httpx.get(link, trust_env=False, timeout=60).text for link in runbook_links(kanaria)},
            )
        finally:
            kanaria("down")


def test_a_better_version_may_disagree_with_stable(story: Story) -> None:
    """Where v2 differs from v1 it is right: compared in the shadow step, allowed, promoted."""
    assert story.summary.failures == 0, story.summary.failure_list
    different, compared = story.disagreement
    assert 0 < different < 0.1 * compared


def test_every_panel_of_every_dashboard_is_drawn_during_a_release(story: Story) -> None:
    """Every query finds numbers in the real Prometheus, including drift and the budget of the whole period."""
    assert [panel for panel in story.panels if panel["state"] != "drawn"] == []
    assert len(story.panels) > 50


def test_every_alert_links_to_its_runbook(story: Story) -> None:
    """The page is served by this stack's own controller, whatever its port."""
    assert len(story.runbooks) > 20
    for link, page in story.runbooks.items():
        assert f'id="{link.partition("#")[2]}"' in page


def test_grafana_gets_every_decision(story: Story) -> None:
    """They arrive during the release, from the request to the promotion."""
    texts = [annotation["text"] for annotation in story.annotations]
    assert any("release of digits:v2 against digits:v1" in text for text in texts)
    assert any("promoted" in text for text in texts)
    assert sum("(step " in text for text in texts) == len(SHADOW_FIRST)


def test_the_previous_version_keeps_a_share_until_the_watch_ends(kanaria: Kanaria, samples: Path) -> None:
    """The status shows both versions with their shares, the controller may be killed, and no client request fails."""
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples) as users:
        plan = kanaria.plan(steps=[50, 100], holdback="20%", watch="8s")
        kanaria.ok("release", "digits:v2", "--spec", plan)
        status = kanaria.until(  # the decision comes first, then the split
            lambda status: status["stable"]["tag"] == "digits:v2" and status["stable"]["weight_percent"] == 80
        )
        shares = {status[role]["tag"]: status[role]["weight_percent"] for role in ("stable", "canary")}
        kanaria.kill("controller")
        kanaria.until(is_over)
        kanaria.until(lambda status: status["canary"] is None and status["stable"]["weight_percent"] == 100)
        summary = users.stop()
    assert shares == {"digits:v2": 80, "digits:v1": 20}
    assert summary.failures == 0, summary.failure_list
    (row,) = json.loads(kanaria.ok("history", "--json"))
    assert (row["tag"], row["outcome"]) == ("digits:v2", "promoted")


def test_a_killed_version_fails_no_client_request(kanaria: Kanaria, samples: Path) -> None:
    """The gateway answers from stable while the controller rolls back."""
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples) as users:
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(steps=[50, 100], soak="30s"))
        kanaria.until(at_weight(50))
        kanaria.kill("digits@v2")
        status = kanaria.until(is_over)
        summary = users.stop()
    assert status["release"]["outcome"] == "rolled_back"
    assert summary.failures == 0, summary.failure_list
    assert "canary_down" in kanaria.ok("history", "--json")


def test_a_canary_that_loses_its_workers_is_rolled_back_without_a_failed_request(
    kanaria: Kanaria, samples: Path
) -> None:
    """BentoML replaces a worker much later, and the other worker keeps the version ready: nothing else would show it.

    An immediate label does not fail either: the answer is not lost with the worker that gave it.
    """
    kanaria.environment["KANARIA_WORKERS"] = "2"
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples) as users, labelling(kanaria.gateway, kanaria.api_key, samples) as labelled:
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(steps=[50, 100], soak="30s"))
        kanaria.until(at_weight(50))
        for lost, worker in enumerate(psutil.Process(kanaria.pid("digits@v2")).children(), 1):
            worker.kill()
            status = kanaria.until(lambda seen, lost=lost: lost > 1 or seen["canary"]["restarts"] == lost)
        status = kanaria.until(is_over)
        summary = users.stop()
    assert status["release"]["outcome"] == "rolled_back"
    assert summary.failures == 0, summary.failure_list
    assert labelled.failures == []
    assert labelled.requests > 100
    assert "2 workers of digits:v2 ended by themselves" in kanaria.ok("history", "--json")


def test_a_version_with_two_processes_loses_one_without_a_failed_request(kanaria: Kanaria, samples: Path) -> None:
    """No other version could answer for stable: one of its processes gets SIGKILL, and is restarted."""
    kanaria.environment |= {"KANARIA_REPLICAS": "2", "KANARIA_WORKERS": "1"}
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples) as users, labelling(kanaria.gateway, kanaria.api_key, samples) as labelled:
        record, before = kanaria.home / "versions" / "digits@v1#2.json", kanaria.pid("digits@v1#2")
        ready = f"http://127.0.0.1:{json.loads(record.read_text())['port']}{READY_PATH}"
        os.kill(before, signal.SIGKILL)
        kanaria.until(lambda status: status["stable"]["restarts"] == 1)
        secret = {SECRET_HEADER: (kanaria.home / "version-secret").read_text()}
        with loopback.client(timeout_s=1.0, headers=secret, keeps_connections=False) as client:

            def is_back() -> bool:
                with suppress(httpx.HTTPError):
                    return kanaria.pid("digits@v1#2") != before and client.get(ready).is_success
                return False

            kanaria.until(lambda _: is_back())
        asked = users.live().requests
        kanaria.until(lambda _: users.live().requests > asked + 20)
        summary = users.stop()
    assert summary.failures == 0, summary.failure_list
    assert labelled.failures == []


def test_a_killed_controller_continues_where_it_was(kanaria: Kanaria, samples: Path) -> None:
    """Killed in the middle of a step, it is restarted and promotes; no evidence is lost or counted twice."""
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples) as users:
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan())
        kanaria.until(at_weight(10))
        kanaria.kill("controller")
        status = kanaria.until(is_over)
        summary = users.stop()
    assert status["release"]["outcome"] == "promoted"
    assert summary.failures == 0, summary.failure_list
    output = " ".join(kanaria.ok("why").split())
    assert "the controller was restarted and continued where it was" in output


def test_a_hanging_metric_store_does_not_delay_a_release(kanaria: Kanaria, samples: Path, require_program: Any) -> None:
    """Prometheus is suspended in the middle of a step: the counters are read directly, and the status says so."""
    require_program("prometheus")
    kanaria.environment["KANARIA_METRICS"] = "prometheus"
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples) as users:
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(soak="6s"))
        kanaria.until(lambda status: at_weight(10)(status) and status["release"]["verdict"])
        prometheus = kanaria.pid("prometheus")
        os.kill(prometheus, signal.SIGSTOP)
        try:
            status = kanaria.until(is_over)
        finally:
            os.kill(prometheus, signal.SIGCONT)
        kanaria.until(lambda status: not status["troubles"])  # it is asked again and answers again
        users.stop()
    assert status["release"]["outcome"] == "promoted"
    assert any("the counters are read directly" in trouble for trouble in status["troubles"])
    assert "the counters are read directly" in " ".join(kanaria.ok("why").split())


def test_no_traffic_holds_and_then_follows_the_deadline_rule(kanaria: Kanaria) -> None:
    """No data is never a pass: NO_DATA, then a rollback by the plan's deadline."""
    kanaria.ok("up", "digits:v1")
    done = kanaria(
        "release", "digits:v2", "--wait", "--spec", kanaria.plan(step_deadline="6s", on_deadline="rollback", soak="1s")
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (row,) = json.loads(kanaria.ok("history", "--json"))
    assert (row["outcome"], row["signal"]) == ("rolled_back", "deadline")


def test_people_can_pause_resume_and_roll_back(kanaria: Kanaria, samples: Path) -> None:
    """A paused release holds; a second one is refused; after promotion `rollback` returns to the warm version."""
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples):
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(soak="5m", step_deadline="10m", watch="10m"))
        kanaria.until(at_weight(10))
        kanaria.ok("pause", "--reason", "lunch")
        second = kanaria("release", "digits:v3")
        assert (second.returncode, "one release at a time" in second.stderr) == (2, True)
        assert kanaria.status()["release"]["is_paused"]
        kanaria.ok("resume")
        kanaria.ok("promote")
        kanaria.until(
            lambda status: status["stable"]["tag"] == "digits:v2" and status["stable"]["weight_percent"] == 100
        )
        kanaria.ok("rollback", "--reason", "users complain")
        status = kanaria.until(is_over)
    assert (status["stable"]["tag"], status["release"]["outcome"]) == ("digits:v1", "rolled_back")
    assert "users complain" in kanaria.ok("why")


def test_down_during_a_release_keeps_stable_for_the_next_start(kanaria: Kanaria, samples: Path) -> None:
    """The release is aborted and recorded; `up` starts with stable, and the gateway serves it."""
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples):
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(soak="30s"))
        kanaria.until(at_weight(10))
    assert "aborted" in kanaria.ok("down")
    assert "aborted" in kanaria.ok("history")
    kanaria.ok("up")
    row = json.loads(samples.read_text().splitlines()[0])
    answer = httpx.post(
        f"{kanaria.gateway}/predict",
        json={"features": [row["features"]]},
        headers={"x-api-key": kanaria.api_key},
        timeout=60,
    )
    assert (answer.status_code, answer.json()["version"]) == (200, "digits:v1")


def test_a_version_that_does_not_start_gets_no_request(running: Kanaria, bento_home: Path) -> None:
    """Its model cannot be loaded: the version is rolled back, and the reason has its last output."""
    bento = bento_home / "bentos" / "digits" / "broken"
    (source,) = bento.glob("src/service/service.py")
    source.write_text("raise RuntimeError('this version was built broken')\n")
    done = running("release", "digits:broken", "--wait", "--spec", running.plan())
    assert done.returncode == 1, done.stdout + done.stderr
    (row,) = json.loads(running.ok("history", "--json"))
    assert row["signal"] == "startup"
    assert "built broken" in row["reason"]


def test_taken_ports_and_unknown_versions_are_refused_before_anything_starts(running: Kanaria) -> None:
    """The exit code is 2, with what was seen and what to do; no process is left."""
    home = running.home.with_name("other")
    other = Kanaria(home, running.environment | {"KANARIA_HOME": str(home)})
    taken = other("up", "digits:v1")
    assert (taken.returncode, "KANARIA_GATEWAY_PORT" in taken.stderr) == (2, True)
    unknown = other("up", "digits:v99")
    assert (unknown.returncode, "digits:v2" in unknown.stderr) == (2, True)
    assert Supervisor(other.home, other.home / "logs").alive() == {}
    refused = running("release", "digits:v99")
    assert (refused.returncode, "digits:v2" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"features": [[0.0] * 63]}, 422),
        ({"features": [[0.0] * 64] * 10_000}, 422),
        ({"features": [["a"] * 64]}, 422),
        ({"features": [[0.0] * 64], "more": 1}, 422),
        (b'{"features": [[NaN]]}', 422),
        (b"not json", 400),
        (b"x" * 20_000_000, 413),
    ],
    ids=["wrong shape", "10,000 rows", "not numbers", "unknown field", "NaN", "not JSON", "20 MB"],
)
def test_bad_input_is_a_clear_problem_for_the_client(running: Kanaria, body: Any, status: int) -> None:
    """This holds through the gateway too: a 4xx problem with title and detail, never a 500."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    key = {"x-api-key": running.api_key}
    answer = httpx.post(f"{running.gateway}/predict", content=content, headers=key, timeout=60)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"title", "status", "detail"} <= answer.json().keys()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, bento_home: Path) -> Iterator[Kanaria]:
    """One stack for the tests that never change stable; only one of them starts a release."""
    made = Kanaria.at(tmp_path_factory.mktemp("stack"), bento_home, KANARIA_METRICS="scrape")
    made.ok("up", "digits:v1")
    yield made
    made("down")
