"""A new signal needs only one row in the catalogue; everything else reads the catalogue."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from kanaria.stack.signal_graphs import signal_graphs
from monitoring.grafana.dashboards import boards
from rollout.control import commands as c
from rollout.errors import SpecError
from rollout.explain.why import why
from rollout.fleet import Backend
from rollout.judge import JudgeConfig, SignalRule, SignalWords, Verdict
from rollout.judge.jsonl import parse_windows
from rollout.judge.judge import Judge
from rollout.routers.envoy.metrics import EnvoyMetrics
from rollout.signals.catalogue import BUILT_IN, BoardGraph, Catalogue, ReportPicture, Signal, catalogue, using
from rollout.signals.counters import Reading, Sample, counters, version_tables
from rollout.signals.counting import GATEWAY_REQUESTS, Outcomes, Side
from rollout.signals.custom import OwnCounter
from rollout.spec import RolloutSpec, parse_spec
from rollout.ui.report import render_report
from rollout.ui.status import build_status
from tests.support.releases import DigitsVersion, DigitsWorld, newest
from tests.support.world import World

TRUNCATED = Signal(
    name="truncated_in_this_test",
    words=SignalWords("cut off", "answers", "were cut off"),
    advice="Raise the limit on the length of an answer.",
    colour="#e69f00",
    counter=Outcomes(Side.USER, "kanaria_truncated_total", "was", bad="cut"),
    judged=SignalRule(kernel="exact", weight=0.2),
    picture=ReportPicture("over time", "Answers cut off", "Share of answers that were cut off."),
    graph=BoardGraph("Cut off", "Share of answers that reached their longest length."),
)
REFUSED = Signal(
    name="refused_in_this_test",
    words=SignalWords("refused", "requests", "were refused"),
    advice="Compare its schema with stable's.",
    colour="#e69f00",
    counter=Outcomes(Side.GATEWAY, GATEWAY_REQUESTS, "code", bad="4.."),
    judged=SignalRule(kernel="exact", weight=0.1),
)


@pytest.fixture
def extended() -> Iterator[Catalogue]:
    """The catalogue with one additional counter of the user's own."""
    with using(BUILT_IN.with_rows(TRUNCATED)) as present:
        yield present


@dataclass
class TruncatingWorld(DigitsWorld):
    """Each version exports how many of its answers were truncated; the source reads that page like any other."""

    cut_ratio: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.page: dict[tuple[str, str], int] = {}

    def _serve(self, tag: str, requests: int) -> None:
        super()._serve(tag, requests)
        cut = int(np.random.default_rng(int(self.now_s)).binomial(requests, self.cut_ratio[tag]))
        for was, answers in (("cut", cut), ("whole", requests - cut)):
            self.page[tag, was] = self.page.get((tag, was), 0) + answers

    def read(
        self, backends: tuple[Backend, ...], *, mirrored: str | None = None, own: Sequence[OwnCounter] = ()
    ) -> Reading:
        reading = super().read(backends, mirrored=mirrored, own=own)
        samples = [
            Sample("kanaria_truncated_total", {"version": tag, "was": was}, value)
            for (tag, was), value in self.page.items()
        ]
        return replace(reading, counters={**reading.counters, **counters(version_tables("page", samples))})


def test_a_new_signal_needs_one_row(extended: Catalogue, tmp_path: Path) -> None:
    """A canary that truncates answers is rolled back for it; plan, status, `why`, report and dashboard show it."""
    path = tmp_path / "ledger.db"
    versions = {"digits:v1": DigitsVersion(), "digits:v2": DigitsVersion()}
    world: World = TruncatingWorld(path, versions=versions, rps=120.0, cut_ratio={"digits:v1": 0.01, "digits:v2": 0.1})
    controller = world.controller()
    controller.execute(c.SetStable("digits:v1", "ann"))
    world.live(controller, 60)
    plan = parse_spec("steps: [25, 50, 100]\nwindow: 2s\nsignals: {truncated_in_this_test: {tolerance: 1.5}}")
    controller.execute(c.StartRelease("digits:v2", plan, "ann"))
    assert world.live_until_ended(controller, limit_s=300) == "rolled_back"
    release = newest(path)
    status = build_status("digits", controller.snapshot, release)
    controller.close()

    assert (release.state.outcome_signal, release.spec) == ("truncated_in_this_test", plan)
    assert release.state.phi["truncated_in_this_test"] >= 1
    assert status.release is not None
    assert status.release.signals[0].title == "cut off"
    explanation = why(release)
    assert " of its answers were cut off, " in explanation.verdict
    assert TRUNCATED.advice in next(topic.lines for topic in explanation.topics if topic.title == "What to do")
    html = render_report([release], title="digits")
    assert "Answers cut off" in html
    assert TRUNCATED.colour in html
    (board,) = (board for board in boards(signal_graphs()) if board.uid == "kanaria-release")
    (panel,) = (panel for panel in board.document["panels"] if panel["title"] == "Cut off")
    assert 'kanaria_truncated_total{version="$canary",was="cut"}' in panel["targets"][1]["expr"]


