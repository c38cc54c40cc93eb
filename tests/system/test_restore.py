"""One command restores a version that was promoted before, on the real stack and under load."""

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from rollout.ledger.events import Applied
from rollout.ledger.ledger import Ledger
from tests.support.stack import Kanaria


def serves(tag: str) -> Any:
    return lambda status: status["stable"]["tag"] == tag and status["stable"]["weight_percent"] == 100


def is_alone(status: dict[str, Any]) -> bool:
    return status["release"]["phase"] == "ended" and status["canary"] is None


def restore(kanaria: Kanaria, tag: str, *options: str, kind: str) -> None:
    """Restore `tag`, and print how long it takes until it has all traffic."""
    began_s = time.monotonic()
    kanaria.ok("restore", tag, *options)
    kanaria.until(serves(tag))
    typed_s = time.monotonic() - began_s
    decided_s = seconds_to_apply(kanaria.home / "ledger.db", tag)
    print(f"{kind}: {tag} has all traffic {typed_s:.1f} s after the command was typed, {decided_s:.2f} s after it came")


def seconds_to_apply(ledger: Path, tag: str) -> float:
    """The time from the newest command in the ledger until the gateway gave `tag` all traffic."""
    with closing(Ledger(ledger, read_only=True)) as opened:
        events = list(opened.events(without_ticks=True))
    asked_s = max(event.at_s for event in events if event.kind in ("release_requested", "rolled_back"))
    applied = [event for event in events if isinstance(event, Applied) and (event.stable, event.canary) == (tag, None)]
    return applied[-1].at_s - asked_s


def test_a_promoted_version_is_restored_with_one_command(kanaria: Kanaria, samples: Path) -> None:
    """It is stopped, warm, or the controller is killed meanwhile: no request fails; the history says who and why."""
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples) as users:
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(watch="10m"), "--wait")
        kanaria.ok("promote")
        kanaria.until(is_alone)
        late = kanaria("rollback")
        assert (late.returncode, "kanaria restore digits:v1" in late.stderr) == (2, True)
        restore(kanaria, "digits:v1", "--reason", "labels are wrong", kind="stopped")
        restore(kanaria, "digits:v2", "--reason", "they were not", kind="warm")
        begun = kanaria.begin("restore", "digits:v1", "--quarantine", "--reason", "they are", "--wait")
        kanaria.until(lambda status: status["release"]["is_restore"] and status["release"]["phase"] == "starting")
        kanaria.kill("controller")
        output, _ = begun.communicate(timeout=300)
        assert begun.returncode == 0, output
        kanaria.until(serves("digits:v1"))
        summary = users.stop()
    assert summary.failures == 0, summary.failure_list
    assert summary.requests > 100
    refused = kanaria("restore", "digits:v2")
    assert (refused.returncode, "quarantine" in refused.stderr) == (2, True)
    rows = json.loads(kanaria.ok("history", "--json"))
    assert [row["outcome"] for row in rows] == ["promoted", "rolled_back", "restored"]
    why = " ".join(kanaria.ok("why").split())
    assert "digits:v1 was restored by" in why
    assert "they are" in why
    assert "Traceback" not in late.stderr + refused.stderr
