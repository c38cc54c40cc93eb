"""A plan with `compare` sends requests to both versions in the steps and the watch, so answers stay paired."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.release_judge import replayed
from rollout.explain.compared import compared_sentence
from rollout.judge import Verdict
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import Phase, Release, fold
from rollout.routers.router import ObservedSplit
from rollout.signals.plan import Signals
from rollout.spec import RolloutSpec
from tests.support.world import Version, World

PLAN = RolloutSpec(
    steps=(5, 50, 100), soak=5, window=2, step_deadline=300, watch=120, risk_budget=0.02, compare=0.1, warmup=0.0
)
Begin = Callable[..., tuple[World, Controller]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Makes a world in which v2 is being released; the arguments describe v2."""
    opened = []

    def make(spec: RolloutSpec = PLAN, **canary: float) -> tuple[World, Controller]:
        world = World(tmp_path / "ledger.db", versions={"m:v1": Version(0.001), "m:v2": Version(0.001, **canary)})
        controller = world.controller()
        opened.append(controller)
        controller.execute(c.SetStable("m:v1", "ann"))
        world.live(controller, 60)
        controller.execute(c.StartRelease("m:v2", spec, "ann"))
        return world, controller

    yield make
    for controller in opened:
        controller.close()


def release_of(controller: Controller) -> Release:
    release = controller.snapshot.deployment.release
    assert release is not None
    return release


def live_until(world: World, controller: Controller, *, until: Phase, limit_s: float = 900) -> Release:
    for _ in range(int(2 * limit_s)):
        if release_of(controller).phase is until:
            break
        world.live(controller, 0.5)
    return release_of(controller)


def events_of(world: World) -> list[e.Event]:
    ledger = Ledger(world.path, read_only=True)
    try:
        return list(ledger.events(release=1))
    finally:
        ledger.close()


def splits(world: World) -> list[tuple[float, float]]:
    """The canary's weight and the compared share, in percent, of each split with a canary."""
    return [(split.canary_percent, split.compare_percent) for split in world.router.history if split.canary]


def test_steps_and_watch_are_compared_and_nothing_after_them(begin: Begin) -> None:
    world, controller = begin()
    live_until(world, controller, until=Phase.ENDED)
    assert splits(world) == [(0, 0), (5, 10), (50, 10), (95, 10)]
    assert world.router.history[-1].compare_percent == 0
    assert compared_sentence(release_of(controller)) is None
    assert all(compared(world).values())


def compared(world: World) -> dict[float, int]:
    """Requests that both versions answered, by the canary's weight."""
    found: dict[float, int] = {}
    for event in events_of(world):
        if isinstance(event, e.Ticked):
            pairs = sum(window.canary.total for window in event.windows if window.signal == "disagreement")
            found[event.weight_percent] = found.get(event.weight_percent, 0) + pairs
    return found


def test_the_shadow_copies_everything_and_needs_no_further_comparison(begin: Begin) -> None:
    world, controller = begin(PLAN.model_copy(update={"steps": ("shadow", 50, 100)}))
    live_until(world, controller, until=Phase.WATCHING)
    found = [(split.mirror, split.compare_percent) for split in world.router.history if split.canary]
    assert found == [
        (False, 0),
        (True, 0),
        (False, 10),
        (False, 10),
    ]


@pytest.mark.parametrize("steps", [(5, 50, 100), (50, 100), ("shadow", 50, 100)])
def test_no_step_passes_while_nothing_was_compared(begin: Begin, steps: tuple[int | str, ...]) -> None:
    """An observer that counts nothing yet, or is away, does not prove that the answers are alike."""
    world, controller = begin(PLAN.model_copy(update={"steps": steps}))
    world.is_compared = False
    world.live(controller, 200)
    release = release_of(controller)
    first = 0 if steps[0] == "shadow" else steps[0]
    assert (release.phase, release.weight_percent) == (Phase.STEPPING, first)
    evidence = controller.snapshot.judgement
    assert evidence is not None
    assert evidence.verdict is Verdict.NO_DATA
    assert "disagreement" in evidence.reason, evidence.reason
    world.is_compared = True
    assert live_until(world, controller, until=Phase.WATCHING).outcome == "promoted"


