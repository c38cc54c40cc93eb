"""Files that describe signals of numbers: their options, and the messages about mistakes."""

import pytest

from rollout.errors import SpecError
from rollout.judge.types import NumberRule
from rollout.signals.numbers import parse_numbers


def test_a_file_names_signals_with_their_bounds() -> None:
    """By default higher is worse, there is no tolerance and no budget."""
    rules = parse_numbers(
        "cost: {between: [0, 10], tolerance: 0.1, budget: 0.5, unit: EUR}\nscore: {between: [0, 1], worse: lower}",
        name="numbers.yaml",
        taken=(),
    )
    assert rules["cost"].numbers == NumberRule((0, 10), "higher", 0.1, 0.5, "EUR")
    assert rules["cost"].budgeted
    assert rules["score"].numbers == NumberRule((0, 1), "lower")
    assert not rules["score"].budgeted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must name signals"),
        ("- cost", "must name signals"),
        ("cost: [", "is not YAML"),
        ("cost: {}", "cost.between"),
        ("cost: {between: [0, 10], wurst: 3}", "the keys of `cost` are: between"),
        ("cost: {between: [10, 0]}", "write the smaller number first"),
        ("cost: {between: [0, .inf]}", "cost.between"),
        ("cost: {between: [0, 1e300]}", "cost.between"),
        ("cost: {between: [0, .nan]}", "cost.between"),
        ("cost: {between: [0, 10, 20]}", "cost.between"),
        ("cost: {between: [0, yes]}", "write a number such as 0.5"),
        ("cost: {between: [0, 10], worse: more}", "write `higher` or `lower`"),
        ("cost: {between: [0, 10], tolerance: -1}", "cost.tolerance"),
        ("cost: {between: [0, 10], tolerance: 10}", "means cannot be further apart"),
        ("cost: {between: [0, 10], budget: 0}", "cost.budget"),
        ("errors: {between: [0, 10]}", "choose another name"),
        ("cost:eur: {between: [0, 10]}", "a name without a colon"),
        ("7: {between: [0, 10]}", "a name without a colon"),
        ("cost: 10", "write keys such as"),
    ],
)
def test_a_mistake_in_the_file_is_reported(text: str, words: str) -> None:
    """The message says what to write instead."""
    with pytest.raises(SpecError) as refused:
        parse_numbers(text, name="numbers.yaml", taken=("errors",))
    assert words in str(refused.value)
