"""docs/settings.md, made from the settings themselves: `python -m tests.support.settings_page` writes it."""

from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from kanaria.settings import PREFIX, Settings
from tests.support.paths import ROOT

PAGE = ROOT / "docs/settings.md"

_HEAD = """\
# Settings

Every setting of the local stack is an environment variable. If a value cannot be used, the command says what to
correct and ends with exit code 2. A variable that begins with `KANARIA_` and does not exist is named on standard error.
`kanaria up` remembers hosts, ports, certificates and the list of versions in the state folder until `kanaria down`, so
that later commands find them. The variables of a container are in [containers](container.md), those of a load test in
[load tests](load-tests.md).

<!-- Made from kanaria/settings.py by `python -m tests.support.settings_page`; a test fails while it differs. -->

| variable | default | meaning |
|---|---|---|
"""


def settings_page() -> str:
    """The page as it should be."""
    rows = (_row(f"{PREFIX}{name.upper()}", field) for name, field in Settings.model_fields.items())
    return _HEAD + "".join(rows)


def _row(variable: str, field: FieldInfo) -> str:
    meaning = str(field.description)
    if get_origin(field.annotation) is Literal:
        choices = ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
        meaning = f"{meaning} (one of {choices})"
    return f"| `{variable}` | {_default(field.default)} | {meaning} |\n"


def _default(default: object) -> str:
    match default:
        case None | ():
            return "not set"
        case bool():
            return f"`{str(default).lower()}`"
        case float():
            return f"`{default:g}`"
        case tuple():
            return f"`{','.join(map(str, default))}`"
    return f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(settings_page())