@pytest.mark.parametrize(("compare", "signal"), [(0.1, "paired_label"), (0.0, None)])
def test_a_version_that_labels_prove_worse_is_found_by_pairs_of_the_steps(
    begin: Begin, compare: float, signal: str | None
) -> None:
    """No other signal shows it: it answers as fast and with the same confidence. Without pairs it is promoted."""
    world, controller = begin(PLAN.model_copy(update={"compare": compare}), differs_ratio=0.06, lost_ratio=0.9)
    release = live_until(world, controller, until=Phase.ENDED)
    assert (release.outcome, release.outcome_signal) == (("rolled_back", signal) if signal else ("promoted", None))


def test_a_version_that_labels_prove_better_may_differ_in_the_steps(begin: Begin) -> None:
    """A fifth of its answers differ and a tenth is allowed, but nine in ten of those that differ are right."""
    world, controller = begin(differs_ratio=0.2, lost_ratio=0.1)
    release = live_until(world, controller, until=Phase.WATCHING)
    assert release.outcome == "promoted"
    assert "better" in (release.outcome_reason or "")
    promoted = [event for event in events_of(world) if isinstance(event, e.Promoted)]
    assert promoted[0].evidence is not None
    assert promoted[0].evidence.is_better


def test_without_labels_a_person_is_asked_about_a_version_that_differs_in_the_steps(begin: Begin) -> None:
    world, controller = begin(differs_ratio=0.25)
    world.live(controller, 200)
    release = release_of(controller)
    assert (release.phase, release.asked is not None) == (Phase.STEPPING, True)


@pytest.mark.parametrize("phase", [Phase.STEPPING, Phase.WATCHING])
def test_a_killed_controller_goes_on_with_the_same_evidence_and_split(begin: Begin, phase: Phase) -> None:
    """Pairs that arrived meanwhile count once; the gateway keeps its split."""
    world, controller = begin(differs_ratio=0.02)
    live_until(world, controller, until=phase)
    world.live(controller, 11)
    controller.close()
    history = list(world.router.history)
    world.pass_time(1.0)
    second = world.controller()
    world.live(second, 10)
    second.close()
    assert world.router.history == history
    events = events_of(world)
    judge, release = replayed(events), fold(events).release
    *_, last = (event for event in events if isinstance(event, e.Ticked))
    assert judge
    assert release
    assert judge.judgement(release) == last.evidence
    counted = world.counters["m:v2-process", "m:v2", "disagreement"].total
    missed = counted - sum(compared(world).values())  # of the readings at which the count of each weight began
    assert 0 <= missed < 0.2 * counted


def test_the_ledger_says_for_each_split_what_is_compared(begin: Begin) -> None:
    world, controller = begin()
    world.live(controller, 5)
    assert compared_sentence(release_of(controller)) == (
        "Up to 10 % of each version's requests are also sent to the other: copies included, m:v2 answers up to "
        "10 % of all requests."
    )
    applied = [event for event in events_of(world) if isinstance(event, e.Applied)]
    assert (applied[-1].weight_percent, applied[-1].compare_percent) == (5, 10)
    assert controller.snapshot.observed == ObservedSplit("m:v1", "m:v2", 5, mirror=False, compare_percent=10)


@pytest.mark.parametrize("signals", [("errors", "latency", "paired_label"), ("errors", "latency", "disagreement")])
def test_one_of_the_signals_of_pairs_is_enough(begin: Begin, signals: tuple[str, ...]) -> None:
    world, controller = begin(PLAN.model_copy(update={"signals": Signals().only(*signals)}))
    live_until(world, controller, until=Phase.WATCHING)
    assert release_of(controller).outcome == "promoted"
