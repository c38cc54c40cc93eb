"""Who is notified of decisions, and that no release waits for it. The receivers are real servers on this machine."""

import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from contract import metrics as m
from kanaria.cli import app
from kanaria.errors import SetupError
from kanaria.stack import notifier as module
from kanaria.stack.notifier import Notifier
from kanaria.stack.notify_addresses import NotDelivered, read_addresses
from kanaria.stack.ports import free_port
from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.errors import LedgerError
from rollout.signals.options import Classes
from rollout.signals.plan import Signals
from tests.support.dribbling import dribbling
from tests.support.receivers import Webhook, mailbox, webhook
from tests.support.releases import LIVE, NO_SEVENS, DigitsWorld, digits_world
from tests.support.thread_limit import no_more_threads

LEFT_TO_A_PERSON = LIVE.model_copy(update={"signals": Signals({"class": Classes(on_fail="hold")})})


class Counted(Counter[str]):
    """Counts the notification metrics of a controller."""

    def notified(self, outcome: str, messages: int = 1) -> None:
        self[outcome] += messages


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


def addresses_file(folder: Path, *lines: str, mode: int = 0o600) -> Path:
    path = folder / "addresses"
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
    return path


class NotifierRig:
    """A notifier of one state folder, and what it counts."""

    def __init__(self, folder: Path, *lines: str, marks: Path | None = None, looks: bool = True) -> None:
        self.counted = Counted()
        self.notifier = Notifier(
            read_addresses(addresses_file(folder, *lines)),
            folder / "ledger.db",
            told=marks or folder / "notified.json",
            name="digits",
            page="https://kanaria.example.com",
            counters=self.counted,
            every_s=0.02,
            first_wait_s=0.01,
        )
        if looks:
            self.notifier.look()  # look once, so that it reports only later events

    def look(self) -> None:
        self.notifier.look()


def released(folder: Path, **canary: object) -> tuple[DigitsWorld, Controller]:
    """A world in which v2 is about to be released."""
    return digits_world(folder / "ledger.db", **canary)


def begin(world: DigitsWorld, controller: Controller) -> None:
    """Let a release of v2 take traffic."""
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 5)


def pause(world: DigitsWorld, controller: Controller) -> None:
    """Start a release and let ann pause it."""
    begin(world, controller)
    controller.execute(c.Pause("ann", "lunch"))


def abort(world: DigitsWorld, controller: Controller, reason: str = "enough") -> None:
    """Start a release and let ann abort it."""
    begin(world, controller)
    controller.execute(c.Abort("ann", reason))


def asked_of(world: DigitsWorld, controller: Controller) -> str:
    """Run until a person is asked, and return the reason."""
    for _ in range(600):
        world.live(controller, 1)
        release = controller.snapshot.deployment.release
        if release and release.asked:
            return release.asked.reason
    raise AssertionError("nobody was asked")


def test_a_request_for_a_person_has_reason_deadline_and_commands(tmp_path: Path, hook: Webhook) -> None:
    """It is sent once, however long the release waits.

    A second message follows when the release ends because nobody decided.
    """
    world, controller = released(tmp_path, classes=NO_SEVENS)
    told = NotifierRig(tmp_path, hook.url)
    controller.execute(c.StartRelease("digits:v2", LEFT_TO_A_PERSON, "ann"))
    reason = asked_of(world, controller)
    world.live(controller, 30)
    told.look()
    assert hook.titles == ["digits: release 1 (digits:v2) waits for a person"]
    text = hook.bodies[0]["message"]
    assert reason[1:] in text  # which begins with a capital letter
    assert re.search(r"If nobody decides, it is rolled back in 4 min 5\d s of measured time\.", text)
    assert "kanaria rollback" in text
    assert "https://kanaria.example.com/releases/1" in text
    assert "of the ledger" in text
    world.live(controller, 330)
    controller.close()
    told.look()
    assert hook.titles[1:] == ["digits: release 1 (digits:v2) was rolled back"]
    assert "nobody decided in 300 s" in hook.bodies[1]["message"]
    assert told.counted == {m.DELIVERED: 2}


