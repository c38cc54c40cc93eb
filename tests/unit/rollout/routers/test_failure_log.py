"""The gateway's log of failures, read piece by piece: nothing twice, no names, and no more disk than needed."""

import json
import os
from pathlib import Path

import pytest

from rollout.errors import SourceUnreachable
from rollout.routers.envoy.failure_log import GatewayFailures

KEY = b"secret"


def line(
    user: str | None = "ann",
    *,
    version: str | None = "m:v2",
    routed: str | None = "m:v2",
    attempts: int = 1,
) -> str:
    """One line in Envoy's format."""
    logged = {
        "start_s": "1800000000.250",
        "took_ms": 500,
        "version": version,
        "routed": routed,
        "attempts": attempts,
        "user": user,
    }
    return json.dumps(logged) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "failures.jsonl"
    made.touch()
    return made


@pytest.fixture
def log(path: Path) -> GatewayFailures:
    return GatewayFailures(path, key=KEY)


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(lines)


def test_every_line_is_read_once(path: Path, log: GatewayFailures) -> None:
    """Each call continues where the previous one ended."""
    append(path, line("ann"), line("bob"))
    first, offset = log.read(0)
    append(path, line("cat"))
    second, end = log.read(offset)
    assert [len(first), len(second), end] == [2, 1, path.stat().st_size]
    assert log.read(end) == ([], end)


def test_half_a_line_waits(path: Path, log: GatewayFailures) -> None:
    """Envoy writes what it has; the rest comes with the next flush."""
    whole = line()
    append(path, whole[:30])
    assert log.read(0) == ([], 0)
    append(path, whole[30:])
    assert len(log.read(0)[0]) == 1


def test_a_failure_has_the_time_at_which_it_was_answered(path: Path, log: GatewayFailures) -> None:
    """The time of the request does not matter: the counters too count at the end."""
    append(path, line())
    assert log.read(0)[0][0].at_s == pytest.approx(1_800_000_000.75)


@pytest.mark.parametrize(
    ("logged", "charged"),
    [
        (("m:v2", "m:v2", 1), ["m:v2"]),
        (("m:v2", "m:v2", 2), ["m:v2"]),
        (("m:v1", "m:v2", 2), ["m:v2"]),  # v2 failed a try, and v1 answered
        (("m:v1", "m:v2", 1), []),  # v2 was known not to be up
        ((None, "m:v2", 1), ["m:v2"]),  # chosen, but too full to take it
        ((None, None, 0), []),
    ],
)
def test_the_version_that_was_chosen_is_charged(
    path: Path,
    log: GatewayFailures,
    logged: tuple[str | None, str | None, int],
    charged: list[str],
) -> None:
    """The same rule as for the counters."""
    version, routed, attempts = logged
    append(path, line(version=version, routed=routed, attempts=attempts))
    assert [failure.version for failure in log.read(0)[0]] == charged


def test_users_are_told_apart_but_not_named(path: Path, log: GatewayFailures) -> None:
    """Each user has one key, different from all others, and without the secret nobody can try names."""
    append(path, line("ann"), line("bob"), line("ann"))
    ann, bob, again = (failure.user for failure in log.read(0)[0])
    assert ann == again != bob
    assert ann not in {failure.user for failure in GatewayFailures(path, key=b"other").read(0)[0]}


def test_a_request_without_a_user_has_no_key(path: Path, log: GatewayFailures) -> None:
    """All such requests together must not become one user."""
    append(path, line(None))
    assert log.read(0)[0][0].user is None


def test_counted_lines_are_dropped_once_there_are_many(path: Path, log: GatewayFailures) -> None:
    """The file stays small however long a release lasts; Envoy goes on appending to it."""
    with path.open("a") as envoy:
        envoy.write(line() * 12_000)
        envoy.flush()
        _, offset = log.read(0)
        assert (log.trim(offset), path.stat().st_size) == (0, 0)
        envoy.write(line("bob"))
        envoy.flush()
        failures, end = log.read(0)
    assert (len(failures), end) == (1, path.stat().st_size)


def test_lines_that_were_not_counted_yet_are_never_dropped(path: Path, log: GatewayFailures) -> None:
    """Lines that came after the last reading stay, and a small file is not emptied."""
    append(path, line() * 12_000)
    _, offset = log.read(0)
    append(path, line("bob"))
    assert log.trim(offset) == offset
    assert len(log.read(offset)[0]) == 1
    os.truncate(path, 0)
    append(path, line())
    _, offset = log.read(0)
    assert (log.trim(offset), path.stat().st_size) == (offset, offset)


def test_a_controller_killed_after_the_file_was_emptied_reads_it_from_the_start(
    path: Path, log: GatewayFailures
) -> None:
    """The ledger's offset is then beyond the end."""
    append(path, line() * 12_000)
    _, offset = log.read(0)
    log.trim(offset)
    append(path, line("bob"))
    assert len(log.read(offset)[0]) == 1


def test_a_line_that_lost_its_beginning_is_left_out(path: Path, log: GatewayFailures) -> None:
    """The rest of the log is still read."""
    append(path, line()[20:], line("bob"))
    failures, end = log.read(0)
    assert (len(failures), end) == (1, path.stat().st_size)


def test_a_log_that_cannot_be_parsed_is_no_evidence_of_health(path: Path, log: GatewayFailures) -> None:
    """Another gateway's format must hold the release, not clear the canary."""
    append(path, '{"user": "ann"}\n' * 3)
    with pytest.raises(SourceUnreachable, match="cannot be understood"):
        log.read(0)


def test_a_missing_log_is_no_evidence_of_health(tmp_path: Path) -> None:
    """Reading it fails; clearing it is fine, as then no users are counted."""
    log = GatewayFailures(tmp_path / "none.jsonl", key=KEY)
    with pytest.raises(SourceUnreachable, match=r"none\.jsonl"):
        log.read(0)
    log.clear()


def test_where_no_users_are_counted_nothing_is_kept(path: Path, log: GatewayFailures) -> None:
    """Names stay on disk no longer than a release needs them."""
    append(path, line())
    log.clear()
    assert path.stat().st_size == 0
