"""The user's own signals: their options in a plan, and counting on pages without version labels."""

import math
from collections.abc import Mapping

import pytest

from rollout.errors import SpecError
from rollout.judge import Pair, Window
from rollout.judge.means import impossible
from rollout.signals.counters import Reading, Sample, merge, own_counters, windows
from rollout.signals.custom import CustomSignal
from rollout.signals.plan import Signals
from rollout.signals.selectors import selector
from rollout.spec import RolloutSpec, parse_spec

REFUSALS = CustomSignal(bad="refusals_total", of="answers_total")
HITS = CustomSignal(good='lookups_total{found="yes"}', of="lookups_total")
SLOW = CustomSignal(histogram="vllm:time_to_first_token_seconds", above=0.5)
TOKENS = CustomSignal(histogram="tokens", between=(0, 100), worse="lower", tolerance=5, unit="tokens")


def counted(options: CustomSignal, *samples: tuple[str, Mapping[str, str], float]) -> dict[str, Pair]:
    """The counters of one process, by the part of their name after the prefix."""
    found = own_counters("h:1", "m:v1", [Sample(*sample) for sample in samples], [options.counter])
    return {signal.removeprefix(options.counter.name): pair for (_, _, signal), pair in found.items()}


def histogram(name: str, within: Mapping[float, float], **labels: str) -> list[tuple[str, Mapping[str, str], float]]:
    return [(f"{name}_bucket", {"le": f"{bound}", **labels}, value) for bound, value in within.items()]


# ---- the plan


def test_own_signals_of_a_plan_survive_json() -> None:
    """The ledger gives the same plan back. Their names cannot be those of Kanaria's signals."""
    plan = parse_spec(
        "signals:\n"
        "  custom:\n"
        "    refusals: {bad: refusals_total, of: 'answers_total{route=~\"/chat|/ask\"}', tolerance: 1.5}\n"
        "    slow_start: {histogram: 'vllm:time_to_first_token_seconds', above: 0.5, required: true, history: 1m}\n"
        "    tokens: {histogram: tokens, between: [0, 100], worse: lower, unit: tokens, on_fail: hold}\n"
    )
    assert RolloutSpec.model_validate_json(plan.model_dump_json()) == plan
    assert list(plan.signals.own) == ["custom.refusals", "custom.slow_start", "custom.tokens"]
    assert "custom.slow_start" in plan.expected()
    assert "custom.slow_start" not in plan.without_steps().expected()
    rules = plan.judge_config().rules
    assert (rules["custom.refusals"].tolerance, rules["custom.tokens"].on_fail) == (1.5, "hold")
    assert rules["custom.tokens"].numbers is not None
    assert plan.words("custom.refusals").event == "were `refusals_total`"


