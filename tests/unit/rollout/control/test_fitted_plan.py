"""The plan of a release whose versions do not implement the model contract."""

from pathlib import Path

import pytest

from contract.own_answers import OwnAnswers
from rollout.control import commands as c
from rollout.control.fitted_plan import asking, fitted, readable, refuse_unknown_routes
from rollout.errors import CommandRefused
from rollout.explain.timeline import timeline
from rollout.fleet import CONTRACT, Route, Service
from rollout.ledger.ledger import Ledger
from rollout.ledger.state import desired
from rollout.signals.plan import Signals
from rollout.spec import Golden, RolloutSpec
from tests.support.world import Version, World

OWN = Service((Route("/summarize"), Route("/words", is_streamed=True)), 60)
STREAMS = Service((Route("/words", is_streamed=True),), 60)
NO_ROUTES = Service((), 60)


def test_a_plan_for_the_model_contract_is_unchanged() -> None:
    plan = RolloutSpec()
    assert fitted(plan, "m:v2", CONTRACT, CONTRACT) == (plan, "")


@pytest.mark.parametrize(("canary", "stable"), [(OWN, OWN), (OWN, CONTRACT), (CONTRACT, OWN)])
def test_no_step_waits_for_signals_that_no_version_counts(canary: Service, stable: Service) -> None:
    """Signals about answers are dropped; errors, latency and the shadow stay."""
    plan, left_out = fitted(RolloutSpec(), "m:v2", canary, stable)
    assert plan.expected(has_pairs=True) == ("errors", "latency")
    assert plan.steps == RolloutSpec().steps
    assert "predicted classes, low confidence, wrong by label, wrong where only one is right, unlike stable" in left_out


def test_what_an_observer_compares_is_judged() -> None:
    """The signal is judged if there is an observer and requests to copy; then the shadow step waits for it."""
    plan, left_out = fitted(RolloutSpec(), "m:v2", OWN, OWN, is_observed=True)
    assert plan.expected(has_pairs=True) == ("errors", "latency", "disagreement")
    assert "predicted classes, low confidence, wrong by label, wrong where only one is right" in left_out
    assert "unlike stable" not in left_out
    plan, left_out = fitted(RolloutSpec(), "m:v2", STREAMS, STREAMS, is_observed=True)
    assert plan.expected(has_pairs=True) == ("errors", "latency")
    assert "unlike stable" in left_out


@pytest.mark.parametrize(
    ("service", "is_observed", "judged", "why"),
    [
        (OWN, True, ("errors", "disagreement"), None),
        (OWN, True, ("errors", "paired_label"), "neither paired_label nor disagreement is judged"),
        (OWN, False, ("errors", "disagreement"), "no observer compares their answers"),
        (STREAMS, True, ("errors", "disagreement"), "their answers do not come as a whole"),
    ],
)
def test_requests_in_the_steps_are_compared_if_an_observer_compares_answers(
    service: Service, is_observed: bool, judged: tuple[str, ...], why: str | None
) -> None:
    asked = RolloutSpec(compare=0.1, signals=Signals().only(*judged))
    assert fitted(asked, "m:v2", CONTRACT, CONTRACT) == (asked, "")
    plan, left_out = fitted(asked, "m:v2", service, service, is_observed=is_observed)
    assert (plan.compare == 0.1) is (why is None)
    assert (why or "") in left_out
    assert ("goes to both versions" in left_out) is (why is not None)


@pytest.mark.parametrize("service", [STREAMS, NO_ROUTES])
def test_there_is_no_shadow_where_nothing_can_be_copied(service: Service) -> None:
    plan, left_out = fitted(RolloutSpec(), "m:v2", service, OWN)
    assert plan.steps == (1, 5, 25, 50, 100)
    assert "there is no shadow step" in left_out


def test_signals_that_a_person_left_out_are_not_mentioned() -> None:
    plan = RolloutSpec(signals=Signals().only("errors", "latency"), steps=(5, 100))
    assert fitted(plan, "m:v2", OWN, OWN) == (plan, "")
    assert fitted(plan.model_copy(update={"steps": "auto"}), "m:v2", STREAMS, STREAMS)[1] == ""


