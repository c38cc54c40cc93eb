"""The prediction log is bounded, never delays a request, and holds no private columns."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

import service.logs.segments as module
from contract.answer_types import Labels, Prediction
from contract.model_files import Feature, Schema
from service.logs.predictions import PredictionLog

PLAIN = Schema(
    features=(Feature(name="age", minimum=0, maximum=120), Feature(name="weight", minimum=0, maximum=300)),
    answer=Labels(labels=("no", "yes")),
)
PRIVATE = Schema(
    features=(
        Feature(name="age", minimum=0, maximum=120),
        Feature(name="income", minimum=0, maximum=1e9, logged="never"),
        Feature(name="postcode", minimum=0, maximum=99999, logged="hashed"),
    ),
    answer=Labels(labels=("no", "yes")),
)


@dataclass
class Logs:
    """The logs in one folder, and the number of rows they dropped."""

    folder: Path
    dropped: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def open(self, version: str = "m:1", schema: Schema = PLAIN, *, max_bytes: int = 10_000_000) -> PredictionLog:
        def count(rows: int) -> None:
            self.dropped[version] += rows

        return PredictionLog(
            self.folder,
            version,
            "model:1",
            schema,
            max_bytes=max_bytes,
            count_dropped=count,
            count_failure=lambda: self.failures.append(version),
        )

    def lines(self, version: str = "m@1") -> list[dict[str, Any]]:
        segments = sorted((self.folder / version).glob("*.jsonl"))
        return [orjson.loads(line) for path in segments for line in path.read_bytes().splitlines()]

    def columns(self, version: str = "m@1") -> dict[str, Any]:
        columns: dict[str, Any] = orjson.loads((self.folder / version / "columns.json").read_bytes())
        return columns

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*/*.jsonl"))


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "predictions")


def record(log: PredictionLog, rows: list[list[float]], request_id: str = "r", body: bytes | None = None) -> None:
    """Record one answered request as the service does."""
    checked: NDArray[np.float32] = np.array(rows, dtype=np.float32)
    predictions = [Prediction("yes", 0.75) for _ in rows]
    answer = orjson.dumps({"request_id": request_id, "version": "m:1", "predictions": predictions})
    log.record(orjson.dumps({"features": rows}) if body is None else body, checked, answer)


def turn(log: PredictionLog) -> None:
    """Do one turn of the log's thread, which is not running yet."""
    log._write(*log._drain())


def test_a_line_holds_the_request_and_the_answer(logs: Logs) -> None:
    """Both are logged as they were received and sent, with the time."""
    with logs.open() as log:
        record(log, [[30, 70.5], [40, 80]], "caller-7")
    (line,) = logs.lines()
    assert line.pop("at_s") > 1.7e9
    assert line == {
        "request": {"features": [[30, 70.5], [40, 80]]},
        "answer": {
            "request_id": "caller-7",
            "version": "m:1",
            "predictions": [{"label": "yes", "confidence": 0.75}] * 2,
        },
    }


def test_the_columns_are_named_in_a_separate_file(logs: Logs) -> None:
    """The file is beside the segments of a version."""
    with logs.open() as log:
        record(log, [[30, 70]])
    columns = {"version": "m:1", "model": "model:1", "features": ["age", "weight"], "words": [], "hashed": []}
    assert logs.columns() == columns


