"""For random histories of pods, windows as arrays give to the last bit the result of single windows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.judge import Judgement, own_noise
from rollout.judge.judge import Judge
from rollout.judge.own_noise import of_counts
from rollout.judge.types import sum_of
from rollout.judge.windows import Windows
from rollout.signals.folding import START_TIME, CountedTwice, Fold, RawSeries
from rollout.signals.profile import Names, parse_profile
from rollout.spec import RolloutSpec

PROFILE = parse_profile(
    """
versions: {version: '{version}'}
signals:
  errors: {of: 'requests_total', bad: 'requests_total{code="500"}'}
  class: {of: predictions_total, each: label}
  latency: {histogram: seconds, unit: s}
""",
    name="test",
)
BEGINS_S, RELEASE_S, END_S = 0, 900, 2700
BOUNDS = ("0.1", "0.25", "1", "1.0", "2.5", "+Inf")


def history(seed: int) -> list[RawSeries]:
    """Pods that come, go and restart, failed scrapes, series that start late, and bounds that some pods lack."""
    rng = np.random.default_rng(seed)
    every: list[RawSeries] = []
    for pod in range(rng.integers(2, 7)):
        version = "b" if pod % 3 == 1 else "a"
        first_s = rng.integers(RELEASE_S, 2000) if version == "b" else rng.integers(0, 1500) * (pod > 0)
        last_s = END_S if rng.random() < 0.7 else rng.integers(first_s + 30, END_S + 30)
        times = np.arange(first_s, last_s, 5) + round(float(rng.random()), 3)
        times = times[rng.random(len(times)) > rng.choice([0.0, 0.02, 0.3])]
        labels = {"version": version, "pod": f"p{pod}"}
        of_pod = _counters(rng, times, labels)
        if rng.random() < 0.1 and len(times) > 20:  # another job scrapes it too for a while
            to = int(rng.integers(5, len(times)))
            of_pod += [RawSeries({**one.labels, "job": "b"}, one.times[:to], one.values[:to]) for one in of_pod]
        every += of_pod
    return every


def _counters(rng: np.random.Generator, times: np.ndarray, labels: dict[str, str]) -> list[RawSeries]:
    requests = rng.poisson(rng.choice([0.5, 20, 3000]), len(times))
    restarts = set(rng.integers(0, max(1, len(times)), rng.integers(0, 3)).tolist())
    shares = {("requests_total", "code", "200"): 0.97, ("requests_total", "code", "500"): 0.03}
    shares |= {("predictions_total", "label", f"class {key}"): 0.25 for key in range(rng.integers(1, 5))}
    bounds = [bound for bound in BOUNDS if bound == "+Inf" or rng.random() < 0.8]
    shares |= {("seconds_bucket", "le", bound): (n + 1) / len(bounds) for n, bound in enumerate(bounds)}
    made = []
    for (name, label, value), share in shares.items():
        values, total = np.zeros(len(times)), 0
        for place, events in enumerate(rng.binomial(requests, share)):
            total = events if place in restarts else total + events
            values[place] = total
        values[rng.random(len(times)) < rng.choice([0.0, 0.01])] = np.nan
        begin = rng.integers(0, len(times) + 1) if rng.random() < 0.2 else 0
        made.append(RawSeries({"__name__": name, label: value, **labels}, times[begin:], values[begin:]))
    if rng.random() < 0.5 and len(times):
        made.append(RawSeries({"__name__": START_TIME, **labels}, times, np.full(len(times), times[0] - 2)))
    return made


def wanted_from(begin_s: float, every: list[RawSeries]) -> list[RawSeries]:
    """The same without anything that the plan wants before `begin_s`: until then only the bound of 2.5 s."""
    cut = []
    for one in every:
        is_wanted = one.labels["__name__"] != START_TIME and one.labels.get("le") not in ("2.5", "+Inf")
        at = one.times >= (begin_s if is_wanted else BEGINS_S)
        cut.append(RawSeries(one.labels, one.times[at], one.values[at]))
    return [one for one in cut if len(one.times)]


def fold() -> Fold:
    names = Names("shop", "digits", "b", "a")
    counters = PROFILE.counters({})
    return Fold(PROFILE, counters, names, origin_s=RELEASE_S, window_s=15.0, interval_s=5.0, from_s=BEGINS_S)


def judged(judge: Judge) -> list[Judgement]:
    return [judge.judgement(next_weight=weight) for weight in (None, 0.1, 1.0)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    ends=st.lists(st.integers(30, END_S - 1), max_size=4),
    begin_s=st.sampled_from([BEGINS_S, RELEASE_S + 300, 2 * END_S]),
)
def test_windows_as_arrays_give_the_result_of_single_windows(seed: int, ends: list[int], begin_s: int) -> None:
    """Samples come at once or in parts; windows, noise, verdict and evidence are equal, even while none is wanted."""
    samples, folded, parts = wanted_from(begin_s, history(seed)), fold(), []
    for until_s in (*sorted(ends), END_S):
        try:
            parts.append(folded.extend(samples, until_s))
        except CountedTwice:
            break
    selection = RolloutSpec().signals.selection()
    arrays = selection.of_arrays(Windows.joined(parts or [fold().extend([], BEGINS_S)]))
    windows = selection.of([window for part in parts for window in part])
    assert [*arrays] == windows
    border = int(np.searchsorted(arrays.ends_s, RELEASE_S, "right"))
    before = [window for window in windows if window.end_s <= RELEASE_S]
    past = arrays.part(0, border)
    counted = {name: past.of_stable(place) for place, name in enumerate(past.signals)}
    noise = {name: own_noise([window for window in before if window.signal == name]) for name in arrays.signals}
    assert {name: of_counts(*counts) for name, counts in counted.items()} == noise
    known = {"errors": sum_of(counted["errors"][0])} if "errors" in counted else {}
    one_by_one, as_arrays = (Judge(RolloutSpec().judge_config(), noise, known) for _ in range(2))
    for end_s in sorted({window.end_s for window in windows if window.end_s > RELEASE_S}):
        one_by_one.observe([window for window in windows if window.end_s == end_s])
    for until in (*sorted({border + int(end_s) // 15 for end_s in ends}), len(arrays)):
        as_arrays.observe(arrays.part(border, until))
        border = max(border, min(until, len(arrays)))
    if one_by_one.judgement(next_weight=None).signals:
        assert judged(as_arrays) == judged(one_by_one)
