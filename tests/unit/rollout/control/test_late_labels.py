"""Labels that come sooner if they are wrong, or later: only answers of the same age are compared.

The world stores its answers as the service does, and the service's code counts their labels.
"""

import json
import operator
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from contract.answers_table import ANSWERS_SCHEMA
from contract.metrics import CAME, CORRECT, LABEL_AGES_S, LABELS, LATE, WRONG
from rollout.control import commands as c
from rollout.control.controller import Controller
from rollout.control.release_judge import replayed
from rollout.explain.timeline import Timeline, timeline
from rollout.explain.why import why
from rollout.fleet import Backend
from rollout.judge import Pair
from rollout.ledger import events as e
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import fold
from rollout.signals.counters import Reading, Sample, counters, version_tables
from rollout.signals.custom import OwnCounter
from rollout.signals.options import WrongLabel
from rollout.signals.plan import Signals
from rollout.spec import RolloutSpec
from rollout.ui.status import build_status
from service.logs import label_counts
from tests.support.world import Version, World

STABLE, CANARY = "m:v1", "m:v2"
SOON_S, LATER_S, TOO_LATE_S = 30.0, 290.0, 450.0
OF_AGE_S = 300.0
HISTORY_S = 180.0


_opened: list[sqlite3.Connection] = []


@pytest.fixture(autouse=True)
def every_connection_is_closed() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


@dataclass
class LabelledWorld(World):
    """Every answer is right or wrong, and its label arrives after a while."""

    wrong_ratio: dict[str, float] = field(default_factory=dict)
    wrong_after_s: float = SOON_S
    right_after_s: float = LATER_S

    def __post_init__(self) -> None:
        super().__post_init__()
        self.answers = sqlite3.connect(":memory:", isolation_level=None)
        _opened.append(self.answers)
        self.answers.executescript(ANSWERS_SCHEMA)
        label_counts.begin(self.answers)
        self.labels: list[deque[tuple[float, int, str]]] = [deque(), deque()]  # arrival time (rising), answer, truth
        self.page: dict[tuple[str, str, str], int] = {}  # by version, age and outcome

    def answer_before(self, seconds: float) -> None:
        """v1 answers for a while before anything is measured."""
        for _ in range(round(seconds)):
            self.now_s += 1
            self._serve(STABLE, round(self.rps))

    def _serve(self, tag: str, requests: int) -> None:
        super()._serve(tag, requests)
        wrong = self.rng.random(requests) < self.wrong_ratio[tag]
        for is_wrong in wrong.tolist():
            answer = self.answers.execute(
                "INSERT INTO answers (request_id, version, answered_at_s, labels) VALUES (?, ?, ?, ?)",
                (str(self.answers.total_changes), tag, self.now_s, '["a"]'),
            ).lastrowid
            after_s = self.wrong_after_s if is_wrong else self.right_after_s
            self.labels[is_wrong].append((self.now_s + after_s, answer or 0, json.dumps(["b" if is_wrong else "a"])))

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        for coming in self.labels:
            while coming and coming[0][0] <= self.now_s:
                _, answer, truth = coming.popleft()
                self.answers.execute("UPDATE answers SET truth = ? WHERE id = ?", (truth, answer))
        for tag in self.wrong_ratio:
            counted = label_counts.take(self.answers, tag, operator.eq, LABEL_AGES_S, self.now_s)
            came = Pair(counted.as_they_came[WRONG, ""], counted.as_they_came.total())
            self.counters[f"{tag}-process", tag, "wrong_label"] += came
            for (age_s, outcome, _), requests in counted.by_age.items():
                place = tag, f"{age_s:.0f}", outcome
                self.page[place] = self.page.get(place, 0) + requests
        samples = [
            Sample(LABELS.name, {"version": tag, "age_s": age_s, "outcome": outcome}, value)
            for (tag, age_s, outcome), value in self.page.items()
        ]
        reading = super().read(backends, mirrored=mirrored, own=own)
        labels = {}
        for tag in self.wrong_ratio:
            own = [sample for sample in samples if sample.labels["version"] == tag]
            labels |= counters(version_tables(f"{tag}-process", own))
        return Reading(reading.at_s, {**reading.counters, **labels})


def plan(after: float, **changes: object) -> RolloutSpec:
    """Half of the traffic for three minutes longer than a label may take."""
    signals = Signals({"wrong_label": WrongLabel(required=True, after=after)}).only("errors", "wrong_label")
    spec = RolloutSpec(steps=(50, 100), soak=OF_AGE_S + 180, step_deadline=3600, watch=20, signals=signals)
    return spec.model_copy(update=changes)


def released(path: Path, spec: RolloutSpec, **world: object) -> tuple[LabelledWorld, Controller]:
    """v1 has answered for longer than any label takes, and v2 is being released."""
    versions = {STABLE: Version(), CANARY: Version()}
    made = LabelledWorld(path, versions=versions, rps=10.0, **world)  # type: ignore[arg-type]
    made.answer_before(made.right_after_s + made.wrong_after_s)
    controller = made.controller()
    controller.execute(c.SetStable(STABLE, "ann"))
    made.live(controller, HISTORY_S)
    controller.execute(c.StartRelease(CANARY, spec, "ann"))
    return made, controller


