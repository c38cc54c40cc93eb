"""Recorded requests on disk: readable by the owner alone, bounded, and refused if damaged."""

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


def test_a_request_is_read_as_it_was_written_and_only_by_its_owner(folder: RecordedFolder) -> None:
    """Any bytes are kept, and a folder that others could read becomes private."""
    folder.path.mkdir(mode=0o755)
    folder.keep(REQUEST)
    assert list(folder.requests()) == [(1, REQUEST)]
    (file,) = folder.files()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.path, file.path)] == [0o700, 0o600]


def test_the_oldest_request_of_a_busy_route_is_replaced(folder: RecordedFolder) -> None:
    """A busy route never displaces a rare one."""
    folder.keep(of_route("/rare"))
    for _ in range(MOST_PER_ROUTE + 3):
        folder.keep(REQUEST)
    numbers = {request.route: number for number, request in reversed(list(folder.requests())) if request}
    assert numbers == {"/rare": 1, "/detect": 5}
    assert len(folder.files()) == MOST_PER_ROUTE + 1


def test_total_bytes_are_bounded_at_the_cost_of_the_largest_route(
    folder: RecordedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A route with only one request keeps it."""
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
def test_a_damaged_or_edited_file_is_not_read(folder: RecordedFolder, damage: object) -> None:
    """The other files are still read."""
    folder.keep(REQUEST)
    folder.keep(REQUEST)
    file = folder.files()[0]
    file.path.write_text(damage(file.path.read_text()))  # type: ignore[operator]
    assert list(folder.requests()) == [(1, None), (2, REQUEST)]
    with pytest.raises(Damaged):
        folder.read(1)
    assert (folder.read(2), folder.read(3)) == (REQUEST, None)


def test_clearing_removes_every_request(folder: RecordedFolder) -> None:
    """Numbers start again at 1."""
    assert folder.clear() == 0
    folder.keep(REQUEST)
    assert (folder.clear(), folder.files()) == (1, ())


def test_a_recording_ends_at_its_deadline(folder: RecordedFolder) -> None:
    """A command that was killed does not record without end, and a damaged note starts no recording."""
    assert folder.recording(0.0) is None
    folder.begin(Recording(until_s=10.0, leave_out=("/pay",)))
    assert folder.recording(9.0) == Recording(until_s=10.0, leave_out=("/pay",))
    assert folder.recording(10.0) is None
    (folder.path / "recording").write_text("{")
    assert folder.recording(9.0) is None
    folder.end()
    folder.end()


@pytest.mark.parametrize(
    "path",
    [
        "/a",
        "/token",  # a route with that name
        "/a/",
        "/a?text=the+key=1",
        "/a?page=2&size=3",
        "/a?monkey=1&keyword=2&author=3&max_tokens=4&tokenizer=5&design=6&zip_code=7",
        "/a?text=what+is+a+token%3F",
        "/monkeys/3",
        "?",
        "",
        '/a?filter={"page":1,"tokens":"5","note":"the key: 1"}',
        "/a?at=12:30&next=https://b/",
    ],
)
def test_a_path_without_a_key_is_kept(path: str) -> None:
    assert not has_secret(path)


@pytest.mark.parametrize(
    "path",
    [
        "/a?api_key=1",
        "/a?x=1&Access-Token=2",
        "/a?X-Amz-Signature=3",
        "/a?password=",
        "/a?accessToken=1",
        "/a?apikey=1",
        "/a?APIKey=1",
        "/a?key2=1",
        "/a?%6bey=1",
        "/a?%74oken=abc",
        "/a?%2574oken=abc",
        "/a?user[token]=1",
        "/a?next=https%3A%2F%2Fb%2F%3Ftoken%3D1",
        *(
            f"/a?{name}=1"
            for name in ("jwt", "pwd", "sid", "code", "access", "bearer", "sessionid", "authToken", "pass")
        ),
        "/a;token=1",
        "/a/token=1",
        "/a?x=1;token=5",
        "/u/token/abc",
        "/a?token",
        "/a?token;",
        "/a?x=eyJhbGciOiJIUzI1NiJ9.e30.abc",
        "/u/eyJhbGciOiJIUzI1NiJ9.e30.abc",
        '/a?filter={"token":"abc"}',
        "/a?filter=%7B%22user%22%3A%7B%22api_key%22%20%3A%20%221%22%7D%7D",
        "/a?filter=%257B%2522password%2522%253A1%257D",
        "/a?q={'sid':1}",
        "/a?q={x:1,token:2}",
        '/a/{"secret":1}',
        '/a?q=["eyJhbGciOiJIUzI1NiJ9.e30.abc"]',
        "/a?x=" + "1" * 5000,  # too long to be examined
    ],
)
def test_a_key_in_a_path_or_query_is_found(path: str) -> None:
    """Every way to write it is found: the files on disk are not encrypted."""
    assert has_secret(path)


@pytest.mark.parametrize("part", ['"', '"a" ', "{ ", "{a ", "?key", "?kex", "&a;", "%25", "aA", "/a", "="])
def test_the_search_for_keys_is_fast_for_every_path(part: str) -> None:
    """The time grew with the cube of the length: one such path of 24,000 letters took half an hour."""
    for length in (4000, 50_000):
        has_secret("/a?" + (part * length)[:length])