def test_every_outcome_is_notified(tmp_path: Path, hook: Webhook) -> None:
    """Paused, promoted, aborted and restored each have their own sentence."""
    world, controller = released(tmp_path)
    told = NotifierRig(tmp_path, hook.url)
    pause(world, controller)
    controller.execute(c.Resume("ann"))
    world.live_until_ended(controller)
    controller.execute(c.Restore("digits:v1", "bob", "wrong labels"))
    world.live_until_ended(controller)
    abort(world, controller, "<b>enough</b>")
    controller.close()
    told.look()
    assert [title.removeprefix("digits: ") for title in hook.titles] == [
        "release 1 (digits:v2) is paused",
        "release 1 (digits:v2) was promoted",
        "release 2 (digits:v1) was restored",
        "release 3 (digits:v2) was aborted",
    ]
    paused, promoted, restored, aborted = (body["message"] for body in hook.bodies)
    assert "By ann: lunch." in paused
    assert "`kanaria resume`" in paused
    assert "The watch lasts 20 s" in promoted
    assert "restored by bob in place of digits:v2" in restored
    assert "enough" in aborted


def test_a_freeze_and_its_end_are_notified(tmp_path: Path, hook: Webhook) -> None:
    """Both versions fail, so the canary is not to blame. Once stable recovers, the release continues by itself."""
    world, controller = released(tmp_path)
    told = NotifierRig(tmp_path, hook.url)
    controller.execute(c.StartRelease("digits:v2", LIVE, "ann"))
    world.live(controller, 4)
    for version in ("digits:v1", "digits:v2"):
        world.edit(version, error_ratio=0.6)
    assert "frozen until stable is healthy" in asked_of(world, controller)
    for version in ("digits:v1", "digits:v2"):
        world.edit(version, error_ratio=0.0)
    world.live(controller, 200)
    controller.close()
    told.look()
    first, second = (title.removeprefix("digits: release 1 (digits:v2) ") for title in hook.titles[:2])
    assert first == "waits for a person"
    assert "It stays as it is until somebody decides, or the reason is gone." in hook.bodies[0]["message"]
    assert second == "was promoted"


def test_a_killed_notifier_repeats_nothing_and_misses_nothing(tmp_path: Path, hook: Webhook) -> None:
    """A notifier that was just enabled does not report past events."""
    world, controller = released(tmp_path)
    abort(world, controller, "before")
    world.live_until_ended(controller)
    NotifierRig(tmp_path, hook.url).look()
    abort(world, controller, "while nobody looked")
    controller.close()
    for _ in range(3):
        NotifierRig(tmp_path, hook.url).look()
    assert hook.titles == ["digits: release 2 (digits:v2) was aborted"]


def test_an_unreachable_address_delays_no_other_and_is_retried(tmp_path: Path, hook: Webhook) -> None:
    """Failures are counted, and logged once without the secret parts of the address."""
    world, controller = released(tmp_path)
    with webhook() as broken:
        broken.status = 500
        told = NotifierRig(tmp_path, broken.url, hook.url)
        abort(world, controller)
        controller.close()
        with capture_logs() as logs:
            told.notifier.start()
            hook.wait_for(1)
            while broken.tries < 3:
                threading.Event().wait(0.01)
        assert [line["event"] for line in logs] == ["not_notified"]
        assert "500" in logs[0]["saw"]
        assert "s3cr3t" not in str(logs)
        assert told.notifier.overdue_s > 0
        broken.status = 200
        broken.wait_for(1)
        told.notifier.stop()
        told.notifier.join()
    assert len(hook.bodies) == 1
    assert told.notifier.overdue_s == 0
    assert told.counted[m.DELIVERED] == 2
    assert told.counted[m.FAILED] >= 3


def test_a_message_that_cannot_be_worded_blocks_no_other_message(tmp_path: Path, hook: Webhook) -> None:
    """A title with the number of the ledger entry is sent instead, and so are all later messages."""
    world, controller = released(tmp_path)
    with webhook() as second:
        begin(world, controller)
        told = NotifierRig(tmp_path, hook.url, second.url)
        controller.execute(c.Abort("ann", "enough"))
        world.live_until_ended(controller)
        abort(world, controller)
        controller.close()
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as ledger:
            ledger.execute("DROP TRIGGER events_are_never_changed")
            ledger.execute("UPDATE events SET data = '{}' WHERE kind = 'release_requested' AND release = 1")
            ((entry,),) = ledger.execute("SELECT seq FROM events WHERE kind = 'aborted' AND release = 1")
        with capture_logs() as logs:
            told.look()
        for titles in (hook.titles, second.titles):
            assert titles == [
                f"digits: release 1: aborted (entry {entry} of the ledger)",
                "digits: release 2 (digits:v2) was aborted",
            ]
    assert told.counted == {m.WITHOUT_TEXT: 2, m.DELIVERED: 2}
    assert {line["event"] for line in logs} == {"notification_without_text"}


