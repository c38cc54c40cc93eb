"""Simulated callers affect a release as the page about them says."""

from benchmarks.proofs.callers import World, ended, equal


def test_a_lying_caller_rolls_a_good_version_back_only_if_callers_are_unknown() -> None:
    world = World(equal(5, 0.1), lies=True)
    before, now = (ended(world, (7,), by_caller=known) for known in (False, True))
    assert before.rolled_back_s is not None
    assert before.asked_s is None
    assert now.rolled_back_s is None
    assert now.asked_s is not None


def test_harm_that_all_callers_report_is_rolled_back_without_asking_a_person() -> None:
    now = ended(World(equal(5), canary=0.3), (7,), by_caller=True)
    assert now.rolled_back_s is not None
    assert now.asked_s is None
