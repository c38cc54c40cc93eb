"""`kanaria record` without a stack: what it refuses, and what it shows of the recordings."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from contract.recorded import RecordedFolder, RecordedRequest
from kanaria.cli import app
from kanaria.errors import SetupError, StackError
from kanaria.settings import Settings
from kanaria.stack.locks import locked
from kanaria.stack.recording import record, to_replay
from rollout.fleet import Route, Service

pytestmark = pytest.mark.needs("serve")
REQUEST = RecordedRequest(
    at_s=0.0,
    version="m:v1",
    route="/detect",
    method="POST",
    path="/detect",
    headers={"content-type": "application/json"},
    body=b'{"text": "\x1b[31mhello"}',
    status=200,
    media_type="application/json",
    encoding="",
    answer=b'{"label": "en"}',
    answer_digest="ab",
)
PICTURE = REQUEST.model_copy(update={"body": b"\x89PNG\xff", "answer": None})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    folder = RecordedFolder(tmp_path / "recorded")
    folder.keep(REQUEST)
    folder.keep(PICTURE)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["record", *arguments])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--for", "soon"], "write 30s, 10m or 1h"),
        (["--for", "0s"], "more than 0, and at most 1d"),
        (["--for", "9d"], "more than 0, and at most 1d"),
        (["--share", "0.5"], "from 1% to 100%"),
        (["--share", "0%"], "from 1% to 100%"),
        (["--share", "0.5%"], "from 1% to 100%"),
        (["--list", "--clear"], "give one of them"),
        (["--show", "7"], "recorded: 1, 2"),
        ([], "kanaria up TAG"),
    ],
)
def test_impossible_requests_are_refused(home: Path, arguments: list[str], words: str) -> None:
    """The error says what to type instead."""
    done = run(*arguments)
    assert isinstance(done.exception, StackError)
    assert words in str(done.exception)


def test_recordings_are_listed_shown_and_removed(home: Path) -> None:
    """Untrusted text cannot control the terminal."""
    assert "   1  1970-01-01 00:00:00  POST /detect  22 bytes, answered 200 by m:v1" in run("--list").output
    shown = run("--show", "1").output
    assert '{"text": "[31mhello"}' in shown
    assert '{"label": "en"}' in shown
    picture = run("--show", "2").output
    assert "(5 bytes that are not text)" in picture
    assert "only its hash was recorded" in picture
    assert "removed recorded requests: 2" in run("--clear").output
    assert "nothing is recorded; `kanaria record` records some" in run("--list").output


def test_an_edited_recording_is_reported_and_never_replayed(home: Path) -> None:
    file = RecordedFolder(home / "recorded").files()[0].path
    file.write_text(file.read_text().replace("/detect", "/delete"))
    assert "   1  its file was damaged or changed, so it is not used" in run("--list").output
    assert str(file) in str(run("--show", "1").exception)
    requests, said = to_replay(Settings(), Service((Route("/detect"), Route("/rare")), 60), leave_out=())
    assert [number for number, _ in requests] == [2]
    assert said == [
        "recorded requests that are not used, because their files were damaged or changed: 1",
        "no request to /rare is recorded: `kanaria record` keeps some while users send them",
    ]


def test_one_process_records_at_a_time(home: Path) -> None:
    """The first process to end also ended the recording of the other, which then reported that no request came."""
    with locked(home / "recording.lock", doing="kanaria record", wait_s=0), pytest.raises(StackError) as refused:
        record(Settings(), Service((Route("/detect"),), 60), for_s=1.0)
    assert refused.value.what == "requests are being recorded already"
    assert "`kanaria record`, process " in refused.value.saw
    assert RecordedFolder(home / "recorded").recording(0.0) is None


def test_the_command_waits_for_the_recording_of_a_preflight(home: Path) -> None:
    """That takes some seconds, and a command typed meanwhile was refused."""
    said: list[str] = []

    def ends(text: str) -> None:
        said.append(text)
        preflight.close()

    with ExitStack() as preflight:
        preflight.enter_context(locked(home / "recording.lock", doing="a preflight", wait_s=0))
        with pytest.raises(SetupError, match="nothing to record from"):  # no stack runs here, but its turn came
            record(Settings(), Service((Route("/detect"),), 60), for_s=1.0, say=ends)
    assert [text.partition(", process")[0] for text in said] == ["waiting for `a preflight`"]


def test_routes_that_a_plan_leaves_out_are_not_replayed(home: Path) -> None:
    assert to_replay(Settings(), Service((Route("/detect"),), 60), leave_out=("/detect",)) == ([], [])