@pytest.mark.parametrize("link", ["the folder", "columns", "columns that are written"])
def test_no_link_is_followed(logs: Logs, tmp_path: Path, link: str) -> None:
    """Another version may create one to a file that it cannot reach itself."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "1-1.jsonl").write_text("requests")
    (other / "columns.json").write_text("{}")
    os.utime(other / "1-1.jsonl", (0, 0))
    place = logs.folder / "m@1"
    logs.folder.mkdir()
    if link == "the folder":
        place.symlink_to(other)
    else:
        place.mkdir()
        name = "columns.json" if link == "columns" else f".columns.json.{os.getpid()}"
        (place / name).symlink_to(other / "columns.json")
    (logs.folder / "another").symlink_to(other)
    with logs.open() as log:
        record(log, [[30, 70]])
    assert bool(logs.failures) is (link == "the folder")  # a link to a file is replaced instead
    assert {path.name: path.read_text() for path in other.iterdir()} == {"1-1.jsonl": "requests", "columns.json": "{}"}


def test_only_the_owner_can_read_the_log(logs: Logs) -> None:
    """Requests may hold personal data."""
    with logs.open() as log:
        record(log, [[30, 70]])
    (segment,) = logs.folder.glob("*/*.jsonl")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (logs.folder, segment.parent, segment)] == [
        0o700,
        0o700,
        0o600,
    ]


@pytest.mark.parametrize("body", [b'{\n "features":\r\n [[30, 70]]\n}', b" " * 5000 + b'{"features": [[30, 70]]}'])
def test_white_space_neither_breaks_lines_nor_fills_the_disk(logs: Logs, body: bytes) -> None:
    """A body of several lines becomes one line; one that is mostly blanks is rewritten without them."""
    with logs.open() as log:
        record(log, [[30, 70]], body=body)
    (line,) = logs.lines()
    assert (line["request"], logs.bytes < 300) == ({"features": [[30, 70]]}, True)


def test_private_columns_are_hashed_or_left_out(logs: Logs) -> None:
    """Their values appear nowhere in the folder; equal values have equal hashes, so they can be counted."""
    with logs.open(schema=PRIVATE) as log:
        record(log, [[30, 55_555, 10_117], [31, 44_444, 10_117], [32, 33_333, 80_331]])
    (line,) = logs.lines()
    same, again, other = (hashes[0] for hashes in line["request"]["hashed"])
    assert (line["request"]["features"], logs.columns()["features"]) == ([[30], [31], [32]], ["age"])
    assert (logs.columns()["hashed"], same == again, same == other) == (["postcode"], True, False)
    written = b"".join(path.read_bytes() for path in logs.folder.rglob("*") if path.is_file())
    assert not [value for value in (b"55555", b"44444", b"33333", b"10117", b"80331") if value in written]


def test_hashes_are_the_same_for_all_versions_on_one_machine_only(logs: Logs, tmp_path: Path) -> None:
    """The key is created once, and only its owner can read it."""
    other_machine = Logs(tmp_path / "other")
    for place, version in ((logs, "m:1"), (logs, "m:2"), (other_machine, "m:1")):
        with place.open(version, PRIVATE) as log:
            record(log, [[30, 1, 10_117]])
    hashes = [
        place.lines(at)[0]["request"]["hashed"] for place, at in ((logs, "m@1"), (logs, "m@2"), (other_machine, "m@1"))
    ]
    assert (hashes[0] == hashes[1], hashes[0] == hashes[2]) == (True, False)
    assert stat.S_IMODE((logs.folder / "hash-key").stat().st_mode) == 0o600


def test_a_pipe_in_place_of_the_key_blocks_nothing(logs: Logs) -> None:
    """Another version may create it. The rows are dropped and counted."""
    logs.folder.mkdir()
    os.mkfifo(logs.folder / "hash-key")
    with logs.open("m:1", PRIVATE) as log:
        record(log, [[30, 1, 10_117]])
    assert logs.dropped["m:1"] == 1


def test_the_oldest_segments_of_all_versions_make_room(logs: Logs) -> None:
    """Ten times as much as the limit is written: the newest rows are kept and the limit holds."""
    kept = 40_000
    for turn in range(10):
        with logs.open(f"m:{turn % 2}", max_bytes=kept) as log:
            for number in range(200):
                record(log, [[30, 70]], f"r{turn}-{number}")
    last = [line["answer"]["request_id"] for line in logs.lines("m@1")][-1]
    assert (logs.bytes <= kept, last) == (True, "r9-199")


def test_one_long_running_process_stays_within_the_limit(logs: Logs) -> None:
    """Segments are rotated and removed while it runs."""
    log = logs.open(max_bytes=40_000)
    for number in range(3000):
        record(log, [[30, 70]], f"r{number}")
        if number % 20 == 0:
            turn(log)
    with log:
        pass
    assert (logs.bytes <= 40_000 + 10_000, logs.lines()[-1]["answer"]["request_id"]) == (True, "r2999")


def test_a_segment_that_was_removed_is_replaced(logs: Logs) -> None:
    """Another process removed it to make room: the next rows go into a new file."""
    log = logs.open()
    record(log, [[30, 70]], "before")
    turn(log)
    for path in logs.folder.glob("*/*.jsonl"):
        path.unlink()
    record(log, [[30, 70]], "after")
    with log:
        pass
    assert [line["answer"]["request_id"] for line in logs.lines()] == ["after"]


@pytest.mark.parametrize("takes", [1, 700])
def test_a_partial_write_is_continued(logs: Logs, monkeypatch: pytest.MonkeyPatch, takes: int) -> None:
    """A disk may accept only part of the data. There are also more lines than one call accepts."""
    write_some = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, lines: write_some(descriptor, [b"".join(lines)[:takes]]))
    with logs.open() as log:
        for number in range(2 * module.LINES_AT_ONCE + 1):
            record(log, [[30, 70]], f"r{number}")
    found = [line["answer"]["request_id"] for line in logs.lines()]
    assert (found, logs.failures) == ([f"r{number}" for number in range(2 * module.LINES_AT_ONCE + 1)], [])


def test_lines_keep_their_order(logs: Logs) -> None:
    """Some lines are ready when they are given, and others are built by the thread."""
    bodies = [None, b'{"features":\n[[30, 70]]}', b" " * 5000 + b'{"features": [[30, 70]]}']
    with logs.open() as log:
        for number in range(300):
            record(log, [[30, 70]], f"r{number}", body=bodies[number % 3])
    assert [line["answer"]["request_id"] for line in logs.lines()] == [f"r{number}" for number in range(300)]
    assert all(line["request"] == {"features": [[30, 70]]} for line in logs.lines())


def test_a_log_that_cannot_keep_up_drops_and_counts(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request waits: rows beyond the limit are dropped, and each is counted."""
    monkeypatch.setattr(module, "MAX_WAITING_ROWS", 10)
    log = logs.open()  # its thread is not running, so nothing is written yet
    for _ in range(12):
        record(log, [[30, 70], [40, 80]])
    with log:
        pass
    assert (logs.dropped["m:1"], sum(len(line["request"]["features"]) for line in logs.lines())) == (14, 10)


