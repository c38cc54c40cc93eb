"""How many of the requests have their answers sent to the observer."""

import pytest

from contract.own_answers import OwnAnswers
from rollout.explain.plan import plan_in_words
from rollout.ledger import events as e
from rollout.ledger.state import Deployment, apply
from rollout.observe import BY_DEFAULT, Observe
from rollout.spec import RolloutSpec, parse_spec


@pytest.mark.parametrize(
    ("written", "share", "per_s"),
    [("10%", 0.1, 300), ("0.1 %", 0.001, 300), ("100%", 1, 300), ("50/s", 1, 50), ("300/s", 1, 300)],
)
def test_a_plan_gives_a_share_or_a_number_per_second(written: str, share: float, per_s: float) -> None:
    """The ledger stores it as numbers."""
    spec = parse_spec(f"observe: {written}")
    assert (spec.observe.share, spec.observe.per_s) == (share, per_s)
    assert RolloutSpec.model_validate_json(spec.model_dump_json()) == spec
    assert parse_spec(f"observe: {spec.observe}") == spec


def test_the_default_observes_all_requests_up_to_a_number_per_second() -> None:
    assert str(RolloutSpec().observe) == "50/s"
    assert [BY_DEFAULT.share_at(rate) for rate in (0, 2, 50, 100, 5_000)] == [1, 1, 1, 0.5, 0.01]


def test_a_share_is_limited_by_what_one_observer_can_take() -> None:
    tenth = Observe(share=0.1, per_s=300)
    assert [tenth.share_at(rate) for rate in (0, 2, 3000, 6000)] == [0.1, 0.1, 0.1, 0.05]


def test_the_newest_plan_counts_until_the_next_one() -> None:
    """This includes the plan of the first version."""
    first, later = Observe(per_s=10), Observe(share=0.1, per_s=300)
    known = apply(Deployment(), e.StableSet(at_s=0, tag="m:v1", observe=first))
    assert (Deployment().observe, known.observe) == (BY_DEFAULT, first)
    asked = e.ReleaseRequested(at_s=1, release=1, tag="m:v2", stable="m:v1", spec=RolloutSpec(observe=later), by="ann")
    known = apply(known, asked)
    assert known.observe == later
    assert apply(known, e.Aborted(at_s=2, release=1, reason="", by="ann")).observe == later


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("observe: 10%", "to 10 % of the requests, to at most 300 a second"),
        ("compare: 10%", "to all requests while at most 50 a second come, of more to as many a second"),
    ],
)
def test_validate_says_how_many_answers_are_read(plan: str, words: str) -> None:
    assert words in " ".join(plan_in_words(parse_spec(plan)))
    assert "the observer reads" in " ".join(plan_in_words(parse_spec(plan)))
    assert "the observer reads" not in " ".join(plan_in_words(RolloutSpec()))


def test_validate_says_how_many_if_the_plan_reads_answers() -> None:
    reads = RolloutSpec(answers=OwnAnswers.model_validate({"/label": {"label": "label"}}))
    assert "at most 50 a second" in " ".join(plan_in_words(reads))
