"""The controller over HTTP: reading is open, commands need the token, and every refusal has a reason."""

import asyncio
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client import Counter as Asked
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from contract.http import DEADLINE_HEADER
from kanaria.stack.ports import free_port
from rollout.control.commands import PromoteNow, SetStable, StartRelease
from rollout.control.metrics import ControllerMetrics
from rollout.errors import ControllerUnreachable
from rollout.fleet import Backend
from rollout.ledger.events import Paused, Restore, RolledBack
from rollout.ledger.ledger import Ledger
from rollout.signals.custom import CustomSignal
from rollout.sources.firing import Firing
from rollout.spec import RolloutSpec
from rollout.ui.admission import Admission
from rollout.ui.api import UntrustedAlerts, make_app
from rollout.ui.callers import Callers, NamedToken, Role, digest
from rollout.ui.client import ControllerClient
from tests.support.peak import at_most
from tests.support.waiting import eventually
from tests.support.world import Version, World

TOKEN = {"authorization": "Bearer secret"}
LATER_S = 4e9  # after every release here
ALERTMANAGER = {"authorization": "Bearer of-alertmanager"}
PLAN = RolloutSpec(steps=(5, 100), soak=1).model_dump(mode="json")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def world(ledger: Path) -> World:
    return World(ledger, versions={"m:v1": Version(start_s=0), "m:v2": Version(start_s=0)})


@pytest.fixture
def firing() -> list[Firing]:
    """The alerts that fire in Prometheus; a test may add some."""
    return []


@pytest.fixture
def people() -> list[NamedToken]:
    """The people with a token; a test may change them."""
    roles: tuple[tuple[str, Role], ...] = (("rita", "reader"), ("rob", "releaser"), ("ann", "approver"))
    return [NamedToken(name=name, role=role, sha256=digest(f"token of {name}"), made_s=0.0) for name, role in roles]


@pytest.fixture
def api(ledger: Path, world: World, firing: list[Firing], people: list[NamedToken]) -> Iterator[httpx.Client]:
    """A controller whose loop runs in a thread, as in its own process, in a world without traffic."""
    path = ledger
    controller = world.unstarted_controller()
    loop = threading.Thread(target=controller.run)
    loop.start()
    app = make_app(
        controller,
        ControllerMetrics(),
        read_ledger=lambda: Ledger(path, read_only=True),
        callers=Callers("secret", lambda: people),
        name="test",
        alerts=UntrustedAlerts("of-alertmanager", lambda: firing),
    )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    front = threading.Thread(target=server.run)
    front.start()
    eventually(lambda: server.started and controller.is_beating(within_s=1e9))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        assert client.post("/api/stable", json={"tag": "m:v1"}, headers=TOKEN).status_code == 202
        yield client
    server.should_exit = True
    controller.stop()
    front.join()
    loop.join()


def alert(**labels: str) -> dict[str, list[dict[str, Any]]]:
    return {"alerts": [{"status": "firing", "labels": {"alertname": "BudgetBurns", **labels}, "annotations": {}}]}


