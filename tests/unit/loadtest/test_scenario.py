"""Scenario files: which are valid, which are refused, and what the errors say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loadtest.errors import ScenarioError
from loadtest.scenario import LONGEST_S, MOST_ARRIVALS, Scenario, Segment, Task, known_scenarios, load_scenario


def minimal(**changes: object) -> Scenario:
    return Scenario.model_validate({"name": "t", "seed": 1, "shape": [{"for_s": 10, "rate": 5}]} | changes)


@pytest.mark.parametrize("name", ["steady", "ramp", "spike", "soak", "demo"])
def test_every_scenario_that_comes_with_the_package_is_valid_and_named_after_its_file(name: str) -> None:
    """The five documented scenarios load, and each has the name of its file."""
    assert name in known_scenarios()
    assert load_scenario(name).name == name


@pytest.mark.parametrize("name", known_scenarios())
def test_no_scenario_asks_for_more_requests_than_it_sends(name: str) -> None:
    """`min_requests` is well below the expected arrivals; otherwise chance alone could break the gate."""
    scenario = load_scenario(name)
    assert scenario.gates.min_requests < scenario.expected_arrivals - 4 * scenario.expected_arrivals**0.5


def test_a_scenario_can_be_a_file(tmp_path: Path) -> None:
    """A path with a suffix is read as a file."""
    path = tmp_path / "mine.json"
    path.write_text(minimal().model_dump_json(), "utf-8")
    assert load_scenario(path) == minimal()


def test_an_unknown_name_lists_the_known_ones() -> None:
    """The error for a typo lists the scenarios that exist."""
    with pytest.raises(ScenarioError) as caught:
        load_scenario("stedy")
    assert "steady" in caught.value.do


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    """A misspelt key is an error that names it; it is not ignored."""
    path = tmp_path / "typo.yaml"
    path.write_text("{name: t, seed: 1, shape: [{for_s: 1, rate: 1}], gates: {p98_ms: 5}}", "utf-8")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert "gates.p98_ms" in caught.value.saw


def test_text_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    """A broken file causes our own error, not the parser's."""
    path = tmp_path / "broken.yaml"
    path.write_text("name: [", "utf-8")
    with pytest.raises(ScenarioError):
        load_scenario(path)


@given(for_s=st.floats(1, LONGEST_S), rate=st.floats(0, 5000), to_rate=st.floats(0, 5000))
def test_no_scenario_is_longer_or_bigger_than_the_bounds(for_s: float, rate: float, to_rate: float) -> None:
    """Whatever two segments are given, an accepted scenario keeps both bounds."""
    segments = (Segment(for_s=for_s, rate=rate, to_rate=to_rate),) * 2
    try:
        scenario = Scenario(name="t", seed=1, shape=segments)
    except ValidationError:
        total = sum(segment.expected for segment in segments)
        assert for_s * 2 > LONGEST_S or not 1 <= total <= MOST_ARRIVALS
    else:
        assert scenario.duration_s <= LONGEST_S
        assert 1 <= scenario.expected_arrivals <= MOST_ARRIVALS


def test_a_mix_without_any_weight_is_refused() -> None:
    """A scenario that could choose no task is an error."""
    with pytest.raises(ValidationError, match="every weight"):
        minimal(mix={"one_row": 0, "many_rows": 0, "bad_input": 0})


def test_feedback_gets_the_weight_that_labels_the_wanted_share_of_answers() -> None:
    """To label half of 90 + 10 prediction requests, feedback gets a weight of 50."""
    weights = minimal(mix={"one_row": 90, "many_rows": 10, "bad_input": 5}, labelled_ratio=0.5).weights
    assert weights[Task.FEEDBACK] == pytest.approx(50)
