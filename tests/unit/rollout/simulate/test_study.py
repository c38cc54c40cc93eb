"""What a study reports about its runs, with what certainty, and that it can be repeated."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.proofs.chapters import CHAPTERS, Study
from rollout.simulate.page import render_page
from rollout.simulate.parallel import Workers
from rollout.simulate.question import better_of, parse_question, scenario_of
from rollout.simulate.release import Run
from rollout.simulate.study import Findings, study
from rollout.simulate.summary import Proportion, quantile
from rollout.simulate.words import as_object, assumptions, stories
from rollout.spec import RolloutSpec

SPEC = RolloutSpec(steps=(5, 50, 100), soak=10)
SCENARIO = scenario_of(parse_question({"rps": "50", "worse": "+20%"}), SPEC)


def run(outcome: str, signal: str | None = None, *, stopped_s: float = 100.0, live_s: float | None = 10.0) -> Run:
    asked_s = stopped_s if outcome == "held" else None
    return Run(
        outcome,  # type: ignore[arg-type] # one of three words
        signal,
        stopped_s,
        live_s,
        full_s=None,
        promoted_s=None,
        asked_s=asked_s,
        harmed=5.0,
        harmed_before=5.0,
        requests=1000.0,
    )


@pytest.fixture(scope="module")
def findings() -> Findings:
    return study(SPEC, SCENARIO, releases=4, seed=3, jobs=1, history_s=300)


def test_findings_do_not_depend_on_the_number_of_processes(findings: Findings) -> None:
    """One process and two give the same runs in the same order."""
    assert study(SPEC, SCENARIO, releases=4, seed=3, jobs=2, history_s=300) == findings


def test_progress_counts_every_run() -> None:
    """Both kinds of release are counted when they are done."""
    done: list[int] = []
    study(SPEC, SCENARIO, releases=2, seed=3, jobs=1, history_s=0, on_progress=done.append)
    assert done == [1, 2, 3, 4]


def test_the_harmless_canary_is_promoted_and_the_harmful_one_is_stopped(findings: Findings) -> None:
    """Harm of a fifth more errors is distinguished from none."""
    assert {one.outcome for one in findings.harmless} == {"promoted"}
    assert {one.outcome for one in findings.harmful} == {"rolled_back"}


def test_a_deadline_is_not_a_false_alarm() -> None:
    """A harmless canary that ran out of time was not called harmful; one stopped by the guard or a signal was."""
    harmless = (run("promoted"), run("held", "deadline"), run("rolled_back", "guard"), run("held", "class:3"))
    found = Findings(SPEC, SCENARIO, harmless, (run("promoted"),))
    assert (found.false_alarms.count, found.out_of_time.count) == (2, 1)


def test_detection_time_starts_at_the_first_live_request() -> None:
    """It is zero for a canary stopped in the shadow and infinite for one that was promoted."""
    harmful = (run("rolled_back", "errors"), run("rolled_back", "errors", live_s=None), run("promoted"))
    assert Findings(SPEC, SCENARIO, (), harmful).detection_s == [90.0, 0.0, math.inf]


@pytest.mark.parametrize(("count", "of"), [(0, 400), (3, 400), (200, 400), (400, 400)])
def test_the_interval_of_a_proportion_is_exact(count: int, of: int) -> None:
    """It equals scipy's Clopper-Pearson interval."""
    exact = binomtest(count, of).proportion_ci(method="exact")
    found = Proportion(count, of)
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))


def test_the_interval_of_a_quantile_has_its_coverage() -> None:
    """It covers in 95 % of 1000 samples of 100 exponential times, 3 % of which never end."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(1000):
        times = np.where(rng.random(100) < 0.03, np.inf, rng.exponential(size=100))
        found = quantile(times.tolist(), 0.5)
        held += found.low <= -math.log(1 - 0.5 / 0.97) <= found.high
    assert binomtest(held, 1000, 0.95, alternative="less").pvalue > 0.001


def test_infinity_is_printed_as_a_word_and_as_null() -> None:
    """JSON has no infinity, and "inf" means little to people."""
    found = Findings(SPEC, SCENARIO, (run("rolled_back", "deadline"),) * 10, (run("promoted"),) * 10)
    harmless, harmful = stories(found)
    assert (harmless.answers[2].value, harmful.answers[1].value) == ("never", "never")
    assert as_object(found)["harmful"]["stopped_after_s"] == {"median": None, "p90": None}


def test_a_better_canary_has_its_own_section() -> None:
    """There is one only if a better canary was simulated."""
    spec = RolloutSpec(steps=("shadow", 50, 100), soak=10, warmup=0, require="better")
    question = parse_question({"rps": "50", "worse": "+20%", "labels": "50%", "wrong": "40%", "better": "0.1x"})
    scenario = scenario_of(question, spec)
    better = better_of(question, scenario, spec)
    found = study(spec, scenario, releases=2, seed=3, jobs=1, history_s=300, better=better)
    harmless, _, told = stories(found)
    assert told.title == "A better canary: 4 % of labels wrong instead of 40 %"
    assert (told.answers[0].value, as_object(found)["better"]["promoted"]["count"]) == ("2 of 2", 2)
    assert "by this plan only a better one is" in harmless.answers[-1].note
    assert "A better canary" in render_page(found, "kanaria simulate")


def test_without_a_better_canary_there_is_no_section_about_it(findings: Findings) -> None:
    """There are the two usual kinds."""
    assert (len(stories(findings)), as_object(findings)["better"]) == (2, None)


def test_the_study_says_that_segments_are_left_out() -> None:
    """Simulated requests have no headers."""
    spec = RolloutSpec.model_validate({"segments": "header:x-tenant"})
    told, untold = ("\n".join(assumptions(Findings(each, SCENARIO, (), ()))) for each in (spec, SPEC))
    assert "requests are not told apart by x-tenant" in told
    assert "told apart" not in untold


def test_the_page_is_self_contained(findings: Findings) -> None:
    """It is one file with its pictures and loads nothing else."""
    page = render_page(findings, "kanaria simulate")
    assert page.count('class="plotly-graph-div"') == 4
    assert "<script src" not in page
    assert "<link" not in page


@pytest.mark.exhaustive
@pytest.mark.timeout(900)  # one release stays in the shadow for hours of simulated noise
@pytest.mark.parametrize("chapter", ["false-rollbacks", "detection", "models"])
def test_no_promise_is_broken_significantly(chapter: str) -> None:
    """At a hundredth of the full size, a promise is broken only if chance explains it in under one of 40 runs."""
    _, rows_of = CHAPTERS[chapter]
    with Workers(1) as workers:
        broken = [row.what for row in rows_of(Study(workers, scale=0.01)) if row.status == "broken"]
    assert not broken