@pytest.mark.parametrize(
    "path", ["/api/stable", "/api/releases", "/api/checks", "/api/restore", "/api/commands/abort", "/api/alerts"]
)
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}])
def test_commands_need_the_token(api: httpx.Client, path: str, headers: dict[str, str]) -> None:
    """Traffic never moves without it."""
    answer = api.post(path, json={}, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize("header", ["authorization", "header:Cookie"])
def test_a_plan_cannot_identify_callers_by_their_secrets(api: httpx.Client, header: str) -> None:
    """The gateway would log the secrets of failed requests. A file with such a plan was refused, a POST was not."""
    answer = api.post("/api/releases", json={"tag": "m:v2", "spec": {**PLAN, "sticky": header}}, headers=TOKEN)
    assert (answer.status_code, "its values are secrets" in answer.text) == (422, True)
    assert api.get("/api/status").json()["release"] is None


def test_own_signals_of_a_plan_are_looked_up_on_stables_page(api: httpx.Client, world: World) -> None:
    """The current page is read; if it cannot be read, the answer says so."""
    registry = CollectorRegistry()
    Asked("answers", "-", registry=registry).inc()
    page, thread = start_http_server(port := free_port(), "127.0.0.1", registry)
    status = world.status
    world.status = lambda tag: replace(status(tag), backends=(Backend(tag, "127.0.0.1", port),))  # type: ignore[method-assign]
    client = ControllerClient(str(api.base_url), token="secret", by="ann")
    own = {
        "slow": CustomSignal(histogram="answer_seconds", above=1),
        "bad": CustomSignal(bad="no_total", of="anwsers_total"),
    }
    spec = RolloutSpec.model_validate({"signals": {"custom": own}})

    def found() -> object:
        with suppress(ControllerUnreachable):  # until the next beat it asks stable's old address
            return client.check(spec).findings
        return None

    eventually(found)
    check = client.check(spec)
    assert check.stable == "m:v1"
    assert [(each.signal, each.is_certain) for each in check.findings] == [
        ("custom.slow", True),
        ("custom.bad", True),
        ("custom.bad", False),
    ]
    assert "`answers_total`" in check.findings[1].do
    assert client.check(RolloutSpec()).findings == ()
    page.shutdown()
    page.server_close()
    thread.join()
    with pytest.raises(ControllerUnreachable, match="m:v1 gives no metrics that can be read"):
        client.check(spec)
    client.close()


def test_a_version_is_restored_by_one_request(api: httpx.Client) -> None:
    """The status says that it has no steps. A version that was never promoted is refused."""

    def release() -> dict[str, Any]:
        found: dict[str, Any] = api.get("/api/status").json()["release"]
        return found

    client = ControllerClient(str(api.base_url), token="secret", by="ann")
    client.release("m:v2", RolloutSpec(steps=(5, 100), soak=1))
    eventually(lambda: release()["phase"] == "stepping")
    for _ in ("promote", "end the watch"):
        client.command("promote")
    assert client.restore("m:v1", reason="wrong labels", quarantine=True) == 2
    eventually(lambda: release()["outcome"] == "restored")
    status = api.get("/api/status").json()
    assert (status["stable"]["tag"], status["canary"]["tag"]) == ("m:v1", "m:v2")
    assert (status["release"]["is_restore"], status["release"]["steps"]) == (True, [])
    assert list(status["quarantined"]) == ["m:v2"]
    assert "restored" in api.get("/").text
    assert "restore of m:v1 in place of m:v2, which goes into quarantine" in api.get("/releases/2").text
    refused = api.post("/api/restore", json={"tag": "m:v2"}, headers=TOKEN)
    assert refused.status_code == 409
    assert "`kanaria rollback` returns to it" in refused.json()["do"]
    client.close()


def test_a_status_has_the_state_of_one_moment(ledger: Path, world: World) -> None:
    """Ledger events after the last beat belong to the next status; the two are never mixed."""

    async def read(app: Starlette) -> dict[str, Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            found: dict[str, Any] = (await client.get("/api/status")).json()
            return found

    controller = world.controller()
    controller.execute(SetStable(tag="m:v1", by="ann"))
    controller.execute(StartRelease(tag="m:v2", spec=RolloutSpec(steps=(5, 100), soak=1), by="ann"))
    world.live(controller, 30)
    earlier = controller.snapshot
    controller.execute(PromoteNow(by="ann"))
    app = make_app(
        controller,
        ControllerMetrics(),
        read_ledger=lambda: Ledger(ledger, read_only=True),
        callers=Callers("secret", list),
        name="test",
    )
    now = asyncio.run(read(app))
    controller.snapshot = earlier
    seen = asyncio.run(read(app))
    assert (now["stable"]["tag"], now["release"]["outcome"]) == ("m:v2", "promoted")
    assert (seen["stable"]["tag"], seen["release"]["outcome"]) == ("m:v1", None)
    controller.close()


@pytest.mark.parametrize(
    "body", [{}, {"tag": "m"}, {"tag": "m:v1", "quarantine": "perhaps"}, {"tag": "m:v1", "watch": 5}, {"tag": None}]
)
def test_an_invalid_restore_request_is_refused(api: httpx.Client, body: dict[str, Any]) -> None:
    """The problem names the place, and nothing changes."""
    answer = api.post("/api/restore", json=body, headers=TOKEN)
    assert answer.status_code == 422, answer.text
    assert api.get("/api/status").json()["release"] is None


def test_an_accepted_release_is_shown(api: httpx.Client) -> None:
    """It is in the status, on the page and in the metrics."""
    assert api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN, "by": "ann"}, headers=TOKEN).json() == {
        "release": 1
    }
    status = api.get("/api/status").json()
    assert (status["release"]["canary"], status["release"]["by"]) == ("m:v2", "ann")
    assert "m:v2" in api.get("/").text
    assert "m:v2" in api.get("/releases/1").text
    names = {family.name for family in text_string_to_metric_families(api.get("/metrics").text)}
    assert {"kanaria_release_weight_percent", "kanaria_release_state", "kanaria_source_unreachable"} <= names


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/releases", {"tag": "m:v9", "spec": PLAN}, 409, "there is no version m:v9"),
        ("/api/releases", {"tag": "no colon", "spec": PLAN}, 422, "tag"),
        ("/api/releases", {"tag": "m:v2", "spec": {"steps": [5]}}, 422, "exactly 100"),
        ("/api/releases", {"tag": "m:v2", "spec": PLAN, "stepz": 1}, 422, "stepz"),
        ("/api/commands/pause", {}, 409, "no release is running"),
        ("/api/commands/dance", {}, 404, "dance"),
    ],
)
def test_a_refused_request_is_a_problem_with_a_reason(
    api: httpx.Client, path: str, body: dict[str, object], status: int, words: str
) -> None:
    """It has the form of RFC 9457 and never contains a stack trace."""
    answer = api.post(path, json=body, headers=TOKEN)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.text


