"""Shows what a plan's `answers` reads from real answers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.complaints import nearest
from contract.expressions import Expression, field_path, has_field, near, shortened
from contract.own_answers import CONFIDENCE, LABEL, RouteAnswers, label_of, number_of
from contract.terminal import say
from rollout.errors import SpecError
from rollout.spec import RolloutSpec

if TYPE_CHECKING:
    from contract.recorded import RecordedRequest

_NOTHING: Any = object()
_SUCCESS = 2  # the first digit of a status


def is_read(plan: RolloutSpec, path: Path, route: str | None) -> bool:
    """Print what the plan's `answers` reads from the answer in the file `path`.

    Args:
        plan: the plan.
        path: a file with the JSON of one answer.
        route: the answer's route; None: the only one in `answers`.

    Returns: whether each expression gives a value that can be counted. Raises SpecError.
    """
    expected = _expected_answers(plan, route)
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(
            f"{path} cannot be read as an answer", saw=str(error), do="give a file with the JSON of one answer"
        ) from error
    return _says(expected, content)


def are_recorded_read(plan: RolloutSpec, recorded: Iterable["RecordedRequest"]) -> bool:
    """Print what the plan's `answers` reads from the newest recorded answer of each route.

    Args:
        plan: the plan.
        recorded: oldest first.

    Returns: whether each expression gives a value that can be counted, for routes with an answer.
    """
    newest = {request.route: request for request in recorded if _is_readable(request)}
    results = []
    for route, expected in plan.answers.root.items():
        if (found := newest.get(route)) is None:
            say(f"  {route}: no answer was recorded; to try the expressions use `kanaria record` or --answer FILE")
            continue
        say(f"  {route}: from the answer that was recorded last")
        results.append(_says(expected, _content(found.answer)))
        _say_columns(expected, _content(found.body))
    return all(results)


def _is_readable(request: "RecordedRequest") -> bool:
    return request.status // 100 == _SUCCESS and _content(request.answer) is not _NOTHING


def _content(body: bytes | None) -> Any:
    try:
        return _NOTHING if body is None else json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or compressed
        return _NOTHING


def _says(expected: RouteAnswers, content: Any) -> bool:
    complete = True
    for part, text in expected.counted.items():
        usable = (label_of if part == LABEL else number_of)(found := Expression(text).of(content))
        if usable is not None and not (part == CONFIDENCE and not 0 <= float(usable) <= 1):
            say(f"  {part}: `{text}` gives {shortened(found)}")
            continue
        complete = False
        saw = "matches nothing" if found is None else f"gives {shortened(found)}, which is not a {part}"
        say(f"  {part}: `{text}` {saw}{near(text, content) if found is None else ''}", colour="red", err=True)
    for text in expected.ignore:
        if not has_field(content, field_path(text)):
            say(f"  ignore: `{text}` is not a field of this answer{near(text, content)}", colour="yellow", err=True)
    return complete


def _say_columns(expected: RouteAnswers, request: Any) -> None:
    """Print which columns a request lacks. That is allowed: a missing value is stored as missing."""
    for part, columns in (("features", expected.features), ("words", expected.words)):
        for name, text in columns.items():
            if Expression(text).of(None if request is _NOTHING else request) is None:
                hint = "" if request is _NOTHING else near(text, request)
                say(f"  {part}: `{name}: {text}` matches nothing in its request{hint}", colour="yellow", err=True)


def _expected_answers(plan: RolloutSpec, route: str | None) -> RouteAnswers:
    routes = plan.answers.root
    name = route or (next(iter(routes)) if len(routes) == 1 else None)
    if name in routes:
        return routes[name]
    given, known = route or "is not given", ", ".join(routes) or "no route"
    raise SpecError(
        "an answer is read as the plan says for its route",
        saw=f"--route {given}; `answers` has {known}{nearest(route or '', routes)}",
        do="name one of them with --route",
    )
