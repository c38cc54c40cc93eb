"""Pushing to Grafana over HTTP, with a server that answers as Grafana does."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Literal

import pytest

from kanaria.stack.ports import free_port
from kanaria.stack.signal_graphs import signal_graphs
from monitoring.errors import GrafanaError
from monitoring.grafana.dashboards import boards
from monitoring.grafana.dashboards.resources import FOLDER_UID, DataSource, Webhook
from monitoring.grafana.push import Annotation, Grafana, push
from tests.support.dribbling import dribbling
from tests.support.grafana import ADMIN, EDITOR, FakeGrafana, running
from tests.support.running_server import running_server
from tests.support.thread_limit import no_more_threads

SOURCE = DataSource("http://127.0.0.1:9090", 5.0)
WEBHOOK = Webhook("http://127.0.0.1:8090", "controller's token")
(OVERVIEW, *_) = boards(signal_graphs())


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    with running(FakeGrafana()) as grafana:
        yield grafana


@pytest.fixture
def grafana(fake: FakeGrafana) -> Iterator[Grafana]:
    with Grafana(fake.url, ADMIN) as opened:
        yield opened


def pushed(grafana: Grafana) -> dict[str, str]:
    return {change.thing: change.done for change in push(grafana, boards(signal_graphs()), SOURCE, WEBHOOK)}


def refusal(grafana: Grafana) -> GrafanaError:
    with pytest.raises(GrafanaError) as raised:
        pushed(grafana)
    return raised.value


def test_a_push_creates_everything(fake: FakeGrafana, grafana: Grafana) -> None:
    """It creates the data source, the folder, the boards with their uids and the contact point."""
    assert set(pushed(grafana).values()) == {"created"}
    assert fake.data_sources["kanaria-prometheus"]["url"] == SOURCE.url
    assert {uid: kept["folderUid"] for uid, kept in fake.boards.items()} == dict.fromkeys(
        ("kanaria-overview", "kanaria-release", "kanaria-model", "kanaria-judge"), FOLDER_UID
    )
    (contact,) = fake.contact_points.values()
    assert contact["settings"]["url"] == "http://127.0.0.1:8090/api/alerts"
    assert contact["settings"]["authorization_credentials"] == WEBHOOK.token


def test_the_login_is_kept_in_grafanas_secrets(fake: FakeGrafana, grafana: Grafana) -> None:
    """Grafana shows it to nobody; because it cannot be read back, it is written each time."""
    for password in ("Basic old", "Basic new"):
        source = DataSource(SOURCE.url, 5.0, password)
        done = grafana.push_data_source(source).done
        kept = fake.data_sources["kanaria-prometheus"]
        assert kept["secureJsonData"] == {"httpHeaderValue1": password}
        assert (kept["jsonData"]["httpHeaderName1"], "Basic" in str(kept["jsonData"])) == ("Authorization", False)
    assert done == "unchanged"


def test_a_second_push_writes_nothing(fake: FakeGrafana, grafana: Grafana) -> None:
    """Everything is unchanged, and Grafana got no write request."""
    pushed(grafana)
    fake.writes.clear()
    assert set(pushed(grafana).values()) == {"unchanged"}
    assert fake.writes == []


def test_manual_changes_are_reverted(fake: FakeGrafana, grafana: Grafana) -> None:
    """Only what changed is written: an edited board, a board that was moved away, the data source."""
    pushed(grafana)
    fake.boards["kanaria-overview"]["dashboard"]["title"] = "mine"
    fake.boards["kanaria-model"]["folderUid"] = ""
    fake.data_sources["kanaria-prometheus"]["url"] = "http://elsewhere"
    changed = {thing for thing, done in pushed(grafana).items() if done == "updated"}
    assert changed == {"Kanaria / Overview", "Kanaria / Model", "data source"}
    assert fake.boards["kanaria-overview"]["dashboard"]["title"] == OVERVIEW.title
    assert fake.boards["kanaria-overview"]["dashboard"]["version"] == 2


def test_a_contact_point_for_another_controller_is_updated(grafana: Grafana) -> None:
    """Its token cannot be read back, but its address can."""
    pushed(grafana)
    change = grafana.push_contact_point(Webhook("http://127.0.0.1:9999", "another"))
    assert change.done == "updated"


def test_simultaneous_saves_do_not_overwrite_each_other(fake: FakeGrafana, grafana: Grafana) -> None:
    """Grafana answers 412: the other change stays, and the message says what to do."""
    pushed(grafana)
    fake.boards["kanaria-overview"]["dashboard"]["title"] = "mine"

    def somebody_saves(_: str) -> None:
        fake.boards["kanaria-overview"]["dashboard"]["version"] += 1

    fake.before_write = somebody_saves
    error = refusal(grafana)
    assert ("at the same moment" in error.what, "push again" in error.do) == (True, True)
    assert fake.boards["kanaria-overview"]["dashboard"]["title"] == "mine"


def test_an_invalid_token_is_reported(fake: FakeGrafana) -> None:
    """Grafana answers 401: the message says how to get a valid token and does not repeat the wrong one."""
    with Grafana(fake.url, "glsa_wrong") as grafana:
        error = refusal(grafana)
    assert ("does not know this token" in error.what, "KANARIA_GRAFANA_TOKEN" in error.do) == (True, True)
    assert "glsa_wrong" not in str(error)


def test_a_token_without_permission_gets_the_missing_permission(fake: FakeGrafana) -> None:
    """Grafana answers 403: an editor may not create data sources."""
    with Grafana(fake.url, EDITOR) as grafana:
        error = refusal(grafana)
    assert ("may not change the data source" in error.what, "role Admin" in error.do) == (True, True)
    assert fake.writes == []


@pytest.mark.parametrize(
    ("version", "is_old"), [("10.4.3", True), ("9.5.0-pre", True), ("11.0.0", False), ("12.1.0+security", False)]
)
def test_an_old_grafana_is_refused_before_anything_is_written(version: str, *, is_old: bool) -> None:
    """The message names both versions."""
    with running(FakeGrafana(version=version)) as fake, Grafana(fake.url, ADMIN) as grafana:
        if not is_old:
            assert grafana.check_version() == version
            return
        error = refusal(grafana)
        assert ("too old" in error.what, version in error.saw, "11.0" in error.do) == (True, True, True)
        assert fake.writes == []


def test_an_unreachable_grafana_is_reported() -> None:
    """The message has the address, without a password that the address contains."""
    port = free_port()
    with Grafana(f"http://admin:hidden@127.0.0.1:{port}", None) as grafana:
        error = refusal(grafana)
    assert ("does not answer" in error.what, f":{port}" in error.saw, "KANARIA_GRAFANA_URL" in error.do) == (
        True,
        True,
        True,
    )
    assert "hidden" not in str(error)


def test_a_server_that_never_answers_times_out() -> None:
    """The time limit includes the answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Grafana(url, ADMIN, timeout_s=0.2) as grafana:
            assert "does not answer" in refusal(grafana).what


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_server_that_sends_a_byte_now_and_then_times_out(part: str) -> None:
    """The time limit is for the whole answer."""
    kind: Literal["head", "body"] = "head" if part == "head" else "body"
    with dribbling(kind) as server, Grafana(server.url, ADMIN, timeout_s=0.3) as grafana:
        assert "does not answer" in refusal(grafana).what


