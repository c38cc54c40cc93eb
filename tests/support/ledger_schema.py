"""The shape of all events that the ledger stores, compared with the shape in tests/data/ for the current schema number.

`python -m tests.support.ledger_schema` writes the current shape there.
"""

import json
from typing import Any

from rollout.ledger.events import EVENT
from rollout.ledger.migrations import NUMBER
from tests.support.old_ledgers import DATA

_KEPT = DATA / "ledger-schema.json"
_WORDS = ("title", "description")  # parts of the schema that may change: they are for readers


def present() -> dict[str, object]:
    """The shape in the current code."""
    return {"number": NUMBER, "events": _without_words(EVENT.json_schema(mode="serialization"))}


def kept() -> dict[str, object]:
    """The shape from when the number was assigned."""
    found: dict[str, object] = json.loads(_KEPT.read_text())
    return found


def _without_words(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_words(value)
            for key, value in schema.items()
            if not (key in _WORDS and isinstance(value, str))
        }
    return [_without_words(value) for value in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    _KEPT.write_text(json.dumps(present(), indent=1, sort_keys=True) + "\n")
