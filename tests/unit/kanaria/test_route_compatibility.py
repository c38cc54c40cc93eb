"""What callers of one service would miss in another, by the two manifests alone."""

from typing import Any

import pytest

from kanaria.stack.compatibility import of_routes


def _texts(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: {"type": "string"} for name in names}


def route(*required: str, answer: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "input": {"properties": _texts(required), "required": list(required)},
        "output": {"type": "object", "properties": _texts(answer)},
    }


@pytest.mark.parametrize(
    ("canary", "found"),
    [
        ({"/a": route("text", answer=("label",))}, ()),
        ({"/a": route(answer=("label", "score")), "/b": route("new")}, ()),
        ({"/b": route("text")}, ("it has no route /a",)),
        ({}, ("it has no route /a",)),
        (
            {"/a": route("text", "user", answer=("label",))},
            ("/a requires `user`, which callers of stable need not send",),
        ),
        ({"/a": route("text")}, ("its answers at /a lack `label`",)),
        ({"/a": {"input": None, "output": {}}}, ("its answers at /a lack `label`",)),
    ],
)
def test_what_callers_would_miss(canary: dict[str, Any], found: tuple[str, ...]) -> None:
    assert of_routes(canary, {"/a": route("text", answer=("label",))}) == found


def test_an_answer_that_was_never_described_may_be_anything() -> None:
    assert of_routes({"/a": route("text")}, {"/a": {"route": "/a", "input": {}, "output": {"type": "object"}}}) == (
        "/a requires `text`, which callers of stable need not send",
    )