def test_a_request_without_a_free_thread_is_a_grafana_error() -> None:
    """The caller that sends annotations continues only after such errors."""
    with Grafana("http://127.0.0.1:9", ADMIN, timeout_s=5) as grafana, no_more_threads():
        assert "can't start new thread" in refusal(grafana).saw


def test_another_kind_of_server_is_not_taken_for_grafana() -> None:
    """A web page answers instead of the API."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None: ...

    with (
        running_server(HTTPServer(("127.0.0.1", 0), Page)) as server,
        Grafana(f"http://127.0.0.1:{server.server_port}", ADMIN) as grafana,
    ):
        error = refusal(grafana)
    assert "is not Grafana" in error.what


def test_a_read_only_data_source_gets_advice(fake: FakeGrafana, grafana: Grafana) -> None:
    """A data source from a file is read-only, whatever the token's role is."""
    pushed(grafana)
    fake.data_sources["kanaria-prometheus"] |= {"readOnly": True, "url": "http://elsewhere"}
    error = refusal(grafana)
    assert ("reads the data source from a file" in error.what, "do not push to this Grafana" in error.do) == (
        True,
        True,
    )


def events(count: int) -> list[Annotation]:
    return [Annotation(f"1/step/{n}", 1_700_000_000.0 + n, f"step {n}", ("release:1",)) for n in range(count)]


def test_annotations_are_added_once(fake: FakeGrafana, grafana: Grafana) -> None:
    """They are pushed repeatedly and exceed the hundred that Grafana lists by default."""
    assert grafana.push_annotations(events(150)) == 150
    assert grafana.push_annotations(events(151)) == 1
    assert grafana.push_annotations(events(151)) == 0
    assert len(fake.annotations) == 151


def test_an_annotation_has_a_time_a_text_and_tags(fake: FakeGrafana, grafana: Grafana) -> None:
    """The time is in milliseconds, and the tags are those that the boards select."""
    grafana.push_annotations(events(1))
    (kept,) = fake.annotations
    seen: dict[str, Any] = {key: kept[key] for key in ("time", "text", "tags")}
    assert seen == {
        "time": 1_700_000_000_000,
        "text": "step 0",
        "tags": ["kanaria", "release:1", "event:1/step/0"],
    }
