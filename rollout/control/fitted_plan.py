"""Removes from a plan what cannot be counted of its two versions, so that no release waits for evidence forever.

A version that keeps the model contract counts its own answers. For other services only the gateway counts.
"""

from collections.abc import Callable, Collection

from contract.complaints import nearest
from contract.http import API_KEY_HEADER, CALLER_HEADER, FEEDBACK_PATH
from contract.own_answers import NO_ANSWERS, OwnAnswers
from rollout.errors import CommandRefused
from rollout.fleet import Service
from rollout.format import span
from rollout.signals.catalogue import PAIRED, Signal, catalogue
from rollout.signals.counting import Side
from rollout.signals.options import WrongLabel
from rollout.signals.plan import Signals
from rollout.spec import SHADOW, Golden, RolloutSpec

_NOT_READ = "`answers` is not used: versions that keep the model contract count their own answers"

_COUNTS_LABELS = "say in `answers` what a label is, for services without a route /feedback of their own"

NOT_COUNTED = "not_counted"  # topic of a release's note about what was left out


def refuse_unknown_routes(golden: Golden, *services: Service) -> None:
    """Refuse a plan that excludes from replay a route that no version has: a misspelt route would still be replayed.

    Raises: CommandRefused.
    """
    known = dict.fromkeys(route.path for service in services for route in service.routes)
    unknown = [route for route in golden.leave_out if route not in known]
    if unknown and golden.requests == "recorded":
        raise CommandRefused(
            f"requests to {unknown[0]} are to be left out, but no version has that route{nearest(unknown[0], known)}",
            saw=f"their routes: {', '.join(known) or 'none are named'}",
            do="correct `leave_out`: otherwise requests to the intended route would be replayed",
        )


def refuse_callers_without_names(spec: RolloutSpec, *, asks_for_keys: bool) -> None:
    """Refuse a plan that distinguishes callers by their keys where the gateway asks for no keys.

    Raises: CommandRefused.
    """
    if asks_for_keys:
        return
    if spec.sticky == CALLER_HEADER:
        raise CommandRefused(
            "the plan keeps callers on one side by their keys, but the gateway asks for no keys",
            saw=f"`sticky: header:{CALLER_HEADER}` (`header:{API_KEY_HEADER}` means the same)",
            do="name a header that distinguishes callers and is not a secret, such as `sticky: header:x-user-id`",
        )
    if spec.segments and spec.segments.header == CALLER_HEADER:
        raise CommandRefused(
            "the plan distinguishes callers by their keys, but the gateway asks for no keys",
            saw=f"`segments: header:{CALLER_HEADER}`",
            do="name a header that distinguishes callers and is not a secret, such as `segments: header:x-tenant`",
        )