def test_a_body_that_is_not_json_is_a_problem(api: httpx.Client) -> None:
    """It has place and reason and is not a 500."""
    assert api.post("/api/releases", content=b"{", headers=TOKEN).status_code == 422


@pytest.mark.parametrize("path", ["commands/pause", "releases", "checks", "restore", "stable", "alerts"])
def test_a_body_that_is_too_long_is_not_kept_in_memory(api: httpx.Client, path: str) -> None:
    """A reader's token suffices to send one, and the controller needs its memory to judge."""
    parts = (b"x" * 2**18 for _ in range(20))
    headers = TOKEN if path == "alerts" else as_("rita")
    with suppress(httpx.WriteError):  # the server may close the connection before the answer is read
        assert api.post(f"/api/{path}", content=parts, headers=headers).status_code == 413
    assert api.get("/api/status").is_success


@pytest.mark.parametrize("path", ["commands/pause", "releases", "checks", "restore", "stable", "alerts"])
def test_a_body_with_very_many_mistakes_is_refused_without_listing_all(api: httpx.Client, path: str) -> None:
    """Four megabytes of `{}` took three gigabytes of the controller's memory, and it did not answer for 20 s."""
    unknown = ",".join(f'"{number}":1' for number in range(60_000))
    body = '{"alerts":[' + "{}," * 300_000 + "{}]}" if path == "alerts" else f"{{{unknown}}}"
    with at_most(megabytes=60):
        answer = api.post(f"/api/{path}", content=body.encode(), headers=TOKEN if path == "alerts" else as_("rita"))
    assert (answer.status_code, len(answer.content) < 1000) == (422, True)


@pytest.mark.parametrize("number", ["99", "9" * 18, "9" * 23, "9" * 5000, "-1", "x", "\u0663"])
def test_an_unknown_release_is_not_found(api: httpx.Client, number: str) -> None:
    """A wrong number in the address is not a server error, however large it is."""
    answer = api.get(f"/releases/{number}")
    assert (answer.status_code, answer.json()["title"]) == (404, "there is no such release")


