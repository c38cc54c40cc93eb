"""Decisions of a real stack reach a real mail server and webhook; none is lost if the controller is killed."""

import json
import stat
from pathlib import Path

import httpx

from tests.support.receivers import mailbox, webhook
from tests.support.stack import Kanaria
from tests.support.waiting import eventually

_KILLS = 2  # of the controller: each may come between sending a message and recording that it was sent


def test_decisions_are_sent_once_and_no_secret_is_written(kanaria: Kanaria, tmp_path: Path) -> None:
    """A webhook that fails at first gets what it missed; no log, command or page contains a part of its address."""
    addresses = tmp_path / "addresses"
    with webhook() as hook, mailbox() as box:
        mail = f"mailto://127.0.0.1:{box.port}?from=kanaria@example.com&to=ann@example.com"
        addresses.write_text(f"{hook.url}\naborted = {mail}\n")
        addresses.chmod(0o640)
        kanaria.environment |= {"KANARIA_NOTIFY": str(addresses), "no_proxy": "127.0.0.1"}
        refused = kanaria("up", "digits:v1")
        assert (refused.returncode, "chmod 600" in refused.stderr) == (2, True)
        addresses.chmod(0o600)
        said = [kanaria.ok("up", "digits:v1"), kanaria.ok("notify", "test")]
        assert "line 1 (json), line 2 (mailto)" in said[0]
        assert [title.partition(": ")[2] for title in hook.titles] == ["test"]
        hook.status = 503
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan())
        kanaria.until(lambda status: status["release"]["phase"] == "stepping")
        kanaria.ok("pause", "--reason", "let me look")
        hook.wait_for_tries(2)
        kanaria.kill("controller")
        hook.status = 200
        hook.wait_for(2)
        kanaria.until(bool)
        kanaria.ok("abort", "--reason", "enough")
        hook.wait_for(3)
        kanaria.kill("controller")
        kanaria.until(lambda status: status["release"]["phase"] == "ended")
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan())
        kanaria.ok("abort", "--reason", "again")
        hook.wait_for(4)
        eventually(lambda: len(box.mails) >= 3)
    folder = tmp_path.name
    # At least once, and in order: a message that was being sent when the controller was killed may come again.
    assert list(dict.fromkeys(hook.titles[1:])) == [
        f"{folder}: release 1 (digits:v2) is paused",
        f"{folder}: release 1 (digits:v2) was aborted",
        f"{folder}: release 2 (digits:v2) was aborted",
    ]
    assert "let me look" in hook.bodies[1]["message"]
    told = [mail["subject"].rpartition(" ")[2] for mail in box.mails[1:]]
    assert set(told) == {"aborted"}
    assert (len(hook.titles[1:]) <= 3 + _KILLS, 2 <= len(told) <= 2 + _KILLS) == (True, True)
    assert stat.S_IMODE((kanaria.home / "notified.json").stat().st_mode) == 0o600
    written = [path.read_text(errors="replace") for path in (kanaria.home / "logs").glob("*.log")]
    written.append((kanaria.home / "notified.json").read_text())
    assert not any("s3cr3t" in text for text in (*written, *said, refused.stderr, kanaria.ok("status", "--json")))


def test_the_pages_of_a_stack_link_to_one_another(kanaria: Kanaria) -> None:
    """Runbooks are included, and requests with a foreign host name are refused."""
    kanaria.ok("up", "digits:v1")
    with httpx.Client(base_url=kanaria.controller, trust_env=False) as client:
        page = client.get("/").raise_for_status()
        assert "<title>digits: no release</title>" in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
        for path in ("/releases", "/runbooks", "/static/style.css", "/static/page.js"):
            assert f'"{path}"' in page.text
            assert client.get(path).status_code == 200
        stolen = client.get("/api/status", headers={"host": "evil.example.com"})
        assert stolen.status_code == 421
        assert "digits" not in stolen.text
        assert json.loads(kanaria.ok("status", "--json"))["name"] == "digits"
