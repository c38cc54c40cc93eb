"""Metric profiles, and the messages about mistakes in them."""

import pytest

from rollout.errors import SpecError
from rollout.signals.custom import CustomSignal
from rollout.signals.profile import Names, impossible, parse_profile

GOOD = """
versions: {app: '{version}'}
where: {namespace: '{namespace}'}
signals:
  errors: {of: requests_total, bad: 'requests_total{code=~"5.."}'}
"""
NAMES = Names("shop", "digits", "b", "a")


def test_a_profile_gives_the_labels_of_a_version() -> None:
    """The names of the release are filled in."""
    profile = parse_profile(GOOD, name="mine")
    assert profile.labels(NAMES, "b") == {"app": "b", "namespace": "shop"}
    assert profile.process == ("pod",)


@pytest.mark.parametrize(
    ("text", "saw", "do"),
    [
        ("[]", "`[]`", "copy one of the built-in profiles"),
        ("versions: {app: '{version}'\n", "expected", "correct it there"),
        ("name: x\n" + GOOD, "`x`", "leave it out: the name of the file is the name of the profile"),
        ("versions: {app: '{version}'}", "no `signals`", "extends: bentoml"),
        ("about: nothing", "no `versions` and no `signals`", "extends: bentoml"),
        ("extends: nobody", "`nobody`", "extend one of: known"),
        (GOOD.replace("'{version}'", "canary"), "no label in `versions` holds", "tell the versions apart"),
        (GOOD.replace("{namespace}", "{cluster}"), "{cluster}", "`{cluster}` is not known"),
        (GOOD.replace("{namespace}", "{version}"), "`where` holds", "move that label to `versions`"),
        (GOOD.replace("app:", "a-b:"), "a-b", "not the name of a label"),
        (GOOD.replace("errors:", "latency:"), "no `errors`", "every verdict needs them"),
        (GOOD + "  speed: {of: a_total, bad: b_total}\n", "`signals.speed` cannot", "a profile can give: errors"),
        (GOOD + "  latency: {histogram: duration}\n", "`signals.latency` has `histogram`", "unit: s"),
        (GOOD + "  latency: {histogram: duration, unit: us}\n", "us", "write `s` or `ms`"),
        (GOOD.replace('{code=~"5.."}', '{code=~"5("}'), "5(", "not a regular expression"),
        (GOOD.replace("bad:", "worse:"), "`signals.errors.worse` does not exist", "the keys of `signals.errors`"),
        (
            GOOD.replace("of:", "each: route, good:"),
            "`signals.errors` has `bad`, `each`, `good`",
            "write `errors: {of:",
        ),
        (GOOD.replace("bad:", "good:").replace("of: requests_total, ", ""), "`good`", "write `errors: {of:"),
        (GOOD.replace("where:", "process: []\nwhere:"), "process", "at least 1"),
        (GOOD.replace("where:", "wehre:"), "`wehre` does not exist", "where"),
    ],
)
def test_a_mistake_in_a_profile_is_reported(text: str, saw: str, do: str) -> None:
    """The message gives what was found and what to write."""
    with pytest.raises(SpecError) as refused:
        parse_profile(text, name="mine", known={"known": {}})
    assert "mine" in refused.value.what
    assert saw in refused.value.saw
    assert do in refused.value.do


def test_signals_that_a_plan_names_and_a_profile_lacks_are_found() -> None:
    """Only signals written in the plan count: defaults that the profile lacks are left out."""
    profile = parse_profile(GOOD, name="mine")
    mean = CustomSignal(histogram="cost", between=(0, 10), worse="higher")
    named = {"predictions": {}, "latency": None, "errors": {}, "wrong_label": {"after": "1m"}}
    assert sorted(impossible(profile, named, {"custom.cost": mean})) == ["custom.cost", "predictions", "wrong_label"]