def test_a_command_that_was_reported_as_failed_is_not_executed_later(api: httpx.Client, world: World) -> None:
    """The loop hangs for longer than the sender waits; when it continues, it skips the command."""
    hangs, goes_on, start = threading.Event(), threading.Event(), world.start

    def hang(tag: str) -> None:
        hangs.set()
        assert goes_on.wait(30)
        start(tag)

    world.start = hang  # type: ignore[method-assign]
    assert hangs.wait(30)
    soon = {DEADLINE_HEADER: f"{time.time() + 1.0}"}
    answer = api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN | soon)
    assert (answer.status_code, "will not be carried out" in answer.json()["detail"]) == (503, True)
    goes_on.set()
    api.post("/api/commands/pause", json={}, headers=TOKEN)  # the loop has processed everything that came before
    assert api.get("/api/status").json()["release"] is None


def test_a_command_that_arrives_after_its_deadline_is_refused(api: httpx.Client) -> None:
    """It waited in a socket while the controller hung, and its sender was told that the controller does not answer."""
    late = {DEADLINE_HEADER: f"{time.time() - 5}"}
    answer = api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN | late)
    assert (answer.status_code, "arrived too late" in answer.json()["title"]) == (409, True)
    assert api.get("/api/status").json()["release"] is None


@pytest.mark.parametrize("deadline", ["soon", "nan", ""])
def test_an_invalid_deadline_is_refused(api: httpx.Client, deadline: str) -> None:
    """It is not treated as no deadline."""
    answer = api.post("/api/stable", json={"tag": "m:v1"}, headers=TOKEN | {DEADLINE_HEADER: deadline})
    assert (answer.status_code, "Unix seconds" in answer.json()["title"]) == (409, True)


def test_an_alert_that_asks_for_a_rollback_rolls_back(api: httpx.Client) -> None:
    """The ledger says which alert it was; the same alert again has no effect."""
    api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN)
    firing = alert(action="rollback", version="m:v2")
    assert api.post("/api/alerts", json=firing, headers=TOKEN).json()["alerts"][0]["did"] == "rolled back"
    again = api.post("/api/alerts", json=firing, headers=TOKEN).json()["alerts"][0]["did"]
    assert again.startswith("nothing")
    release = api.get("/api/status").json()["release"]
    assert (release["outcome"], "BudgetBurns" in release["sentence"]) == ("rolled_back", True)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"action": "rollback", "version": "m:v1"}, "about m:v1"),
        ({"version": "m:v2"}, "does not ask"),
        ({"action": "page", "version": "m:v2"}, "does not ask"),
    ],
)
def test_other_alerts_change_nothing(api: httpx.Client, labels: dict[str, str], words: str) -> None:
    """Some are about another version, some are for information only; the answer gives the reason."""
    api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN)
    answer = api.post("/api/alerts", json=alert(**labels), headers=TOKEN).json()["alerts"][0]["did"]
    assert answer.startswith("nothing")
    assert words in answer
    assert api.get("/api/status").json()["release"]["outcome"] is None


def test_a_resolved_alert_changes_nothing(api: httpx.Client) -> None:
    """Alertmanager sends a resolved alert with the same labels."""
    api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN)
    over = alert(action="rollback", version="m:v2")
    over["alerts"][0]["status"] = "resolved"
    assert "resolved" in api.post("/api/alerts", json=over, headers=TOKEN).json()["alerts"][0]["did"]
    assert api.get("/api/status").json()["release"]["outcome"] is None


def test_an_alert_from_before_the_release_is_ignored(api: httpx.Client) -> None:
    """Alertmanager repeats a firing alert; a version that is released again is not rolled back for its past."""
    firing = alert(action="rollback", version="m:v2")
    firing["alerts"][0]["startsAt"] = "2020-01-01T00:00:00Z"
    api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN)
    assert "began before" in api.post("/api/alerts", json=firing, headers=TOKEN).json()["alerts"][0]["did"]
    assert api.get("/api/status").json()["release"]["outcome"] is None


