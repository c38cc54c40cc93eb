"""The fastest engine within the tolerance is chosen, and never one that loses more accuracy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines import Engine
from service.optimise.choice import MIN_GAIN, Failure, Measurement, Trial, choose, refusal

EAGER = Measurement(Engine.EAGER, {1: 1.0, 32: 8.0}, accuracy=0.95)
OTHERS = [engine for engine in Engine if engine is not Engine.EAGER]


def trial(engine: Engine, speedup: float, accuracy: float = 0.95, golden_changed: int = 0) -> Measurement:
    return Measurement(engine, {rows: ms / speedup for rows, ms in EAGER.ms.items()}, accuracy, golden_changed)


def test_the_fastest_engine_is_chosen() -> None:
    """The order of the measurements does not matter."""
    trials = [trial(Engine.BFLOAT16, 2), trial(Engine.ONNX, 5), trial(Engine.ONNX_INT8, 3)]
    assert choose(trials, EAGER, tolerance=0).engine is Engine.ONNX


def test_an_engine_that_changes_more_must_be_clearly_faster() -> None:
    """An engine that changes less, or eager, is preferred to one that is only a little faster."""
    nearly = 2 * MIN_GAIN - 0.01
    assert choose([trial(Engine.ONNX, 2), trial(Engine.ONNX_INT8, nearly)], EAGER, 0).engine is Engine.ONNX
    assert choose([trial(Engine.ONNX, MIN_GAIN - 0.01)], EAGER, 0) is EAGER


def test_speed_is_the_geometric_mean_over_the_batch_sizes() -> None:
    """Four times as fast for one row and half as fast for many rows is 1.4 times as fast."""
    mixed = Measurement(Engine.ONNX, {1: 0.25, 32: 16.0}, accuracy=0.95)
    assert mixed.speedup(EAGER) == pytest.approx(2**0.5)


def test_a_loss_beyond_the_tolerance_is_refused_with_its_size() -> None:
    """The speed of the engine does not matter."""
    worse = trial(Engine.ONNX_INT8, 100, accuracy=0.93)
    assert refusal(worse, EAGER, tolerance=0.01) == "loses 2.00 points of accuracy, more than 1"
    assert choose([worse], EAGER, tolerance=0.01) is EAGER


def test_a_loss_of_exactly_the_tolerance_is_allowed() -> None:
    """0.95 - 0.93 is slightly more than 0.02 in floating point, and is still within the tolerance."""
    assert refusal(trial(Engine.ONNX_INT8, 2, accuracy=0.93), EAGER, tolerance=0.02) is None


def test_a_changed_answer_to_a_golden_request_is_refused() -> None:
    """Equal accuracy is not enough: every golden request must get its expected answer."""
    swapped = trial(Engine.ONNX_INT8, 100, golden_changed=2)
    assert refusal(swapped, EAGER, tolerance=1) == "answers 2 golden requests differently"


def test_an_engine_that_does_not_run_is_never_chosen() -> None:
    """The reason is reported."""
    failed = Failure(Engine.ONNX, "no such operator")
    assert (choose([failed], EAGER, 1), refusal(failed, EAGER, 1)) == (EAGER, "does not run: no such operator")


trials = st.builds(
    trial,
    st.sampled_from(OTHERS),
    st.floats(0.1, 100),
    accuracy=st.floats(0, 1),
    golden_changed=st.integers(0, 1),
) | st.builds(Failure, st.sampled_from(OTHERS), st.just("broken"))


@given(st.lists(trials, max_size=5), st.floats(0, 0.2))
def test_the_chosen_engine_is_allowed_and_not_slower(tried: list[Trial], tolerance: float) -> None:
    """This holds for any measurements and failures."""
    chosen = choose(tried, EAGER, tolerance)
    assert chosen is EAGER or (refusal(chosen, EAGER, tolerance) is None and chosen.speedup(EAGER) >= MIN_GAIN)
