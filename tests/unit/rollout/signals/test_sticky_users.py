"""Which users failures affect: each user counts once over both versions. And how dependent stable's failures are."""

from rollout.judge import Pair, Window
from rollout.signals.catalogue import AFFECTED_USERS
from rollout.signals.sticky_users import AffectedUsers, Progress, UserFailure

STABLE, CANARY = "m:v1", "m:v2"
BUSY = Window(10.0, 5.0, "errors", Pair(9, 90), Pair(9, 10))  # enough requests for any number of first failures


def failure(user: str | None, version: str = CANARY, *, at_s: float = 8.0) -> UserFailure:
    return UserFailure(at_s, version, None if user is None else user.encode())


def affected_users(users: AffectedUsers, *failures: UserFailure, errors: Window = BUSY) -> tuple[int, int]:
    """The number of users affected for the first time, on stable and on canary."""
    window = users.window(errors, failures, 0)
    return window.stable.bad, window.canary.bad


def counter(**known: object) -> AffectedUsers:
    return AffectedUsers(stable=STABLE, canary=CANARY, **known)  # type: ignore[arg-type]


def test_a_user_with_repeated_failures_counts_once() -> None:
    """All failures of one user over all windows count once; requests all count."""
    users = counter()
    window = users.window(BUSY, [failure("ann")] * 7, 0)
    assert (window.signal, window.stable, window.canary) == (AFFECTED_USERS, Pair(0, 90), Pair(1, 10))
    assert affected_users(users, failure("ann")) == (0, 0)


def test_the_first_version_that_failed_a_user_is_charged() -> None:
    """A user who failed on stable does not count again after a step moved the user to the canary."""
    users = counter()
    assert affected_users(users, failure("ann", STABLE), failure("bob")) == (1, 1)
    assert affected_users(users, failure("ann"), failure("bob", STABLE)) == (0, 0)


def test_requests_without_a_user_count_individually() -> None:
    """They are routed at random, one by one."""
    assert affected_users(counter(), failure(None), failure(None)) == (0, 2)


def test_failures_of_other_versions_do_not_count() -> None:
    """They belong to an earlier release and were still being written when this one began."""
    assert affected_users(counter(), failure("ann", "m:v0")) == (0, 0)


def test_a_failure_waits_until_its_request_is_counted() -> None:
    """Log and counters are two files; no window may have more bad events than events."""
    users, idle = counter(), Window(10.0, 5.0, "errors", Pair(0, 90), Pair(0, 0))
    assert affected_users(users, failure("ann"), errors=idle) == (0, 0)
    assert affected_users(users) == (0, 1)
    assert affected_users(users) == (0, 0)


def test_skipped_failures_do_not_count() -> None:
    """In a window across a change of weight failures do not count, and a later one of the same user is the first."""
    users, idle = counter(), Window(10.0, 5.0, "errors", Pair(0, 90), Pair(0, 0))
    users.window(idle, [failure("ann", at_s=8.0)], 0)
    users.skip(12.0)
    assert affected_users(users, failure("bob", at_s=11.9), failure("cat", at_s=12.1)) == (0, 1)
    assert affected_users(users, failure("bob", at_s=13.0)) == (0, 1)


def test_copied_requests_count_individually() -> None:
    """In the shadow both versions have the same users, so the hash cannot be unlucky."""
    assert counter().shadow_window(BUSY, 0) == Window(10.0, 5.0, AFFECTED_USERS, BUSY.stable, BUSY.canary)


def test_failures_in_the_shadow_step_are_not_first_failures() -> None:
    """Users meet the canary later; a failure on stable in the shadow must not hide one on the canary."""
    users = counter()
    users.shadow_window(BUSY, 0)
    assert affected_users(users, failure("ann", STABLE, at_s=9.0)) == (0, 0)
    assert affected_users(users, failure("ann", CANARY, at_s=11.0)) == (0, 1)


def test_phi_is_measured_on_stables_users() -> None:
    """Three failures of one user and one of another on stable give 10 / 4. Failures on the canary change nothing."""
    users = counter()
    affected_users(users, *[failure("ann", STABLE)] * 3, failure("bob", STABLE), *[failure("cat")] * 50)
    assert users.phi == 10 / 4


def test_without_failures_phi_is_one() -> None:
    """There is nothing to measure yet."""
    assert counter().phi == 1.0


def test_a_killed_controller_counts_no_user_twice() -> None:
    """The saved parts give the same state: affected users, waiting failures, and the position in the log."""
    first, idle = counter(), Window(10.0, 5.0, "errors", Pair(0, 90), Pair(0, 0))
    first.window(BUSY, [failure("ann", STABLE), failure("ann", STABLE)], 100)
    one = first.progress()
    first.saved()
    first.window(idle, [failure("bob")], 200)
    two = first.progress()
    assert two.failures_on_stable == {b"bob": 0}, "only new users are written"
    second = counter(progress=Progress(two.offset, two.waiting, {**one.failures_on_stable, **two.failures_on_stable}))
    assert (second.offset, second.phi) == (200, first.phi)
    assert affected_users(second, failure("ann"), failure("bob")) == (0, 1)


def test_users_that_could_not_be_saved_are_saved_next_time() -> None:
    """A full disk loses no user."""
    users = counter()
    users.window(BUSY, [failure("ann")], 100)
    users.progress()
    users.window(BUSY, [failure("bob")], 200)
    assert users.progress().failures_on_stable == {b"ann": 0, b"bob": 0}