def test_a_folder_that_cannot_be_written_loses_rows_but_no_answer(logs: Logs) -> None:
    """The folder's path is a file; once that is removed the log continues."""
    logs.folder.write_text("in the way")
    log = logs.open()
    record(log, [[30, 70]], "lost")
    turn(log)
    logs.folder.unlink()
    record(log, [[30, 70]], "kept")
    with log:
        pass
    assert ([line["answer"]["request_id"] for line in logs.lines()], logs.dropped["m:1"]) == (["kept"], 1)


MIXED = Schema(
    features=(
        Feature(name="sex", categories=("female", "male")),
        Feature(name="age", minimum=0, maximum=120, may_be_missing=True),
        Feature(name="port", categories=("C", "Q"), may_be_missing=True, logged="hashed"),
    ),
    answer=Labels(labels=("no", "yes")),
)


def test_named_rows_are_logged_as_lists(logs: Logs) -> None:
    """A reader finds the columns in order, with words as words and missing values as null."""
    with logs.open(schema=MIXED) as log:
        record(log, [[1, float("nan"), 0]])
        record(log, [[1, float("nan"), 0], [0, 30, float("nan")]])
    with logs.open("m:2") as log:
        log.record(b'{"rows": [{"weight": 70, "age": 30}]}', np.array([[30, 70]], np.float32), b"{}", is_listed=False)
    assert [line["request"]["features"] for line in logs.lines()] == [
        [["male", None]],
        [["male", None], ["female", 30]],
    ]
    assert len({tuple(map(tuple, line["request"]["hashed"])) for line in logs.lines()}) == 2
    assert (logs.columns()["words"], logs.lines("m@2")[0]["request"]) == (["sex"], {"features": [[30, 70]]})


def test_a_missing_number_is_null_without_categories(logs: Logs) -> None:
    """There is a private column beside it, so the request is rewritten."""
    schema = PRIVATE.model_copy(
        update={"features": (PRIVATE.features[0].model_copy(update={"may_be_missing": True}), *PRIVATE.features[1:])}
    )
    with logs.open(schema=schema) as log:
        record(log, [[float("nan"), 1, 2]])
    assert logs.lines()[0]["request"]["features"] == [[None]]