def test_a_failure_at_one_address_does_not_affect_the_others(tmp_path: Path, hook: Webhook) -> None:
    """When the folder of the marks is gone, every address is notified and the failure is reported."""
    world, controller = released(tmp_path)
    with webhook() as second:
        (tmp_path / "marks").mkdir()
        told = NotifierRig(tmp_path, hook.url, second.url, marks=tmp_path / "marks" / "notified.json")
        abort(world, controller)
        controller.close()
        (tmp_path / "marks" / "notified.json").unlink()
        (tmp_path / "marks").rmdir()
        with pytest.raises(OSError, match="notified"):
            told.look()
        assert hook.titles == second.titles == ["digits: release 1 (digits:v2) was aborted"]
    assert told.notifier.overdue_s > 0
    (tmp_path / "marks").mkdir()
    told.look()
    assert told.notifier.overdue_s == 0


def test_a_notifier_that_cannot_read_the_ledger_is_overdue(tmp_path: Path, hook: Webhook) -> None:
    """It is overdue from the first look, because messages may be due."""
    told = NotifierRig(tmp_path, hook.url, looks=False)
    (tmp_path / "ledger.db").write_text("no ledger")
    assert told.notifier.overdue_s == 0
    with pytest.raises(LedgerError):
        told.look()
    first = told.notifier.overdue_s
    with pytest.raises(LedgerError):
        told.look()
    assert 0 < first < told.notifier.overdue_s
    (tmp_path / "ledger.db").unlink()
    _, controller = released(tmp_path)
    controller.close()
    told.look()
    assert told.notifier.overdue_s == 0


def test_unwanted_messages_do_not_displace_wanted_ones(
    tmp_path: Path, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an address with selected kinds, messages of other kinds do not count."""
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    world, controller = released(tmp_path)
    told = NotifierRig(tmp_path, f"aborted = {hook.url}")
    abort(world, controller)
    world.live_until_ended(controller)
    pause(world, controller)
    controller.close()
    told.look()
    assert hook.titles == ["digits: release 1 (digits:v2) was aborted"]
    assert told.counted == {m.DELIVERED: 1}


def test_the_oldest_messages_are_dropped_and_counted(
    tmp_path: Path, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that was unreachable for a month does not receive a month of messages."""
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    world, controller = released(tmp_path)
    told = NotifierRig(tmp_path, hook.url)
    pause(world, controller)
    controller.execute(c.Abort("ann", "enough"))
    controller.close()
    told.look()
    assert hook.titles == ["digits: release 1 (digits:v2) was aborted"]
    assert told.counted == {m.DROPPED: 1, m.DELIVERED: 1}


def test_events_after_a_restored_ledger_copy_are_notified_by_time(tmp_path: Path, hook: Webhook) -> None:
    """An older ledger in its place numbers its entries from an earlier point."""
    (tmp_path / "notified.json").write_text("{}")
    world, controller = released(tmp_path)
    told = NotifierRig(tmp_path, hook.url)
    key = told.notifier._addresses[0].key
    late = f'{{"{key}": {{"number": 5000, "at_s": {world.now_s}}}}}'
    (tmp_path / "notified.json").write_text(late)
    again = NotifierRig(tmp_path, hook.url)
    abort(world, controller)
    controller.close()
    again.look()
    assert hook.titles == ["digits: release 1 (digits:v2) was aborted"]


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        ('{"KEY": {"number": "x", "at_s": "y"}}', "`number`: write a whole number"),
        ('{"KEY": {"number": 100000000000000000000, "at_s": 1}}', "`number`: "),
        ('{"KEY": {"number": 1, "at_s": NaN}}', "`at_s`: write a finite number"),
        ('{"KEY": 7}', "its mark: "),
        ("[]", "the file: "),
        ("no JSON", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
    ],
)
def test_damaged_marks_silence_no_address(tmp_path: Path, hook: Webhook, marks: str | bytes, says: str) -> None:
    """The damage is logged, and the address is notified of later events. The marks of other addresses are kept."""
    world, controller = released(tmp_path)
    address = read_addresses(addresses_file(tmp_path, hook.url))[0]
    raw = marks.replace("KEY", address.key).encode() if isinstance(marks, str) else marks
    (tmp_path / "notified.json").write_bytes(raw)
    with capture_logs() as logs:
        told = NotifierRig(tmp_path, hook.url)
    (line,) = logs
    assert (line["event"], says in line["saw"]) == ("marks_unreadable", True), line
    abort(world, controller)
    controller.close()
    told.look()
    assert hook.titles == ["digits: release 1 (digits:v2) was aborted"]


