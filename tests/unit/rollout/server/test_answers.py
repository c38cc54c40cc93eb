"""The object that release engines store is small, whatever it contains."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge import JudgeConfig, Pair, Verdict, Window
from rollout.judge.judge import Judge
from rollout.server.answers import MOST_BYTES, answer_object, with_notes
from rollout.server.evidence import Answer
from rollout.signals.catalogue import catalogue

pytestmark = pytest.mark.needs("serve")

LONG = st.text(max_size=3000)


def judged(signals: int) -> Judge:
    judge = Judge(JudgeConfig(rules=catalogue().rules))
    counts = {"stable": Pair(10, 1000), "canary": Pair(9, 90)}
    judge.observe([Window(5.0, 5.0, name, **counts) for name in ("errors", *(f"class:{n}" for n in range(signals)))])
    return judge


JUDGEMENT = judged(50).judgement(next_weight=0.25)


@given(
    reason=LONG,
    notes=st.lists(LONG, max_size=5),
    more=st.lists(LONG, max_size=3),
    letter=st.sampled_from('x\u4e16\U0001f600"'),
)
def test_an_answer_is_at_most_4_kb(reason: str, notes: list[str], more: list[str], letter: str) -> None:
    """It may have many signals or a language that JSON escapes; the verdict and its sentence always stay."""
    answer = Answer(Verdict.INCONCLUSIVE, reason or letter * 3000, 5.0, JUDGEMENT, tuple(notes))
    said = answer_object(answer, "http://kanaria-judge.kanaria.svc:8091/releases/shop/digits/7fd54")
    for each in (said, with_notes(said, more)):
        assert len(json.dumps(each).encode()) <= MOST_BYTES
        assert each["verdict"] == "inconclusive"
        assert each["reason"]
        assert len(each["signals"]) + each.get("signals_left_out", 0) == 51


def test_an_answer_has_as_many_signals_as_fit() -> None:
    """One more signal would make it too long."""
    said = answer_object(Answer(Verdict.INCONCLUSIVE, "why", 5.0, JUDGEMENT), "http://kanaria-judge/releases/a/b/c")
    left_out = said["signals_left_out"]
    assert 0 < left_out < 51
    longest = max(len(json.dumps(each)) for each in said["signals"].items())
    assert MOST_BYTES - longest < len(json.dumps(said)) <= MOST_BYTES
    assert with_notes(said, ()) == said


@given(
    reason=LONG,
    since=st.none() | LONG,
    told=st.lists(LONG, max_size=5),
    letter=st.sampled_from('x\u4e16\U0001f600"'),
    signals=st.integers(0, 60),
)
def test_an_answer_from_a_config_map_is_at_most_4_kb(
    reason: str, since: str | None, told: list[str], letter: str, signals: int
) -> None:
    """A person may edit the ConfigMap, which can hold far more. It holds without new notes too."""
    kept: dict[str, Any] = {
        "verdict": "fail",
        "reason": reason or letter * 50_000,
        "since": since,
        "signals": {f"class:{n}": {"verdict": "fail"} for n in range(signals)},
        "next": None,
        "report": "http://kanaria-judge.kanaria.svc:8091/releases/shop/digits/7fd54",
        "notes": told,
    }
    before = json.dumps(kept)
    said = with_notes(kept, [])
    assert len(json.dumps(said).encode()) <= MOST_BYTES
    assert (said["verdict"], bool(said["reason"])) == ("fail", True)
    assert json.dumps(kept) == before
