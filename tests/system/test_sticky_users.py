"""Sticky callers on a real Envoy: the callers of failed requests are logged, read, counted once, and deleted."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kanaria.stack.ports import free_port
from rollout.control import commands as c
from rollout.judge import Pair
from rollout.ledger import events as e
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split
from rollout.signals.catalogue import AFFECTED_USERS
from rollout.signals.plan import Signals
from rollout.spec import Guards, RolloutSpec
from tests.support.gateway_rig import Gateway, StandIn, eventually
from tests.support.release_rig import ReleaseRig

STABLE, CANARY = "digits:v1", "digits:v2.0-rc_1"
SPEC = RolloutSpec(
    steps=(50, 100),
    window=0.5,
    step_deadline=3600,
    signals=Signals().only("errors", "disagreement"),
    guards=Guards(error_ratio=0.99),
)
STICKY = SPEC.model_copy(update={"sticky": "x-user-id"})


class Rig(ReleaseRig):
    """A release with users, some of whose requests fail."""

    def counted(self, signal: str) -> tuple[int, int, int]:
        """Bad events on stable and on the canary, and all requests."""
        windows = [
            window
            for event in self.events()
            if isinstance(event, e.Ticked)
            for window in event.windows
            if window.signal == signal
        ]
        stable = sum((window.stable for window in windows), Pair(0, 0))
        canary = sum((window.canary for window in windows), Pair(0, 0))
        return stable.bad, canary.bad, stable.total + canary.total

    def predict(self, user: str) -> str:
        """The version that answers `user`."""
        return str(self.gateway.predict(headers={"x-user-id": user}).json()["version"])

    def user_of(self, tag: str) -> str:
        """A user whom the hash sends to `tag`."""
        return next(user for n in count() if self.predict(user := f"user-{n}") == tag)

    def fail(self, user: str | None) -> None:
        """From now on every request of `user` fails, whichever version answers it."""
        for model in self.models:
            model.behave(fails_user=user)

    def log(self) -> list[Any]:
        return [json.loads(line) for line in self.gateway.settings.failures_path.read_text().splitlines()]


@pytest.fixture
def rig(tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[Rig]:
    require_program("envoy")
    settings = GatewaySettings(directory=tmp_path, port=free_port(), stats_port=free_port(), try_timeout_s=1.0)
    with Gateway(settings) as gateway, StandIn(STABLE) as stable, StandIn(CANARY) as canary:
        made = Rig(gateway, tmp_path / "ledger.db", (stable, canary))
        yield made
        made.close()


def test_an_affected_user_is_counted_once_also_after_a_restart(rig: Rig) -> None:
    """Thirty failures of one user are thirty for the budget and one for FAIL; ten more after SIGKILL are none."""
    rig.release(STICKY)
    broken = rig.user_of(CANARY)
    rig.fail(broken)
    for _ in range(30):
        rig.predict(broken)
    rig.until(lambda: rig.counted("errors")[1] == 30 and rig.counted(AFFECTED_USERS)[1])
    rig.restart()
    for _ in range(10):
        rig.predict(broken)
    rig.until(lambda: rig.counted("errors")[1] == 40)
    assert rig.counted(AFFECTED_USERS)[:2] == (0, 1)
    assert rig.counted(AFFECTED_USERS)[2] == rig.counted("errors")[2]


def test_affected_users_of_both_versions_and_unnamed_requests_are_counted(rig: Rig) -> None:
    """One user of stable and one of the canary fail repeatedly, and so do requests without a user."""
    rig.release(STICKY)
    for tag in (STABLE, CANARY):
        rig.fail(broken := rig.user_of(tag))
        for _ in range(5):
            rig.predict(broken)
    for model in rig.models:
        model.behave(status=503)
    for _ in range(8):
        rig.gateway.predict()
    rig.fail(None)
    rig.until(lambda: sum(rig.counted(AFFECTED_USERS)[:2]) == 10)
    assert sum(rig.counted("errors")[:2]) == 18


def test_a_user_whom_another_version_answered_counts_as_affected(rig: Rig) -> None:
    """The canary hangs for several users: stable answers them, and they count as the canary's failures."""
    rig.release(STICKY)
    users = [user for n in range(40) if rig.predict(user := f"user-{n}") == CANARY]
    rig.models[1].behave(delay_s=6.0)
    assert {rig.predict(user) for user in (*users[:3], users[0])} == {STABLE}
    rig.until(lambda: rig.counted("errors")[1] >= 4 and rig.counted(AFFECTED_USERS)[1] >= 3)
    named = {logged["user"] for logged in rig.log() if logged["user"]}
    assert named == set(users[:3])
    assert rig.counted("errors")[0] == rig.counted(AFFECTED_USERS)[0] == 0


def test_nothing_is_logged_if_callers_are_not_sticky(rig: Rig) -> None:
    """Raw errors are judged as before, and no user's name is written to disk."""
    rig.release(SPEC)
    rig.fail("ann")
    for _ in range(20):
        rig.predict("ann")
    rig.until(lambda: sum(rig.counted("errors")[:2]) == 20)
    assert rig.counted(AFFECTED_USERS) == (0, 0, 0)
    assert rig.log() == []


def test_names_are_deleted_with_the_release(rig: Rig) -> None:
    """During the release only one private file has them; the ledger has keys, which are deleted too."""
    rig.release(STICKY)
    rig.fail("ann@example.org")
    rig.predict("ann@example.org")
    rig.until(lambda: sum(rig.counted(AFFECTED_USERS)[:2]) == 1)
    assert [logged["user"] for logged in rig.log()] == ["ann@example.org"]
    path = rig.gateway.settings.failures_path
    assert path.stat().st_mode & 0o777 == 0o600
    rig.controller.execute(c.Abort("ann"))
    rig.until(lambda: rig.controller.snapshot.deployment.active is None and not path.stat().st_size)
    rig.controller.close()
    assert b"ann@example.org" not in b"".join(file.read_bytes() for file in path.parent.glob("ledger.db*"))
    rig.restart()
    assert rig.controller._ledger.affected() is None


def test_only_failed_predictions_are_logged(rig: Rig) -> None:
    """The log has the user, the version and the time; the request reaches the model as the client sent it."""
    stable, canary = rig.models
    rig.gateway.router.apply(Split(stable.version, canary.version, 100, sticky="x-user-id"))
    rig.predict("fine")
    rig.fail('a "quoted" name')
    rig.gateway.client.post("/feedback", headers={"x-user-id": 'a "quoted" name'})
    rig.gateway.client.post("/predictions", headers={"x-user-id": 'a "quoted" name'})
    rig.predict('a "quoted" name')
    eventually(rig.log)
    assert [(logged["user"], logged["version"], logged["routed"]) for logged in rig.log()] == [
        ('a "quoted" name', CANARY, CANARY)
    ]
    assert not [name for name in canary.last_headers() if name.startswith("x-kanaria")]