def test_an_address_gets_only_the_messages_that_it_wants(tmp_path: Path, hook: Webhook) -> None:
    """A pager does not need to hear of promotions."""
    world, controller = released(tmp_path)
    told = NotifierRig(tmp_path, f"waiting, aborted = {hook.url}")
    pause(world, controller)
    controller.execute(c.Abort("ann", "enough"))
    controller.close()
    told.look()
    assert hook.titles == ["digits: release 1 (digits:v2) was aborted"]


def test_a_mail_is_delivered(tmp_path: Path) -> None:
    """Its subject is the title, and text from others is not markup in it."""
    with mailbox() as box:
        url = f"mailto://127.0.0.1:{box.port}?from=kanaria@example.com&to=ann@example.com"
        (address,) = read_addresses(addresses_file(tmp_path, url))
        address.send("digits: test", ("One <b>line</b>.", "https://kanaria.example.com/"))
    (mail,) = box.mails
    assert mail["subject"] == "digits: test"
    assert mail["to"] == "ann@example.com"
    body = str(mail.get_payload(0) if mail.is_multipart() else mail)
    assert "https://kanaria.example.com/" in body


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("slck://TokenA1/TokenB2/s3cr3t", "no service `slck`; did you mean `slack`"),
        ("slack://s3cr3t", "the wrong form for the service `slack`"),
        ("https://hooks.example.com/s3cr3t", "write `jsons://`"),
        ("mailto://s3cr3t@", "the wrong form for the service `mailto`"),
        ("s3cr3t", "it is not an address"),
        ("wating=json://h/s3cr3t", "no messages `wating`; did you mean `waiting`"),
        ("json://h/s3cr3t\njson://h/s3cr3t", "the same address as in line 1"),
        ("s3cr3t=json://h", "there are no such messages"),
        ("s3cr3t, wating=json://h", "no messages `wating`; did you mean `waiting`"),
        ("s3cr3t://h", "there is no such service"),
        ("# nobody", "has no address"),
    ],
)
def test_a_wrong_address_is_reported_by_its_line_without_its_secrets(tmp_path: Path, line: str, says: str) -> None:
    """The error says what is wrong and shows no secret."""
    with pytest.raises(SetupError) as error:
        read_addresses(addresses_file(tmp_path, line))
    assert says in str(error.value)
    assert "s3cr3t" not in str(error.value)


def test_a_byte_order_mark_is_not_part_of_an_address(tmp_path: Path) -> None:
    """Notepad writes such a mark."""
    path = addresses_file(tmp_path)
    path.write_text("json://h/x\n", encoding="utf-8-sig")
    assert [address.name for address in read_addresses(path)] == ["line 1 (json)"]


