"""Whether a page has the series of a plan's own signals; if not, each reason with what to write instead."""

import pytest

from rollout.signals.custom import CustomSignal
from rollout.sources.own_page import Finding, findings

PAGE = """\
# HELP chat_answers_total Answers
# TYPE chat_answers_total counter
chat_answers_total{outcome="answered",route="/chat"} 90.0
chat_answers_total{outcome="refused",route="/chat"} 10.0
# TYPE chat_errors_total counter
# TYPE chat_waiting gauge
chat_waiting 3.0
# TYPE chat_words histogram
chat_words_bucket{le="1.0"} 0.0
chat_words_bucket{le="10.0"} 70.0 # {trace_id="ab"} 7 1.5
chat_words_bucket{le="+Inf"} 100.0
chat_words_sum 700.0
chat_words_count 100.0
# TYPE chat_broken_total counter
chat_broken_total NaN
# TYPE chat_model_seconds summary
chat_model_seconds_count 100.0
chat_model_seconds_sum 3.0
"""


def found(**options: object) -> list[Finding]:
    return list(findings(PAGE, {"custom.mine": CustomSignal.model_validate(options)}))


@pytest.mark.parametrize(
    "options",
    [
        {"bad": 'chat_answers_total{outcome="refused"}', "of": "chat_answers_total"},
        {"bad": "chat_errors_total", "of": "chat_answers_total"},
        {"histogram": "chat_words", "above": 10},
        {"histogram": "chat_words", "between": [0, 50], "worse": "lower"},
        {"bad": "chat_words_count", "of": "chat_model_seconds_count"},
    ],
)
def test_nothing_is_found_if_every_series_is_there(options: dict[str, object]) -> None:
    """This includes a counter still at 0, and the counts of histograms and summaries."""
    assert found(**options) == []


@pytest.mark.parametrize(
    ("options", "saw", "do", "is_certain"),
    [
        ({"bad": "chat_errors_total", "of": "chat_anwsers_total"}, "there is no", "`chat_answers_total`", True),
        ({"bad": "chat_eror_total", "of": "chat_answers_total"}, "there is no", "`chat_errors_total`", False),
        ({"bad": "nowhere_near", "of": "chat_answers_total"}, "there is no", "with the first event", False),
        ({"bad": "chat_waiting", "of": "chat_answers_total"}, "is a gauge, which may fall", "name a counter", True),
        ({"bad": "chat_errors_total", "of": "chat_errors_total"}, "has no series yet", "with traffic", False),
        (
            {"bad": 'chat_answers_total{outcome="refusd"}', "of": "chat_answers_total"},
            "no series of `chat_answers_total` has these labels",
            "outcome is 'answered', 'refused'",
            False,
        ),
        ({"bad": "chat_errors_total", "of": "chat_broken_total"}, "is nan", "let it count events", True),
        (
            {"bad": "chat_answers_total", "of": 'chat_answers_total{outcome="refused"}'},
            "has counted 100, more than the 10",
            "name the counter of all events",
            True,
        ),
        ({"histogram": "chat_words", "above": 5}, "has no bound 5", "choose one of its bounds: 1, 10", True),
        ({"histogram": "chat_wrods", "above": 10}, "there is no `chat_wrods`", "`chat_words`", True),
        ({"histogram": "chat_waiting", "above": 10}, "is a gauge, and has no buckets", "name a histogram", True),
        (
            {"histogram": "chat_words", "between": [20, 30], "worse": "lower"},
            "has no bound between 20 and 30",
            "1, 10",
            True,
        ),
    ],
)
def test_each_reason_is_reported(options: dict[str, object], saw: str, do: str, is_certain: bool) -> None:
    told = found(**options)
    assert told
    assert (saw in told[0].saw, do in told[0].do, told[0].is_certain) == (True, True, is_certain), told


def test_only_a_few_of_a_thousand_values_are_listed() -> None:
    many = "".join(f'asked_total{{user="{n:04}"}} 1\n' for n in range(1000))
    wanted = CustomSignal(bad='asked_total{user="nobody"}', of="asked_total")
    (finding,) = findings(f"# TYPE asked_total counter\n{many}", {"custom.mine": wanted})
    assert finding.do.endswith("'0011' and 988 more")