def test_a_plan_that_requires_labels_is_refused() -> None:
    plan = RolloutSpec.model_validate({"signals": {"wrong_label": {"required": True}}})
    with pytest.raises(CommandRefused, match="waits for labels"):
        fitted(plan, "m:v2", OWN, OWN)
    with pytest.raises(CommandRefused, match="what labels prove better"):
        fitted(RolloutSpec(require="better"), "m:v2", OWN, CONTRACT)


def test_own_signals_of_unknown_noise_ask_a_person() -> None:
    """Own signals that would roll back ask a person if stable's counts are known for too short a time."""
    custom = {
        "new": {"bad": "a_total", "of": "all_total"},
        "known": {"bad": "b_total", "of": "all_total"},
        "bold": {"bad": "c_total", "of": "all_total", "history": "none"},
        "meek": {"bad": "d_total", "of": "all_total", "on_fail": "hold"},
    }
    plan = RolloutSpec.model_validate({"signals": {"custom": custom}})
    known = {plan.signals.own["custom.new"].counted_as: 599.0, plan.signals.own["custom.known"].counted_as: 600.0}
    asks, said = asking(plan, lambda counted: known.get(counted, 0.0))
    assert {name: options.on_fail for name, options in asks.signals.own.items()} == {
        "custom.new": "hold",
        "custom.known": "rollback",
        "custom.bold": "rollback",
        "custom.meek": "hold",
    }
    assert "custom.new (9 min 59 s of 10 min of history)" in said
    assert asking(RolloutSpec(), lambda _: 0.0) == (RolloutSpec(), "")


def test_a_release_follows_and_keeps_the_fitted_plan(tmp_path: Path) -> None:
    """The ledger has the fitted plan and what it lacks; a restarted controller follows the same plan."""
    path = tmp_path / "ledger.db"
    world = World(path, versions={f"m:v{n}": Version(0.001, service=OWN) for n in (1, 2)})
    controller = world.controller()
    controller.execute(c.SetStable("m:v1", "ann"))
    world.live(controller, 60)
    controller.execute(c.StartRelease("m:v2", RolloutSpec(warmup=0.0, soak=10.0), "ann"))
    world.live(controller, 20)
    controller.close()
    controller = world.controller()
    world.live_until_ended(controller)
    controller.close()
    ledger = Ledger(path, read_only=True)
    release = timeline(ledger.of_release(1))
    ledger.close()
    assert release.state.outcome == "promoted"
    assert release.not_judged is not None
    assert release.spec.signals.selection().keys.keys() == {
        "errors",
        "rejected",
        "route",
        "latency",
        "typical_latency",
    }


READ = RolloutSpec.model_validate({"answers": {"/summarize": {"label": "label", "confidence": "score"}}})


def test_answer_fields_that_the_plan_reads_are_judged() -> None:
    """No step passes before the canary has counts of them."""
    plan, left_out = fitted(READ, "m:v2", OWN, OWN, is_observed=True)
    assert plan.expected() == ("errors", "latency", "class")
    assert plan.signals.root["low_confidence"] is not None
    assert "predicted classes" not in left_out
    numbers = RolloutSpec.model_validate({"answers": {"/summarize": {"number": "price"}}})
    plan, left_out = fitted(numbers, "m:v2", OWN, OWN, is_observed=True)
    assert plan.expected() == ("errors", "latency", "class")
    assert "low confidence" in left_out


def test_no_step_waits_for_an_answer_field_that_only_one_version_has() -> None:
    """Nothing is read if there is no observer, or if one version counts its answers itself."""
    other = Service((Route("/new"),), 60)
    assert "class" not in fitted(READ, "m:v2", OWN, other, is_observed=True)[0].expected()
    assert "class" not in fitted(READ, "m:v2", OWN, OWN)[0].expected()
    assert "class" not in fitted(READ, "m:v2", OWN, CONTRACT, is_observed=True)[0].expected()
    plan, left_out = fitted(READ, "m:v2", CONTRACT, CONTRACT)
    assert not plan.answers
    assert "`answers` is not used" in left_out


