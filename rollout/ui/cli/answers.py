"""What a plan's `answers` reads from one answer, for people."""

import json
from pathlib import Path

from contract.complaints import nearest
from contract.expressions import Expression, field_path, has_field, near, shortened
from contract.own_answers import CONFIDENCE, LABEL, RouteAnswers, label_of, number_of
from contract.terminal import say
from rollout.errors import SpecError
from rollout.spec import RolloutSpec


def is_read(plan: RolloutSpec, path: Path, route: str | None) -> bool:
    """Say what the plan's `answers` reads from the answer in `path`.

    Args:
        route: of that answer; None: the only one in `answers`.

    Returns: whether each expression gives something that can be counted. Raises SpecError.
    """
    expected = _expected_answers(plan, route)
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{path} is no answer that can be read", saw=str(error), do="give a file with the JSON of one answer"
        ) from error
    complete = True
    for part, text in expected.counted.items():
        usable = (label_of if part == LABEL else number_of)(found := Expression(text).of(content))
        if usable is not None and not (part == CONFIDENCE and not 0 <= float(usable) <= 1):
            say(f"  {part}: `{text}` gives {shortened(found)}")
            continue
        complete = False
        saw = "matches nothing" if found is None else f"gives {shortened(found)}, which is no {part}"
        say(f"  {part}: `{text}` {saw}{near(text, content) if found is None else ''}", colour="red", err=True)
    for text in expected.ignore:
        if not has_field(content, field_path(text)):
            say(f"  ignore: `{text}` is no field of this answer{near(text, content)}", colour="yellow", err=True)
    return complete


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