def test_every_secret_part_of_an_address_is_masked_however_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is masked where it stands alone; inside another word it reveals nothing."""
    (address,) = read_addresses(addresses_file(tmp_path, "json://bo:pw@127.0.0.1/k9"))
    reason = "refused for bo with pw: bo:pw@127.0.0.1/k9, about nobody's pwd"

    def fails(**_: object) -> bool:
        raise RuntimeError(reason)

    monkeypatch.setattr(address.plugin, "notify", fails)
    with pytest.raises(NotDelivered) as error:
        address.send("digits: test", ("text",))
    assert str(error.value) == "RuntimeError: refused for *** with ***: ***:***@***/***, about nobody's pwd"


def test_address_files_that_others_can_read_are_refused(tmp_path: Path) -> None:
    """They contain passwords."""
    with pytest.raises(SetupError, match="chmod 600"):
        read_addresses(addresses_file(tmp_path, "json://h/x", mode=0o640))


def test_an_address_where_nothing_listens_is_reported(tmp_path: Path) -> None:
    """The error omits the secret parts of the address."""
    (address,) = read_addresses(addresses_file(tmp_path, f"json://127.0.0.1:{free_port()}/s3cr3t"))
    with pytest.raises(NotDelivered, match="onnection") as error:
        address.send("digits: test", ("text",))
    assert "s3cr3t" not in str(error.value)


def test_the_test_command_notifies_every_address(
    tmp_path: Path, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code says whether all accepted it. Without addresses, the error says what to do."""
    monkeypatch.setenv("KANARIA_HOME", str(tmp_path / "digits" / ".kanaria"))
    run = CliRunner()
    nobody = run.invoke(app, ["notify", "test"])
    assert isinstance(nobody.exception, SetupError)
    monkeypatch.setenv("KANARIA_NOTIFY", str(addresses_file(tmp_path, hook.url)))
    assert run.invoke(app, ["notify", "test"]).exit_code == 0
    assert hook.titles == ["digits: test"]
    hook.status = 503
    failed = run.invoke(app, ["notify", "test"])
    assert failed.exit_code == 1
    assert "503" in failed.output
    assert "s3cr3t" not in failed.output


def test_validate_shows_the_addresses_or_the_wrong_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens before anything starts."""
    plan = tmp_path / "rollout.yaml"
    plan.write_text("steps: [5, 100]")
    monkeypatch.setenv("KANARIA_NOTIFY", str(addresses_file(tmp_path, "json://h/s3cr3t")))
    said = CliRunner().invoke(app, ["validate", str(plan)])
    assert (said.exit_code, "Decisions are sent to line 1 (json)." in said.output) == (0, True)
    addresses_file(tmp_path, "jsn://h/s3cr3t")
    wrong = CliRunner().invoke(app, ["validate", str(plan)]).exception
    assert isinstance(wrong, SetupError)
    assert "line 1: there is no service `jsn`" in str(wrong)
    assert "s3cr3t" not in str(wrong)


def test_an_address_that_answers_byte_by_byte_is_given_up(tmp_path: Path) -> None:
    """It blocked the only thread that sends notifications.

    Until its answer ends, nothing else is sent to it; other addresses still work.
    """
    with dribbling() as server, webhook() as hook:
        slow, other = read_addresses(
            addresses_file(tmp_path, f"json://127.0.0.1:{server.server_port}/s3cr3t-part", hook.url)
        )
        with pytest.raises(NotDelivered, match="did not finish its answer"):
            slow.send("one", ("text",), limit_s=0.3)
        with pytest.raises(NotDelivered, match="is still handling the previous message"):
            slow.send("two", ("text",), limit_s=0.3)
        other.send("three", ("text",))
        assert hook.titles == ["three"]


def test_a_message_without_a_thread_can_be_sent_later(tmp_path: Path, hook: Webhook) -> None:
    """The address was marked busy for as long as the process ran."""
    (address,) = read_addresses(addresses_file(tmp_path, hook.url))
    for title in ("one", "two"):
        with no_more_threads(), pytest.raises(NotDelivered, match=r"nothing was sent: .*can't start new thread"):
            address.send("never", ("text",))
        address.send(title, ("text",))
    assert hook.titles == ["one", "two"]


def test_an_error_never_contains_the_failure_of_another_address(tmp_path: Path, hook: Webhook) -> None:
    """A late failure of one address may contain its secret and must not appear under another."""
    hook.status = 500
    nobody, refuses = read_addresses(addresses_file(tmp_path, f"json://127.0.0.1:{free_port()}/first-s3cr3t", hook.url))
    said = []
    for address in (nobody, refuses):
        with pytest.raises(NotDelivered) as error:
            address.send("one", ("text",))
        said.append(str(error.value))
    assert "500" in said[1]
    assert not any("s3cr3t" in each for each in said)
    assert said[0] not in said[1]