def test_an_alert_that_prometheus_does_not_confirm_changes_nothing(api: httpx.Client, firing: list[Firing]) -> None:
    """Anyone may post to an Alertmanager: a name, version or action that does not fire is a forgery."""
    api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN)
    forged = alert(action="rollback", version="m:v2")
    real = dict(forged["alerts"][0]["labels"])
    for near in ({}, {"alertname": "Other"}, {"version": "m:v1"}, {"action": "page"}, {"more": "labels"}):
        firing[:] = [Firing(real | near, LATER_S)] if near else []
        done = api.post("/api/alerts", json=forged, headers=ALERTMANAGER).json()["alerts"]
        assert [one["did"] for one in done] == ["nothing: Prometheus has no such alert firing"]
    assert api.get("/api/status").json()["release"]["outcome"] is None
    firing[:] = [Firing(real, LATER_S)]
    assert api.post("/api/alerts", json=forged, headers=ALERTMANAGER).json()["alerts"][0]["did"] == "rolled back"


def test_the_start_of_an_alert_is_taken_from_prometheus(api: httpx.Client, firing: list[Firing]) -> None:
    """An alert about an earlier attempt cannot be posted again as a new one."""
    old = alert(action="rollback", version="m:v2")
    firing.append(Firing(dict(old["alerts"][0]["labels"]), 1.0))
    api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN)
    assert "began before" in api.post("/api/alerts", json=old, headers=ALERTMANAGER).json()["alerts"][0]["did"]


def test_alertmanagers_token_may_only_post_alerts(api: httpx.Client) -> None:
    """It is accepted for no command."""
    for path in ("/api/releases", "/api/stable", "/api/commands/rollback"):
        assert api.post(path, json={"tag": "m:v2"}, headers=ALERTMANAGER).status_code == 401


def test_an_alert_without_a_release_changes_nothing(api: httpx.Client) -> None:
    """The watch is over; there is no version to return to."""
    answer = api.post("/api/alerts", json=alert(action="rollback", version="m:v1"), headers=TOKEN)
    assert "no release is running" in answer.json()["alerts"][0]["did"]


def test_a_flood_of_alerts_rolls_back_once(api: httpx.Client, ledger: Path) -> None:
    """1,000 alerts in one request, 500 about other versions: one rollback in the ledger, and an answer for each."""
    api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN)
    about = ("m:v2", "m:v9")
    flood = {"alerts": [*(alert(action="rollback", version=about[n % 2])["alerts"][0] for n in range(1000))]}
    did = Counter(answer["did"] for answer in api.post("/api/alerts", json=flood, headers=TOKEN).json()["alerts"])
    assert did == {
        "rolled back": 1,
        "nothing: release 1 (m:v2) is already leaving": 999,
    }
    written = Ledger(ledger, read_only=True)
    (event,) = [event for event in written.events() if isinstance(event, RolledBack)]
    written.close()
    assert (event.by, event.signal, event.reason) == ("alertmanager", "alert", "BudgetBurns: BudgetBurns")


def test_the_effect_of_alerts_is_logged_in_one_line(api: httpx.Client) -> None:
    """Many alerts do not make many lines."""
    with capture_logs() as lines:
        api.post("/api/alerts", json=alert(version="m:v2"), headers=TOKEN)
    (line,) = [line for line in lines if line["event"] == "alerts"]
    assert (line["received"], line["did"]) == (1, {"nothing: it does not ask for a rollback": 1})