@pytest.mark.parametrize("path", ["/sumarize", "/words"])
def test_an_answer_path_that_is_missing_or_streams_is_refused(path: str) -> None:
    plan = RolloutSpec.model_validate({"answers": {path: {"label": "label"}}})
    with pytest.raises(CommandRefused, match=f"answers of {path}") as refused:
        fitted(plan, "m:v2", OWN, OWN, is_observed=True)
    assert "/summarize" in str(refused.value)
    assert ("did you mean" in str(refused.value)) == (path == "/sumarize")


def test_labels_of_answer_fields_are_judged_and_may_be_required() -> None:
    """If the service receives labels itself, this deployment knows nothing about them."""
    required = {"answers": {"/summarize": {"label": "label"}}, "signals": {"wrong_label": {"required": True}}}
    plan = RolloutSpec.model_validate(required)
    assert "wrong_label" in fitted(plan, "m:v2", OWN, OWN, is_observed=True)[0].expected()
    better = RolloutSpec.model_validate({"answers": {"/summarize": {"label": "label"}}, "require": "better"})
    assert fitted(better, "m:v2", OWN, OWN, is_observed=True)[0].require == "better"
    takes = Service((*OWN.routes, Route("/feedback")), 60)
    with pytest.raises(CommandRefused, match="nobody counts them"):
        fitted(plan, "m:v2", takes, OWN, is_observed=True)
    assert "wrong by label" in fitted(READ, "m:v2", OWN, takes, is_observed=True)[1]


def test_answers_are_counted_from_the_first_version_on_by_the_newest_plan(tmp_path: Path) -> None:
    """The first version may come with a plan that has `answers`; a release without `answers` ends the counting."""
    world = World(tmp_path / "ledger.db", versions={"m:v1": Version(service=OWN), "m:v2": Version(service=OWN)})
    controller = world.controller()
    with pytest.raises(CommandRefused, match="not a route of m:v1"):
        controller.execute(c.SetStable("m:v1", "ann", OwnAnswers.model_validate({"/other": {"label": "label"}})))
    controller.execute(c.SetStable("m:v1", "ann", READ.answers))
    assert desired(controller.snapshot.deployment).answers == READ.answers
    controller.execute(c.StartRelease("m:v2", RolloutSpec(steps=(5, 100)), "ann"))
    assert not desired(controller.snapshot.deployment).answers
    controller.close()


def test_a_contract_model_counts_its_answers_itself() -> None:
    assert not readable(READ.answers, "m:v1", CONTRACT)


def test_excluding_a_route_that_no_version_has_is_refused(tmp_path: Path) -> None:
    """Else the requests that the person meant would be sent again. Nothing is started."""
    golden = Golden(requests="recorded", leave_out=("/words", "/sumarize"))
    world = World(tmp_path / "ledger.db", versions={"m:v1": Version(service=OWN), "m:v2": Version(service=OWN)})
    controller = world.controller()
    try:
        controller.execute(c.SetStable("m:v1", "ann"))
        with pytest.raises(CommandRefused) as refused:
            controller.execute(c.StartRelease("m:v2", RolloutSpec(golden=golden), "ann"))
    finally:
        controller.close()
    assert (
        "/sumarize are to be left out, but no version has that route; did you mean `/summarize`?" in refused.value.what
    )
    assert refused.value.saw == "their routes: /summarize, /words"


def test_an_excluded_route_needs_to_exist_in_one_version_only() -> None:
    """Without recorded requests there is nothing to exclude."""
    new, old = Service((Route("/new"),), 60), Service((Route("/old"),), 60)
    refuse_unknown_routes(Golden(requests="recorded", leave_out=("/new", "/old")), new, old)
    refuse_unknown_routes(Golden(leave_out=("/nope",)), new, old)
    with pytest.raises(CommandRefused, match="none are named"):
        refuse_unknown_routes(Golden(requests="recorded", leave_out=("/nope",)), NO_ROUTES, NO_ROUTES)
