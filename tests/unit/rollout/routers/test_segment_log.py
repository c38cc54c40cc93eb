"""The gateway's log of values that are not segments yet."""

from pathlib import Path

import pytest

from rollout.errors import SourceUnreachable
from rollout.routers.envoy.segment_log import GatewaySegments
from rollout.signals.segments import Asked

BY_ANN = b'{"version":"m:v1","value":"acme","caller":"ann"}\n{"version":"m:v1","value":"acme","caller":null}\n'
NEW = b'{"version":"m:v1","value":"acme"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "segments.jsonl"


def test_a_missing_log_is_not_an_error(path: Path) -> None:
    """A gateway of an earlier version writes none."""
    log = GatewaySegments(path)
    assert log.read("m:v1") == []
    log.clear()


def test_unreadable_lines_are_skipped(path: Path) -> None:
    """Half a line, one without a version, one of another version. Lines that were read are deleted."""
    path.write_bytes(
        NEW + b'{"version":null,"value":"b"}\n{"version":"m:v2","value":"c"}\n{"vers\n\xff\n' + NEW + b'{"v'
    )
    log = GatewaySegments(path)
    assert log.read("m:v1") == [Asked("acme"), Asked("acme")]
    assert path.read_bytes() == b""


def test_the_caller_is_read_if_the_gateway_knows_the_key(path: Path) -> None:
    """Otherwise a value has no caller."""
    path.write_bytes(BY_ANN)
    assert GatewaySegments(path).read("m:v1") == [Asked("acme", "ann"), Asked("acme")]


def test_of_a_long_file_a_part_is_read_and_all_is_deleted(path: Path) -> None:
    """The gateway's controller was away for a day."""
    path.write_bytes(100_000 * NEW)
    found = GatewaySegments(path).read("m:v1")
    assert 1000 < len(found) < 100_000
    assert path.read_bytes() == b""


def test_a_file_that_cannot_be_read_is_reported(path: Path) -> None:
    """The error gives its path."""
    path.mkdir()
    with pytest.raises(SourceUnreachable) as refused:
        GatewaySegments(path).read("m:v1")
    assert str(path) in refused.value.saw
