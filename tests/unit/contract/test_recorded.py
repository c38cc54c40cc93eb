"""Recorded requests on disk: for the owner alone, bounded, and never taken for what they are not."""

import stat
from pathlib import Path

import pytest

from contract import recorded
from contract.recorded import MOST_PER_ROUTE, Damaged, RecordedFolder, RecordedRequest, Recording, has_secret

REQUEST = RecordedRequest(
    at_s=1.0,
    version="m:v1",
    route="/detect",
    method="POST",
    path="/detect?lang=en",
    headers={"content-type": "application/json"},
    body=b"\xff\x00 any bytes",
    status=200,
    media_type="application/json",
    encoding="",
    answer=b"{}",
    answer_digest="00",
)


@pytest.fixture
def folder(tmp_path: Path) -> RecordedFolder:
    return RecordedFolder(tmp_path / "recorded")


def of_route(route: str) -> RecordedRequest:
    return REQUEST.model_copy(update={"route": route})


def test_a_request_is_read_as_it_was_written_and_by_its_owner_alone(folder: RecordedFolder) -> None:
    """Whatever bytes it has, and also where the folder was open before."""
    folder.path.mkdir(mode=0o755)
    folder.keep(REQUEST)
    assert list(folder.requests()) == [(1, REQUEST)]
    (file,) = folder.files()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.path, file.path)] == [0o700, 0o600]


def test_the_oldest_of_a_route_gives_way_and_every_route_stays(folder: RecordedFolder) -> None:
    """A busy route never displaces a rare one."""
    folder.keep(of_route("/rare"))
    for _ in range(MOST_PER_ROUTE + 3):
        folder.keep(REQUEST)
    numbers = {request.route: number for number, request in reversed(list(folder.requests())) if request}
    assert numbers == {"/rare": 1, "/detect": 5}
    assert len(folder.files()) == MOST_PER_ROUTE + 1


def test_bytes_are_bounded_and_taken_from_who_has_most(folder: RecordedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A route with one request keeps it."""
    large = REQUEST.model_copy(update={"body": bytes(10_000)})
    monkeypatch.setattr(recorded, "MOST_BYTES", 50_000)
    folder.keep(of_route("/rare"))
    for _ in range(5):
        folder.keep(large)
    assert [request.route for _, request in folder.requests() if request] == ["/rare", "/detect", "/detect", "/detect"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("/detect", "/delete"),
        lambda text: text[:-20],
        lambda _: "",
        lambda _: "\x00\xff",
        lambda text: text.partition("\n")[2],
    ],
)
def test_a_file_that_was_damaged_or_edited_is_none(folder: RecordedFolder, damage: object) -> None:
    """The others are still read."""
    folder.keep(REQUEST)
    folder.keep(REQUEST)
    file = folder.files()[0]
    file.path.write_text(damage(file.path.read_text()))  # type: ignore[operator]
    assert list(folder.requests()) == [(1, None), (2, REQUEST)]
    with pytest.raises(Damaged):
        folder.read(1)
    assert (folder.read(2), folder.read(3)) == (REQUEST, None)


def test_clearing_leaves_nothing(folder: RecordedFolder) -> None:
    """Numbers begin anew."""
    assert folder.clear() == 0
    folder.keep(REQUEST)
    assert (folder.clear(), folder.files()) == (1, ())


def test_a_recording_ends_by_itself(folder: RecordedFolder) -> None:
    """A command that was killed has not asked for ever; a damaged wish is none."""
    assert folder.recording(0.0) is None
    folder.begin(Recording(until_s=10.0, leave_out=("/pay",)))
    assert folder.recording(9.0) == Recording(until_s=10.0, leave_out=("/pay",))
    assert folder.recording(10.0) is None
    (folder.path / "recording").write_text("{")
    assert folder.recording(9.0) is None
    folder.end()
    folder.end()


@pytest.mark.parametrize(
    ("path", "is_secret"),
    [
        ("/a", False),
        ("/token/a", False),
        ("/a?text=the+key=1", False),
        ("/a?page=2&size=3", False),
        ("/a?api_key=1", True),
        ("/a?x=1&Access-Token=2", True),
        ("/a?X-Amz-Signature=3", True),
        ("/a?password=", True),
    ],
)
def test_a_query_with_a_key_is_seen(path: str, is_secret: bool) -> None:
    assert has_secret(path) is is_secret