def fitted(
    spec: RolloutSpec, tag: str, canary: Service, stable: Service, *, is_observed: bool = False
) -> tuple[RolloutSpec, str]:
    """The plan for a release of `tag`, and what was removed from it, in words; empty: nothing.

    Args:
        is_observed: an observer compares the answers of versions that do not count them themselves.

    Raises: CommandRefused where the plan requires something that cannot be counted.
    """
    if canary.keeps_contract and stable.keeps_contract:
        return (spec.model_copy(update={"answers": NO_ANSWERS}), _NOT_READ) if spec.answers else (spec, "")
    said = []
    is_read = is_observed and not (canary.keeps_contract or stable.keeps_contract)
    by_version = [row for row in catalogue().in_plans.values() if row.counter and row.counter.side is Side.SERVICE]
    has_copies = canary.answers_whole and stable.answers_whole
    read = _parts_read(spec, tag, canary, stable) if is_read else frozenset()
    takes_labels = not any(route.path == FEEDBACK_PATH for service in (canary, stable) for route in service.routes)
    missing = [
        row
        for row in by_version
        if not (row.is_observed and is_observed and has_copies)
        and not (row.read_from & read and (takes_labels or not _is_of_labels(row)))
    ]
    are_labels_counted = not any(map(_is_of_labels, missing))
    left_out = [row for row in missing if spec.signals.root.get(row.name) is not None]
    labels = spec.signals.get(WrongLabel)
    if labels and labels.required and not are_labels_counted:
        raise CommandRefused(
            "the plan waits for labels, but nobody counts them",
            saw=f"`signals.wrong_label` is required, and {tag} or stable is a service of its own",
            do=_COUNTS_LABELS + ", or take `required` out of the plan",
        )
    if spec.require == "better" and not are_labels_counted:
        raise CommandRefused(
            "the plan promotes only what labels prove better, but nobody counts them",
            saw=f"`require` is better, and {tag} or stable is a service of its own",
            do=_COUNTS_LABELS + ", or write `require: safe`",
        )
    if left_out:
        spec = spec.model_copy(update={"signals": spec.signals.without(*(row.name for row in left_out))})
        titles = ", ".join(row.words.family_title or row.words.title for row in left_out)
        can = " or an `answers` section" if is_read else ""
        said.append(f"not judged, because only versions that keep the model contract{can} count them: {titles}")
    if spec.steps != "auto" and spec.steps[0] == SHADOW and not has_copies:
        spec = spec.model_copy(update={"steps": spec.steps[1:]})
        said.append("there is no shadow step: only requests whose answers come as a whole are copied")
    if spec.compare and not (is_observed and has_copies and any(spec.signals.root.get(name) for name in PAIRED)):
        why = (
            "their answers do not come as a whole"
            if not has_copies
            else f"neither {' nor '.join(PAIRED)} is judged"
            if is_observed
            else "no observer compares their answers"
        )
        spec = spec.model_copy(update={"compare": 0.0})
        said.append(f"no request of the steps goes to both versions: {why}")
    return spec, "; ".join(said)


def _is_of_labels(row: Signal) -> bool:
    return row.judged is not None and row.judged.is_of_labels


def _parts_read(spec: RolloutSpec, tag: str, canary: Service, stable: Service) -> frozenset[str]:
    """The parts of answers that are counted for both versions. Raises CommandRefused for a route that neither has."""
    of_canary, of_stable = ({route.path for route in service.answers_whole} for service in (canary, stable))
    _check_routes(spec.answers, of_canary | of_stable, f"{tag} or stable")
    return spec.answers.counted(of_canary & of_stable)


def readable(answers: OwnAnswers, tag: str, service: Service) -> OwnAnswers:
    """What is read from the answers of `tag` alone. Raises CommandRefused for a route that it lacks."""
    if service.keeps_contract:
        return NO_ANSWERS
    _check_routes(answers, {route.path for route in service.answers_whole}, tag)
    return answers


def _check_routes(answers: OwnAnswers, known: Collection[str], whose: str) -> None:
    for path in answers.root:
        if path not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise CommandRefused(
                f"the plan says how to read the answers of {path}, which is not a route of {whose}",
                saw=f"`answers.{path}`; routes whose answers come as a whole: {listed}{nearest(path, known)}",
                do="name one of these routes, or delete the section",
            )


def asking(spec: RolloutSpec, known_s: Callable[[str], float]) -> tuple[RolloutSpec, str]:
    """The plan in which the user's own signals ask a person while their noise is hardly known; and which, in words.

    A counter may grow in clusters. If its events were judged as independent, it would roll harmless versions back.

    Args:
        known_s: returns for how long a counter, by its name in readings, has been counted on stable, seconds.
    """
    doubtful = {
        name: known
        for name, options in spec.signals.own.items()
        if options.on_fail == "rollback" and (known := known_s(options.counted_as)) < options.history
    }
    if not doubtful:
        return spec, ""
    asks = {name: spec.signals.own[name].model_copy(update={"on_fail": "hold"}) for name in doubtful}
    said = ", ".join(
        f"{name} ({span(known) if known else '0'} of {span(spec.signals.own[name].history)} of history)"
        for name, known in doubtful.items()
    )
    spec = spec.model_copy(update={"signals": Signals({**spec.signals.root, **asks})})
    return spec, f"the noise of these signals is not known yet, so they ask a person and roll nothing back: {said}"
