"""The gateway's log of failures is read once and in parts, contains no names, and stays small."""

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
    """Each call continues where the last one ended."""
    append(path, line("ann"), line("bob"))
    first, offset = log.read(0)
    append(path, line("cat"))
    second, end = log.read(offset)
    assert [len(first), len(second), end] == [2, 1, path.stat().st_size]
    assert log.read(end) == ([], end)


def test_a_partial_line_waits_for_its_rest(path: Path, log: GatewayFailures) -> None:
    """Envoy writes what it has; the rest comes with the next flush."""
    whole = line()
    append(path, whole[:30])
    assert log.read(0) == ([], 0)
    append(path, whole[30:])
    assert len(log.read(0)[0]) == 1


def test_a_failure_has_the_time_of_its_answer(path: Path, log: GatewayFailures) -> None:
    """The time of the request does not matter: the counters also count at the end."""
    append(path, line())
    assert log.read(0)[0][0].at_s == pytest.approx(1_800_000_000.75)


@pytest.mark.parametrize(
    ("logged", "charged"),
    [
        (("m:v2", "m:v2", 1), ["m:v2"]),
        (("m:v2", "m:v2", 2), ["m:v2"]),
        (("m:v1", "m:v2", 2), ["m:v2"]),  # a try on v2 failed, and v1 answered
        (("m:v1", "m:v2", 1), []),  # v2 was known to be down
        ((None, "m:v2", 1), ["m:v2"]),  # chosen, but without capacity
        ((None, None, 0), []),
    ],
)
def test_a_failure_counts_against_the_version_that_was_chosen(
    path: Path,
    log: GatewayFailures,
    logged: tuple[str | None, str | None, int],
    charged: list[str],
) -> None:
    """This is the rule of the counters."""
    version, routed, attempts = logged
    append(path, line(version=version, routed=routed, attempts=attempts))
    assert [failure.version for failure in log.read(0)[0]] == charged


def test_users_have_distinct_keys_without_names(path: Path, log: GatewayFailures) -> None:
    """Each user has a different key, and without the secret names cannot be tried."""
    append(path, line("ann"), line("bob"), line("ann"))
    ann, bob, again = (failure.user for failure in log.read(0)[0])
    assert ann == again != bob
    assert ann not in {failure.user for failure in GatewayFailures(path, key=b"other").read(0)[0]}


def test_a_request_without_a_user_has_no_key(path: Path, log: GatewayFailures) -> None:
    """Such requests together must not count as one user."""
    append(path, line(None))
    assert log.read(0)[0][0].user is None


def test_counted_lines_are_deleted_when_there_are_many(path: Path, log: GatewayFailures) -> None:
    """The file stays small however long a release lasts; Envoy keeps appending to it."""
    with path.open("a") as envoy:
        envoy.write(line() * 12_000)
        envoy.flush()
        _, offset = log.read(0)
        assert (log.trim(offset), path.stat().st_size) == (0, 0)
        envoy.write(line("bob"))
        envoy.flush()
        failures, end = log.read(0)
    assert (len(failures), end) == (1, path.stat().st_size)


def test_lines_that_are_not_counted_yet_are_never_deleted(path: Path, log: GatewayFailures) -> None:
    """Lines after the last reading stay, and a small file is not emptied."""
    append(path, line() * 12_000)
    _, offset = log.read(0)
    append(path, line("bob"))
    assert log.trim(offset) == offset
    assert len(log.read(offset)[0]) == 1
    os.truncate(path, 0)
    append(path, line())
    _, offset = log.read(0)
    assert (log.trim(offset), path.stat().st_size) == (offset, offset)


def test_a_controller_killed_after_it_emptied_the_file_reads_from_the_start(path: Path, log: GatewayFailures) -> None:
    """The offset in the ledger is then beyond the end of the file."""
    append(path, line() * 12_000)
    _, offset = log.read(0)
    log.trim(offset)
    append(path, line("bob"))
    assert len(log.read(offset)[0]) == 1


def test_a_line_without_its_beginning_is_skipped(path: Path, log: GatewayFailures) -> None:
    """The rest of the log is still read."""
    append(path, line()[20:], line("bob"))
    failures, end = log.read(0)
    assert (len(failures), end) == (1, path.stat().st_size)


def test_a_log_that_cannot_be_parsed_is_an_error(path: Path, log: GatewayFailures) -> None:
    """A different log format must hold the release, not clear the canary."""
    append(path, '{"user": "ann"}\n' * 3)
    with pytest.raises(SourceUnreachable, match="cannot be understood"):
        log.read(0)


def test_reading_a_missing_log_is_an_error(tmp_path: Path) -> None:
    """Emptying it is allowed, as then no users are counted."""
    log = GatewayFailures(tmp_path / "none.jsonl", key=KEY)
    with pytest.raises(SourceUnreachable, match=r"none\.jsonl"):
        log.read(0)
    log.clear()


def test_the_log_is_emptied_when_no_users_are_counted(path: Path, log: GatewayFailures) -> None:
    """Names stay on disk only as long as a release needs them."""
    append(path, line())
    log.clear()
    assert path.stat().st_size == 0