def events(world: World) -> list[e.Event]:
    with closing(Ledger(world.path, read_only=True)) as ledger:
        return list(ledger.events(release=1))


def story(world: World) -> Timeline:
    return timeline(events(world))


@pytest.mark.parametrize(("after", "outcome"), [(0.0, "rolled_back"), (OF_AGE_S, "promoted")])
def test_a_healthy_canary_is_not_blamed_for_early_complaints(tmp_path: Path, after: float, outcome: str) -> None:
    """Both versions are wrong in 5 %. Counted by arrival, a young canary would have no right labels yet."""
    world, controller = released(tmp_path / "ledger.db", plan(after), wrong_ratio={STABLE: 0.05, CANARY: 0.05})
    assert world.live_until_ended(controller) == outcome
    signal = story(world).state.outcome_signal
    controller.close()
    assert signal == ("wrong_label" if outcome == "rolled_back" else None)


@pytest.mark.parametrize(("after", "outcome"), [(0.0, "promoted"), (OF_AGE_S, "rolled_back")])
def test_late_labels_reveal_a_canary_that_is_wrong_three_times_as_often(
    tmp_path: Path, after: float, outcome: str
) -> None:
    """Right labels come at once, wrong ones after five minutes. Counted by arrival, a young canary looks perfect."""
    world, controller = released(
        tmp_path / "ledger.db",
        plan(after, soak=240.0 if after == 0 else OF_AGE_S + 180),
        wrong_ratio={STABLE: 0.05, CANARY: 0.15},
        wrong_after_s=LATER_S,
        right_after_s=1.0,
    )
    assert world.live_until_ended(controller) == outcome
    signal = story(world).state.outcome_signal
    controller.close()
    assert signal == ("wrong_label" if outcome == "rolled_back" else None)


def test_a_release_that_requires_labels_waits_for_them_and_says_so(tmp_path: Path) -> None:
    """After two minutes no label counts yet. `status` and `why` say how many wait and until when."""
    spec = plan(OF_AGE_S, soak=10.0)
    world, controller = released(tmp_path / "ledger.db", spec, wrong_ratio={STABLE: 0.05, CANARY: 0.05})
    world.live(controller, 120)
    release = story(world)
    labels, waits_for = release.labels, why(release).verdict
    status = build_status("m", controller.snapshot, release)
    assert labels is not None
    assert (labels.of_age, labels.counted, labels.late) == (0, 0, 0)
    assert labels.waiting > 0
    assert "waits for labels, which count once their answer is 5 min old: the first in " in waits_for
    assert status.release is not None
    assert status.release.labels == labels.sentence
    assert next(s.title for s in status.release.signals if s.name == "wrong_label") == "wrong by label, 5 min old"
    world.live(controller, 240)
    assert world.live_until_ended(controller) == "promoted"
    controller.close()


def test_labels_that_arrive_after_the_age_limit_do_not_count(tmp_path: Path) -> None:
    """Wrong labels come after seven minutes; the limit of five is too short for them, and `why` shows it."""
    world, controller = released(
        tmp_path / "ledger.db",
        plan(OF_AGE_S, soak=900.0),
        wrong_ratio={STABLE: 0.05, CANARY: 0.15},
        wrong_after_s=TOO_LATE_S,
        right_after_s=1.0,
    )
    world.live(controller, 700)
    release = story(world)
    controller.close()
    labels, judged = release.labels, release.last_evidence
    assert labels is not None
    assert judged is not None
    assert judged.signals["wrong_label"].canary.bad == 0
    assert labels.late > 100
    assert labels.of_age - labels.counted > 100
    assert " came too late to count." in labels.sentence


def test_a_restarted_controller_has_identical_evidence(tmp_path: Path) -> None:
    """It was killed while labels waited, and again while they counted."""
    spec = plan(OF_AGE_S)
    world, controller = released(tmp_path / "ledger.db", spec, wrong_ratio={STABLE: 0.05, CANARY: 0.06})
    for seconds in (100.0, 250.0, 40.0):
        world.live(controller, seconds)
        own = events(world)
        ticks = [event for event in own if isinstance(event, e.Ticked)]
        judge, release = replayed(own), fold(own).release
        assert judge is not None
        assert release is not None
        assert judge.judgement(release) == ticks[-1].evidence
        controller.close()
        controller = world.controller()
    assert ticks[-1].evidence.signals["wrong_label"].canary.total > 0
    assert [window for window in ticks[-1].windows if window.signal == "labels_came"]
    controller.close()


def test_the_outcomes_of_labels_are_those_that_the_service_counts() -> None:
    """Readings use the outcome names that the service writes."""
    made = counters(
        version_tables(
            "a",
            [
                Sample(LABELS.name, {"version": CANARY, "age_s": "600", "outcome": outcome}, 1.0)
                for outcome in (CAME, CORRECT, WRONG, LATE)
            ],
        )
    )
    assert made == {
        ("a", CANARY, "labels_of_age:600"): Pair(1, 2),
        ("a", CANARY, 'labels_of_age_by_caller:600,""'): Pair(1, 2),
        ("a", CANARY, "labels_came:600"): Pair(1, 2),
    }