@pytest.mark.parametrize(
    ("section", "saw", "do"),
    [
        ("{r: {bad: x}}", "it has `bad`", "write `bad` and `of`"),
        ("{r: {on_fail: hold}}", "it names no series", "write `bad` and `of`"),
        ("{R r: {bad: x, of: y}}", "`signals.custom.R r`", "small letters"),
        ("{r: {bad: 'x{', of: y}}", "`signals.custom.r.bad` is `x{`", "labels in braces"),
        ("{r: {bad: 'x{a=b}', of: y}}", "`signals.custom.r.bad`", "not `a=b`"),
        ("{r: {bad: 'x{a=~\"(\"}', of: y}}", "`signals.custom.r.bad`", "not a regular expression"),
        ("{r: {bad: 'x{a=~\"(?=b)\"}', of: y}}", "`signals.custom.r.bad`", "invalid perl operator"),
        ("{r: {histogram: x}}", "`histogram` has no bound", "`above: 0.5`"),
        ("{r: {histogram: x, above: 1, below: 2}}", "`histogram` has `above`, `below`", "write one of"),
        ("{r: {histogram: x, above: 500ms}}", "`500ms`", "without a unit"),
        ("{r: {histogram: x, above: .nan}}", "above", "finite"),
        ("{r: {histogram: x, between: [5, 1], worse: higher}}", "[5, 1]", "the smaller number first"),
        ("{r: {histogram: x, between: [0, 1]}}", "without `worse`", "`worse: higher`"),
        ("{r: {histogram: x, between: [0, 1], worse: lower, tolerance: 1}}", "`tolerance` is 1", "less than 1"),
        ("{r: {bad: x, of: y, tolerance: 0.5}}", "in `signals.custom.r` `tolerance` is 0.5", "at least 1"),
        ("{r: {bad: x, of: y, unit: EUR}}", "`unit` without `between`", "leave it out"),
        ("{r: {bad: x, of: y, above: 1}}", "`of` and `above`", "belongs to a `histogram`"),
        ("{r: {bad: x, of: y, history: 2h}}", "`2h`", "at most 30 min"),
        ("{r: {bda: x, of: y}}", "`signals.custom.r.bda` does not exist", "did you mean `bad`?"),
        ("{r: {bad: x, of: y}, q: {bad: x, of: y}}", "`signals.custom.r` and `signals.custom.q` count", "keep one"),
        ("[r]", "`signals.custom` is `[r]`", "refusals_total"),
        (f"{{{', '.join(f'a{n}: {{bad: x{n}, of: y}}' for n in range(11))}}}", "signals.custom", "at most 10"),
    ],
)
def test_each_mistake_is_reported_with_its_place(section: str, saw: str, do: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec(f"signals: {{custom: {section}}}")
    assert saw in refused.value.saw
    assert do in refused.value.do


def test_own_signals_with_sticky_callers_need_a_shadow_step() -> None:
    """One caller who stays on one version may cause any number of events, so only copies are a fair comparison."""
    signals = "signals: {custom: {r: {bad: x, of: y, required: true}}}\nsticky: header:x-user\n"
    assert "custom.r" in parse_spec(signals).signals.of_callers
    with pytest.raises(SpecError, match="signals of your own are judged only there"):
        parse_spec(f"{signals}steps: [5, 100]")


# ---- selectors


@pytest.mark.parametrize(
    ("text", "labels", "takes"),
    [
        ("x_total", {"a": "1"}, True),
        ('x_total{a="1"}', {"a": "1"}, True),
        ('x_total{a="1", b!="2"}', {"a": "1"}, True),
        ('x_total{a!="1"}', {"a": "1"}, False),
        ('x_total{a=~"1|2"}', {"a": "12"}, False),
        (f'x_total{{a=~"{".*" * 30}X"}}', {"a": "digits:20261129abcd"}, False),  # backtracking would take hours
        ('x_total{a!~"1.*"}', {"a": "12"}, False),
        ('x_total{a=""}', {}, True),
        (r'x_total{a="say \"}\" and \\"}', {"a": r'say "}" and ' + "\\"}, True),
    ],
)
def test_labels_are_matched_as_prometheus_does(text: str, labels: Mapping[str, str], takes: bool) -> None:
    assert selector(text).takes(labels) is takes


# ---- counting


def test_a_share_is_the_quotient_of_two_counters() -> None:
    """Series with other labels are summed; a part that was never counted is 0."""
    answers = [("answers_total", {"route": f"/{n}"}, 10.0) for n in range(1000)]
    assert counted(REFUSALS, *answers, ("refusals_total", {}, 7.0)) == {"": Pair(7, 10_000)}
    assert counted(REFUSALS, *answers) == {"": Pair(0, 10_000)}
    found = [("lookups_total", {"found": "yes"}, 8.0), ("lookups_total", {"found": "no"}, 2.0)]
    assert counted(HITS, *found) == {"": Pair(2, 10)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_values_that_are_not_counts_are_left_out(value: float) -> None:
    """No number is better than a wrong one."""
    good = ("answers_total", {}, 10.0)
    assert counted(REFUSALS, good, ("refusals_total", {}, value)) == {}
    assert counted(REFUSALS, ("answers_total", {}, value), ("refusals_total", {}, 1.0)) == {}
    assert counted(REFUSALS) == {}
    assert counted(SLOW, *histogram("vllm:time_to_first_token_seconds", {0.5: value, math.inf: 9.0})) == {}


def test_only_exact_bounds_of_a_histogram_are_used() -> None:
    """If some series lack the bound, the number of their events above it is unknown."""
    name = "vllm:time_to_first_token_seconds"
    both = histogram(name, {0.1: 1, 0.5: 6, math.inf: 10}, model="a")
    both += histogram(name, {0.1: 0, 0.5: 1, math.inf: 2}, model="b")
    assert counted(SLOW, *both) == {"": Pair(5, 12)}
    assert counted(CustomSignal(histogram=name, below=0.1), *both) == {"": Pair(1, 12)}
    assert counted(CustomSignal(histogram=f'{name}{{model="b"}}', above=0.5), *both) == {"": Pair(1, 2)}
    lacking = histogram(name, {0.1: 1, math.inf: 9}, model="c")
    assert counted(SLOW, *both, *lacking) == {}
    assert counted(CustomSignal(histogram=name, above=0.25), *both) == {}


def test_numbers_of_a_histogram_are_the_middles_of_its_buckets() -> None:
    """Sum and sum of squares are those of the middles, clipped to the range."""
    before = Reading(0.0, {})
    page = histogram("tokens", {10: 0, 50: 4, 200: 9, math.inf: 10})
    earlier = own_counters(
        "h:1", "m:v1", [Sample(*each) for each in histogram("tokens", {10: 0, math.inf: 0})], [TOKENS.counter]
    )
    now = own_counters("h:1", "m:v1", [Sample(*sample) for sample in page], [TOKENS.counter])
    before = Reading(0.0, earlier)
    (window,) = windows(before, Reading(5.0, now), stable="m:v1", canary="m:v2", own=[TOKENS.counter])
    assert window.numbers is not None
    middles = [30.0] * 4 + [75.0] * 5 + [100.0]
    assert window.numbers.stable == pytest.approx((10, sum(middles), sum(each * each for each in middles)), rel=1e-3)
    assert impossible(window.numbers.stable, (0, 100)) is None


# ---- new events


def seen(*readings: Mapping[str, tuple[int, int]]) -> list[tuple[Pair, Pair]]:
    """The new events of stable and canary between readings of (bad, total) by version."""
    found, previous = [], None
    for at_s, each in enumerate(readings, start=1):
        keys = {
            ("h:1" if tag == "m:v1" else "h:2", tag, REFUSALS.counter.name): Pair(*pair) for tag, pair in each.items()
        }
        current = Reading(float(at_s), keys)
        if previous is not None:
            new = windows(previous, current, stable="m:v1", canary="m:v2", own=[REFUSALS.counter])
            found.append(_both(new))
        previous = merge(previous, current)
    return found


def _both(new: list[Window]) -> tuple[Pair, Pair]:
    return (new[0].stable, new[0].canary) if new else (Pair(0, 0), Pair(0, 0))


def test_counts_from_before_the_first_reading_are_not_evidence() -> None:
    """A release that names a counter for the first time must not take a month of counts for one window."""
    assert seen({}, {"m:v1": (500, 1000)}, {"m:v1": (501, 1010)}) == [
        (Pair(0, 0), Pair(0, 0)),
        (Pair(1, 10), Pair(0, 0)),
    ]


def test_a_counter_that_falls_starts_again() -> None:
    """It may belong to a new process, or not be a counter; no event is invented."""
    assert seen({"m:v1": (5, 100)}, {"m:v1": (4, 90)}, {"m:v1": (4, 95)}, {"m:v1": (2, 60)}) == [
        (Pair(0, 0), Pair(0, 0)),
        (Pair(0, 5), Pair(0, 0)),
        (Pair(0, 0), Pair(0, 0)),
    ]


def test_a_part_that_disappears_and_returns_is_counted_once() -> None:
    assert seen({"m:v1": (5, 100)}, {"m:v1": (0, 110)}, {"m:v1": (5, 120)}) == [
        (Pair(0, 10), Pair(0, 0)),
        (Pair(0, 10), Pair(0, 0)),
    ]


def test_history_belongs_to_the_counted_series_and_not_to_the_name() -> None:
    """Another name or tolerance keeps the history; another series does not."""
    renamed = Signals({"custom.no": REFUSALS.model_copy(update={"tolerance": 2.0})})
    other = Signals({"custom.no": CustomSignal(bad="refusals_total", of="requests_total")})
    windows_of_before = [Window(1.0, 1.0, REFUSALS.counter.name, Pair(1, 9), Pair(0, 0))]
    assert [window.signal for window in renamed.selection().of(windows_of_before)] == ["custom.no"]
    assert other.selection().of(windows_of_before) == []
