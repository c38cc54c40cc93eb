"""Which faults `make chaos` runs in which states, and the page about them."""

import threading
from pathlib import Path

import pytest

from rollout.ledger import events as e
from rollout.ledger.state import Deployment, fold
from rollout.spec import RolloutSpec
from tests.chaos.__main__ import LEAST, _options, main, read
from tests.chaos.combinations import combinations, left_out
from tests.chaos.faults import FAULTS, Hurts
from tests.chaos.on_machine import at_once
from tests.chaos.page import HEADS, page
from tests.chaos.run import resume
from tests.chaos.seen import Held, Seen, Split, command_of
from tests.chaos.site import Site
from tests.chaos.states import CANARY, STABLE, STATES
from tests.chaos.verdict import MOST_FAILING_S
from tests.support.paths import ROOT

PAUSED_AT_50: list[e.Event] = [
    e.StableSet(at_s=1, tag=STABLE),
    e.ReleaseRequested(at_s=2, release=1, tag=CANARY, stable=STABLE, spec=RolloutSpec(steps=(50, 100)), by="ann"),
    e.StepEntered(at_s=3, release=1, step=0, weight_percent=50, mirror=False, reason="ready"),
    e.Paused(at_s=4, release=1, reason="a look", by="ann"),
]
ALONE = Split(stable=STABLE, canary=None, percent=0, mirror=False)


def seen(fault: str, state: str) -> Seen:
    return Seen(
        fault=fault,
        state=state,
        took_s=30.0,
        undone_s=0.1,
        requests=900,
        slowest_s=0.2,
        failures=(),
        bad_answers=0,
        bad_until_s=0.0,
        held=(Held(**ALONE.model_dump(), since_s=0, for_s=9),),
        asked=(ALONE,),
        applied=(ALONE,),
        outcome="none",
        phase="no release",
    )


def site_in(folder: Path, kind: type[Site] = Site) -> Site:
    """A stack that is not started."""
    shelf = folder / "store/models/digits/v1"
    shelf.mkdir(parents=True)
    (shelf / "samples.jsonl").write_text("")
    (folder / "stack").mkdir()
    return kind(folder / "stack", folder / "store", threading.Event(), environment={})


def test_there_are_enough_combinations_and_each_is_run_once() -> None:
    """At least sixty; every fault is in at least one, and every state."""
    all_of_them = combinations()
    assert len({one.name for one in all_of_them}) == len(all_of_them) >= LEAST
    assert {one.fault.name for one in all_of_them} == {fault.name for fault in FAULTS}


def test_every_fault_comes_once_before_any_comes_twice() -> None:
    """A run that is cut short has then run each fault."""
    first = combinations()[: len(FAULTS)]
    assert [one.fault.name for one in first] == [fault.name for fault in FAULTS]


def test_every_other_pair_is_left_out_for_a_reason() -> None:
    """Each fault is run in each state, or the page says why not."""
    run = {(one.fault.name, one.state.name) for one in combinations()}
    out = {(fault, state): why for fault, states in left_out().items() for state, why in states.items()}
    assert run | set(out) == {(fault.name, state.name) for fault in FAULTS for state in STATES}
    assert not run & set(out)
    assert all(out.values())


def test_every_plan_is_a_plan() -> None:
    """As `kanaria validate` would check it."""
    for state in STATES:
        RolloutSpec.model_validate(state.plan())


def test_results_are_read_again_after_an_interruption(tmp_path: Path) -> None:
    """A line for each combination; one that is no longer run is left out."""
    lines = [seen("gateway killed", "no release"), seen("gateway killed", "no such state")]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(line.model_dump_json() + "\n" for line in lines))
    assert [one.name for one in read(path)] == ["gateway killed / no release"]
    assert not read(tmp_path / "none.jsonl")


def test_the_page_has_a_row_for_each_and_names_what_was_left_out() -> None:
    """Rows of one fault stay together; a combination without a result is listed as not run."""
    planned = combinations()
    idle = [one for one in planned if one.state.name == "no release"]
    text = page({one: seen(one.fault.name, one.state.name) for one in idle}, planned, machine="2 cores")
    assert text.startswith("# Faults in every state of a release\n\nWritten by `make chaos` on 2 cores: ")
    assert f"**{len(idle)} of {len(idle)} combinations are right.**" in text
    assert [cell.strip() for cell in text.partition("\n| ")[2].partition("\n")[0].strip("|").split("|")] == [*HEADS]
    assert "there was no time left" in text
    assert f"**{len(planned) - len(idle)} more were not run**" in text
    assert "more were not run" not in page(
        {one: seen(one.fault.name, one.state.name) for one in idle}, idle, machine=""
    )
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))


def test_the_page_says_how_long_requests_may_fail_for_each_kind_of_fault() -> None:
    """Each kind with a limit is listed with it."""
    text = page({}, combinations(), machine="2 cores")
    limits = {hurts: most_s for hurts, most_s in MOST_FAILING_S.items() if most_s}
    assert set(limits) == set(Hurts) - {Hurts.NOBODY, Hurts.EVERYBODY}
    for hurts, most_s in limits.items():
        assert f"{most_s:g} s ({hurts.value})" in text


def test_commands_at_the_same_time_keep_each_exit_code(tmp_path: Path) -> None:
    """Each exit code has its own label, and the label gives the command."""
    site = site_in(tmp_path)
    with at_once("nothing", "nothing", "--version")(site):
        pass
    assert site.commands == {"nothing (1)": 2, "nothing (2)": 2, "--version (3)": 0}
    assert sorted(command_of(label) for label in site.commands) == ["--version", "nothing", "nothing"]
    assert command_of("one `up`") == "one `up`"


def test_a_paused_release_is_resumed_by_the_command_until_that_succeeds(tmp_path: Path) -> None:
    """The last exit code is kept, and a release that is no longer paused needs no command."""

    class Answering(Site):
        """A stack whose release is paused until the second command; the first command is refused."""

        given: tuple[str, ...] = ()

        @property
        def deployment(self) -> Deployment:
            return fold(
                PAUSED_AT_50 if len(self.given) < 2 else [*PAUSED_AT_50, e.Resumed(at_s=5, release=1, by="ann")]
            )

        def command(self, *arguments: str, label: str | None = None) -> int:
            self.given += (label or " ".join(arguments),)
            return 2 if len(self.given) < 2 else 0

    site = site_in(tmp_path, Answering)
    assert isinstance(site, Answering)
    resume(site)
    assert site.given == ("resume", "resume")
    resume(site)
    assert site.given == ("resume", "resume")


def test_make_chaos_has_time_for_all() -> None:
    """A combination takes 76 s on a busy machine with two cores, three at a time."""
    minutes = _options([]).minutes
    assert len(combinations()) * 76 / 3 <= minutes * 60


def test_the_list_names_what_would_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The combinations whose names contain the expression are listed; nothing is started."""
    assert main(["--list", "--only", "gateway killed / watch"]) == 0
    *names, count = capsys.readouterr().out.splitlines()
    assert set(names) == {"gateway killed / watch", "routes cut, gateway killed / watch"}
    assert count == "2 combinations"


def test_make_chaos_runs_the_driver_and_no_test_does() -> None:
    """It takes an hour or two."""
    makefile = (ROOT / "Makefile").read_text()
    assert "$(BIN)/python -m tests.chaos --write" in makefile
    assert not list((ROOT / "tests/chaos").glob("**/test_*.py"))