def test_a_new_signal_from_the_gateway_needs_no_change_of_the_gateway() -> None:
    """Envoy's counts by status serve for refused requests as for failed ones, in the shadow too."""
    live = [
        Sample("envoy_kanaria_predict_total", {"version": "m:v2", "routed": "m:v2", "code": code}, 10)
        for code in ("200", "422", "503", "0")
    ]
    copies = [
        Sample(
            "envoy_cluster_upstream_rq",
            {"envoy_cluster_name": "shadow%2Fm%3Av2", "envoy_response_code": code},
            5,
        )
        for code in ("200", "422")
    ]
    with using(BUILT_IN.with_rows(REFUSED)):
        found = counters(EnvoyMetrics("g:1").tables([*live, *copies], mirrored="m:v2"))
    shown = {
        f"{place} {signal}": (pair.bad, pair.total)
        for (place, _, signal), pair in found.items()
        if signal in ("errors", REFUSED.name)
    }
    assert shown == {
        "g:1 errors": (10, 30),
        "g:1 refused_in_this_test": (10, 30),
        "g:1/shadow errors": (0, 10),
        "g:1/shadow refused_in_this_test": (5, 10),
    }


def test_kanaria_judge_accepts_counts_of_a_new_signal(extended: Catalogue) -> None:
    """It reads their lines and gives the reason in the signal's words."""
    line = '{"end_s": 5, "window_s": 5, "signal": "truncated_in_this_test", "stable": {"bad": 9, "total": 900}, '
    tick = parse_windows([line + '"canary": {"bad": 90, "total": 300}}'], tuple(extended.rules))
    judge = Judge(JudgeConfig(rules=extended.rules, window_cap=1e9))
    judge.observe(tick)
    judgement = judge.judgement(next_weight=None)
    assert judgement.verdict is Verdict.FAIL
    assert judgement.reason.startswith(
        "truncated_in_this_test: 90 of 300 canary answers were cut off (30 %) against 9 of 900"
    )


def test_only_built_in_signals_are_there_by_default() -> None:
    """An extended catalogue ends with its block, even after an error."""
    with pytest.raises(SpecError, match="is not a valid plan"), using(BUILT_IN.with_rows(TRUNCATED)):
        parse_spec("signals: {nonsense: {}}")
    assert catalogue() is BUILT_IN
    with pytest.raises(SpecError) as refused:
        parse_spec("signals: {truncated_in_this_test: {}}")
    assert refused.value.saw == f"`signals.{TRUNCATED.name}` does not exist"
    assert refused.value.do.startswith("the keys of `signals` are: errors, rejected, route, segment, latency")
    assert TRUNCATED.name not in refused.value.do


@pytest.mark.parametrize("name", ["errors", "predictions"])
def test_two_signals_cannot_have_the_same_name(name: str) -> None:
    """Former names are reserved too, because old plans use them."""
    with pytest.raises(ValueError, match=f"used twice: {name}"):
        BUILT_IN.with_rows(replace(TRUNCATED, name=name))


def test_a_counted_signal_needs_a_rule() -> None:
    """A row with a counter and no rule would be evidence that is never judged."""
    with pytest.raises(ValueError, match="needs a rule"):
        replace(TRUNCATED, judged=None)


@pytest.mark.parametrize("row", BUILT_IN.rows, ids=lambda row: row.name)
def test_every_signal_has_all_its_texts(row: Signal) -> None:
    """Words and advice are filled in for any key, without an unfilled placeholder."""
    for key in ("", "7"):
        words = row.words.of(key, stable="m:v1")
        texts = (words.title, words.unit, words.event, row.advice.format(key=key, stable="m:v1"))
        assert all(texts)
        assert not any("{" in text for text in texts)


def test_counts_without_a_plan_are_judged_by_the_default_plan() -> None:
    """So are segments, for which a plan names a header. Signals that need a person are not: nobody can be asked."""
    planned = RolloutSpec.model_validate({"segments": "header:x-tenant"}).judge_config().rules
    for_a_person = {
        "class": replace(BUILT_IN.rules["class"], on_fail="hold", gross_tolerance=4.0),
        "low_confidence": replace(BUILT_IN.rules["low_confidence"], on_fail="hold", gross_tolerance=4.0),
        "disagreement": replace(BUILT_IN.rules["disagreement"], on_fail="hold", gross_margin=0.5),
    }
    assert {**BUILT_IN.rules, **for_a_person} == planned


def test_answers_that_take_a_minute_can_be_judged() -> None:
    """Each bound that a plan may have is one of the gateway's histogram."""
    slow = RolloutSpec.model_validate({"signals": {"latency": {"slower_than_ms": [10_000, 30_000, 60_000]}}})
    assert slow.signals.selection().keys["latency"] == {"10000", "30000", "60000"}
