"""The whole stack with its state folder on a disk that takes nothing more: users are safe, and nothing is forgotten.

Users send no feedback here: it is answered 503 while it cannot be kept.
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
    """A state folder on a disk of its own; plans and users are elsewhere."""
    require_program("envoy")
    with mounted(tmp_path / ".kanaria", mib=64) as disk:
        made = Kanaria.at(tmp_path, bento_home, KANARIA_METRICS="scrape", KANARIA_PREDICTION_LOG_MB="1")
        yield made, disk
        disk.free()
        made("down")


def share(status: dict[str, Any]) -> float | None:
    """What the canary gets, percent, read back from the gateway; None without a canary."""
    canary = status["canary"]
    weight: float | None = canary and canary["weight_percent"]
    return weight


def at_half_on_a_full_disk(kanaria: Kanaria, disk: SmallDisk) -> None:
    """v2 has half of the traffic; what was reserved for the ledger is used up."""
    kanaria.ok("release", "digits:v2", "--spec", kanaria.plan(steps=[50, 100], soak="300s", step_deadline="900s"))
    kanaria.until(lambda status: share(status) == 50)
    disk.fill()

    def is_stuck(status: dict[str, Any]) -> bool:
        disk.fill()
        return any("wait for the ledger" in trouble for trouble in status["troubles"])

    kanaria.until(is_stuck)


def test_a_bad_canary_leaves_a_full_disk_and_history_has_it_all(stack: Stack, samples: Path) -> None:
    """It dies at half of the traffic; when there is room again, the ledger gets the whole story."""
    kanaria, disk = stack
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples, rate=20, labelled_ratio=0) as users:
        at_half_on_a_full_disk(kanaria, disk)
        kanaria.kill("digits@v2")
        # Its share is unknown, too, while the gateway gives no answer.
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


def test_a_person_rolls_back_on_a_full_disk(stack: Stack, samples: Path) -> None:
    """The command ends with 0 and says what is wrong. A controller that is killed then keeps to it."""
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


def test_down_ends_all_on_a_disk_that_can_only_be_read(stack: Stack) -> None:
    """It ended nothing, so that nobody could repair the disk. The next one writes down what came of the release."""
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


def test_a_version_that_was_rolled_back_answers_nobody_where_no_split_can_be_written(
    stack: Stack, samples: Path
) -> None:
    """It had half of the requests until somebody repaired the disk. Nobody notices that its processes are suspended."""
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
        until(lambda: not suspended.is_running())  # whoever started it has noted its end, too
        summary = users.stop()
    assert summary.failures == 0, summary.failure_list
    assert "its processes are suspended" in " ".join(kanaria.ok("why").split())