def test_a_rollback_that_cannot_be_written_is_executed_and_reported(
    api: httpx.Client, ledger: Path, world: World
) -> None:
    """The answer, the status, the page and the client say that the ledger lacks it."""
    assert api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN).is_success
    eventually(lambda: api.get("/api/status").json()["release"]["phase"] == "stepping")
    other = sqlite3.connect(ledger, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    client = ControllerClient(str(api.base_url), token="secret", by="ann")
    (trouble,) = client.command("rollback")
    client.close()
    assert "locked" in trouble
    eventually(lambda: world.router.history[-1].canary is None)
    status = api.get("/api/status").json()
    assert status["release"]["outcome"] == "rolled_back"
    assert "wait for the ledger" in status["troubles"][0]
    assert "wait for the ledger" in api.get("/").text
    refused = api.post("/api/commands/promote", json={}, headers=TOKEN)
    assert refused.status_code in (409, 503)
    other.close()
    eventually(lambda: not api.get("/api/status").json()["troubles"])
    eventually(lambda: api.get("/api/status").json()["release"]["phase"] == "ended")


def test_the_ledger_stores_no_terminal_control_characters(api: httpx.Client, ledger: Path) -> None:
    """They are removed from names of people, reasons and alerts."""
    steering = "\x1b[2Jeve\n\x9b1m\u202e"
    start = {"tag": "m:v2", "spec": PLAN, "by": steering}
    assert api.post("/api/releases", json=start, headers=TOKEN).status_code == 202
    command = {"by": steering, "reason": steering}
    assert api.post("/api/commands/pause", json=command, headers=TOKEN).status_code == 202
    labels = {"alertname": f"Burned{steering}", "action": "rollback"}
    alert = {"status": "firing", "labels": labels, "annotations": {"summary": steering}}
    assert api.post("/api/alerts", json={"alerts": [alert]}, headers=TOKEN).status_code == 200
    read = Ledger(ledger, read_only=True)
    texts = [str(value) for event in read.events() for _, value in event]
    read.close()
    assert any("[2Jeve" in text for text in texts)
    assert not {"\x1b", "\x9b", "\u202e"} & set("".join(texts))


@pytest.mark.parametrize(
    "name",
    [
        "judge",
        " Controller",
        "alert\x1bmanager",
        "DRIFT",
        "ju\u200bdge",
        "\ufeff drift",
        "judge\ufe0f",
        "ju\u034fdge",
        "\u3164judge",
        "\uff4a\uff55dge",
        "\U0001d423udge",
        "con\U000e0101troller",
        "Kanaria  ledger restore",
    ],
)
def test_no_person_can_act_under_kanarias_names(api: httpx.Client, name: str) -> None:
    """Else the ledger would say that the judge promoted what a person promoted."""
    for path, body in (
        ("/api/releases", {"tag": "m:v2", "spec": PLAN}),
        ("/api/stable", {"tag": "m:v1"}),
        ("/api/commands/promote", {}),
        ("/api/commands/rollback", {"reason": "it was slow"}),
    ):
        refused = api.post(path, json={**body, "by": name}, headers=TOKEN)
        assert (refused.status_code, "for a part of Kanaria; write the name of the person" in refused.text) == (
            422,
            True,
        )


def as_(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer token of {name}"}


def test_a_token_gives_the_name_and_the_role(api: httpx.Client, ledger: Path) -> None:
    """A reader commands nothing, a releaser what makes traffic safer, an approver everything; each by their name."""
    start = {"tag": "m:v2", "spec": PLAN, "by": "somebody else"}
    assert api.post("/api/releases", json=start, headers=as_("nobody")).status_code == 401
    assert api.post("/api/releases", json=start, headers=as_("rita")).status_code == 403
    assert api.post("/api/releases", json=start, headers=as_("rob")).status_code == 202
    assert api.get("/api/status").json()["release"]["by"] == "rob"
    refused = api.post("/api/commands/promote", json={}, headers=as_("rob"))
    assert (refused.status_code, refused.json()["detail"]) == (403, "rob has the role `releaser`")
    eventually(lambda: api.get("/api/status").json()["release"]["phase"] == "stepping")
    assert api.post("/api/commands/promote", json={"by": "the boss"}, headers=as_("ann")).status_code == 202
    eventually(lambda: api.get("/api/status").json()["release"]["phase"] == "watching")
    read = Ledger(ledger, read_only=True)
    assert [event.by for event in read.events() if event.kind == "promoted"] == ["ann"]
    read.close()
    assert api.post("/api/commands/rollback", json={}, headers=as_("rita")).status_code == 403
    assert api.post("/api/commands/rollback", json={}, headers=as_("rob")).status_code == 202
    again = {"tag": "m:v2", "spec": PLAN, "retry": True}
    assert api.post("/api/releases", json=again, headers=as_("rob")).status_code == 403
    checks = [api.post("/api/checks", json={"spec": PLAN}, headers=as_(name)).status_code for name in ("rita", "rob")]
    assert checks == [403, 200]
    for name in ("rita", "rob", "ann"):
        assert api.post("/api/stable", json={"tag": "m:v1"}, headers=as_(name)).status_code == 403
        assert api.post("/api/alerts", json={"alerts": []}, headers=as_(name)).status_code == 401


def test_a_refusal_names_the_roles_that_may(api: httpx.Client) -> None:
    """It names no role that would be refused too. For everybody, an unknown command is unknown."""
    for name, path, whom in (
        ("rita", "/api/commands/pause", "somebody with the role `releaser` or `approver`, or the owner"),
        ("rob", "/api/commands/promote", "somebody with the role `approver`, or the owner"),
        ("ann", "/api/stable", "the owner"),
    ):
        refused = api.post(path, json={"tag": "m:v1"} if path == "/api/stable" else {}, headers=as_(name))
        command = path.rpartition("/")[2]
        assert refused.json()["title"] == f"your role is not enough for `{command}`"
        assert refused.json()["do"] == f"ask {whom} of the state folder"
    unknown = [api.post("/api/commands/dance", json={}, headers=headers) for headers in (TOKEN, as_("rita"))]
    assert [answer.status_code for answer in unknown] == [404, 404]


def test_tokens_are_read_once_for_a_command(people: list[NamedToken]) -> None:
    """The token that let the caller in also determines the role."""
    reads = []

    def named() -> list[NamedToken]:
        reads.append("read")
        return people

    admission = Admission(Callers("secret", named), None)

    async def who(request: Request) -> Response:
        return PlainTextResponse(admission.person(request, "somebody", "pause"))

    async def asked() -> str:
        app = Starlette(routes=[Route("/", admission.for_people(who), methods=["POST"])])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return (await client.post("/", headers=as_("rob"))).text

    assert (asyncio.run(asked()), reads) == ("rob", ["read"])


def test_a_withdrawn_token_is_refused_at_once(api: httpx.Client, people: list[NamedToken]) -> None:
    """The controller needs no restart."""
    assert api.post("/api/commands/pause", json={}, headers=as_("ann")).status_code == 409  # nothing runs
    people.clear()
    assert api.post("/api/commands/pause", json={}, headers=as_("ann")).status_code == 401


def test_control_characters_in_an_older_ledger_are_removed() -> None:
    """They are removed when it is read."""
    read = Paused.model_validate_json('{"at_s": 1, "release": 1, "reason": "\\u001b[2J", "by": "e\\u001bve"}')
    assert (read.reason, read.by) == ("[2J", "eve")
    assert Restore(reason="\x1b[2Jwrong\u202e").reason == "[2Jwrong"


def test_a_command_for_an_outdated_state_is_refused(api: httpx.Client) -> None:
    """The sender may give the release and phase that it saw; without them the command is for what runs now."""
    assert api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN).status_code == 202
    eventually(lambda: api.get("/api/status").json()["release"]["phase"] == "stepping")
    for seen in ({"release": 1, "phase": "starting"}, {"release": 2, "phase": "stepping"}):
        refused = api.post("/api/commands/promote", json=seen, headers=TOKEN)
        assert refused.status_code == 409
        assert "the release moved on since you looked" in refused.json()["title"]
    assert api.get("/api/status").json()["release"]["phase"] == "stepping"
    assert api.post("/api/commands/pause", json={"release": 1, "phase": "stepping"}, headers=TOKEN).status_code == 202
    assert api.post("/api/commands/resume", json={}, headers=TOKEN).status_code == 202


def test_a_served_report_runs_only_its_own_scripts(api: httpx.Client) -> None:
    """Each answer has its own nonce; the history links to the report."""
    api.post("/api/releases", json={"tag": "m:v2", "spec": PLAN}, headers=TOKEN)
    assert 'href="/releases/1"' in api.get("/releases").text
    policies = [api.get("/releases/1").headers["content-security-policy"] for _ in range(2)]
    assert all("script-src 'nonce-" in policy for policy in policies)
    assert policies[0] != policies[1]
