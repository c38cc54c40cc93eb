"""The whole stack with its state folder on a full disk: no user is affected, and no event is lost.

Users send no feedback here: it is answered 503 while it cannot be stored.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.left_running import processes_under
from tests.support.processes import until
from tests.support.small_disk import SmallDisk, mounted, read_only
from tests.support.stack import Kanaria

Stack = tuple[Kanaria, SmallDisk]


@pytest.fixture
def stack(tmp_path: Path, bento_home: Path, require_program: Callable[[str], str]) -> Iterator[Stack]:
    """A stack whose state folder is on its own disk; plans and users are elsewhere."""
    require_program("envoy")
    with mounted(tmp_path / ".kanaria", mib=64) as disk:
        made = Kanaria.at(tmp_path, bento_home, KANARIA_METRICS="scrape", KANARIA_PREDICTION_LOG_MB="1")
        yield made, disk
        disk.free()
        made("down")


def share(status: dict[str, Any]) -> float | None:
    """The canary's share in percent, as the gateway reports it; None without a canary."""
    canary = status["canary"]
    weight: float | None = canary and canary["weight_percent"]
    return weight


def at_half_on_a_full_disk(kanaria: Kanaria, disk: SmallDisk) -> None:
    """Give v2 half of the traffic and use up the space that is reserved for the ledger."""
    kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(steps=[50, 100], soak="300s", step_deadline="900s"))
    kanaria.until(lambda status: share(status) == 50)
    disk.fill()

    def is_stuck(status: dict[str, Any]) -> bool:
        disk.fill()
        return any("wait for the ledger" in trouble for trouble in status["troubles"])

    kanaria.until(is_stuck)


def test_a_bad_canary_is_rolled_back_on_a_full_disk_with_complete_history(stack: Stack, samples: Path) -> None:
    """It dies at half of the traffic; when there is space again, the ledger gets all events."""
    kanaria, disk = stack
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples, rate=20, labelled_ratio=0) as users:
        at_half_on_a_full_disk(kanaria, disk)
        kanaria.kill("digits@v2")
        # Its share is also unknown while the gateway does not answer.
        gone = kanaria.until(lambda status: not share(status) and status["release"]["outcome"] is not None)
        assert gone["troubles"]
        assert gone["release"]["outcome"] == "rolled_back"
        disk.free()
        kanaria.until(lambda status: not any("ledger" in trouble for trouble in status["troubles"]))
        summary = users.stop()
    assert summary.failures == 0, summary.failure_list
    (row,) = json.loads(kanaria.ok("history", "--json"))
    assert (row["outcome"], row["signal"]) == ("rolled_back", "canary_down")
    refused = kanaria("release", "digits:v2")
    assert "quarantine" in refused.stderr


def test_a_person_can_roll_back_on_a_full_disk(stack: Stack, samples: Path) -> None:
    """The command exits with 0 and names the problem. A controller that is killed then keeps the decision."""
    kanaria, disk = stack
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples, rate=20, labelled_ratio=0) as users:
        at_half_on_a_full_disk(kanaria, disk)
        done = kanaria("rollback", "--reason", "looks wrong")
        assert (done.returncode, "rollback: done" in done.stdout) == (0, True), done.stdout + done.stderr
        assert "wait for the ledger" in " ".join(done.stdout.split())
        assert "wait for the ledger" in " ".join(kanaria.ok("status").split())
        kanaria.until(lambda status: not share(status))
        kanaria.kill("controller")
        kanaria.until(lambda status: status["release"]["outcome"] == "rolled_back" and not share(status))
        disk.free()
        kanaria.until(lambda status: not any("ledger" in trouble for trouble in status["troubles"]))
        summary = users.stop()
    assert summary.failures == 0, summary.failure_list
    (row,) = json.loads(kanaria.ok("history", "--json"))
    assert (row["outcome"], row["signal"], row["reason"]) == ("rolled_back", "person", "looks wrong")


def test_down_stops_everything_on_a_read_only_disk(stack: Stack) -> None:
    """It used to stop nothing, so the disk could not be repaired. The next `down` records the end of the release."""
    kanaria, _ = stack
    kanaria.ok("up", "digits:v1")
    kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(steps=[50, 100], soak="300s", step_deadline="900s"))
    kanaria.until(lambda status: share(status) == 50)
    with read_only(kanaria.home):
        done = kanaria("down")
        assert (done.returncode, processes_under(str(kanaria.home.parent))) == (3, [])
        assert "everything is stopped, but" in done.stderr
        assert "Read-only file system" in done.stderr
    assert "release 1 (digits:v2) is aborted" in kanaria.ok("down")
    assert "nothing is running" in kanaria.ok("down")


def test_a_rolled_back_version_answers_nobody_if_no_split_can_be_written(stack: Stack, samples: Path) -> None:
    """It kept half of the requests until the disk was repaired. Now its processes are suspended; no user notices."""
    kanaria, _ = stack
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples, rate=20, labelled_ratio=0) as users:
        kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(steps=[50, 100], soak="300s", step_deadline="900s"))
        kanaria.until(lambda status: share(status) == 50)
        suspended = psutil.Process(kanaria.pid("digits@v2"))
        with read_only(kanaria.home / "gateway"):
            kanaria.ok("rollback", "--reason", "looks wrong")
            kanaria.until(lambda _: suspended.status() == psutil.STATUS_STOPPED)
            status = kanaria.until(lambda status: any("cannot be written" in one for one in status["troubles"]))
            assert share(status) == 50
            before = users.live().requests
            kanaria.until(lambda _: users.live().requests > before + 100)
        kanaria.until(lambda status: status["release"]["phase"] == "ended" and status["canary"] is None)
        until(lambda: not suspended.is_running())  # the keeper has also recorded its end
        summary = users.stop()
    assert summary.failures == 0, summary.failure_list
    assert "its processes are suspended" in " ".join(kanaria.ok("why").split())
