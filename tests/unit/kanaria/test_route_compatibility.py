"""What callers of one service would miss in another, judged by the two manifests alone."""

from typing import Any

import pytest

from kanaria.stack.manifests import losses


def _texts(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: {"type": "string"} for name in names}


def route(*required: str, answer: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "input": {"properties": _texts(required), "required": list(required)},
        "output": {"type": "object", "properties": _texts(answer)},
    }


def says(canary: dict[str, Any], stable: dict[str, Any]) -> tuple[str, ...]:
    return tuple(loss.says for loss in losses(canary, stable))


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
    assert says(canary, {"/a": route("text", answer=("label",))}) == found


def test_an_undescribed_answer_may_be_anything() -> None:
    assert says({"/a": route("text")}, {"/a": {"route": "/a", "input": {}, "output": {"type": "object"}}}) == (
        "/a requires `text`, which callers of stable need not send",
    )


def test_nested_fields_are_compared() -> None:
    """This includes definitions elsewhere in the schema, even if they contain themselves."""
    tree = {"type": "object", "properties": {"label": {"type": "string"}, "below": {"$ref": "#/$defs/Tree"}}}
    stable = {"$ref": "#/$defs/Tree", "$defs": {"Tree": tree}}
    bare = {"type": "object", "properties": {"below": {"$ref": "#/$defs/Tree"}}}
    canary = {"type": "object", "properties": tree["properties"], "$defs": {"Tree": bare}}
    found = losses({"/a": {"output": canary}}, {"/a": {"output": stable}})
    assert (found[0].place, found[0].says) == ("/a below.label", "its answers at /a lack `below.label`")
    assert losses({"/a": {"output": stable}}, {"/a": {"output": stable}}) == ()


def test_items_of_lists_are_compared() -> None:
    """This holds for answers and for inputs."""

    def of(side: str, *required: str, **types: str) -> dict[str, Any]:
        item = {"properties": {name: {"type": type_} for name, type_ in types.items()}, "required": list(required)}
        return {"/a": {side: {"properties": {"rows": {"type": "array", "items": item}}}}}

    assert says(of("output", label="integer"), of("output", label="string", score="number")) == (
        "`rows[].label` of its answers at /a is a number; on stable it is text",
        "its answers at /a lack `rows[].score`",
    )
    assert says(of("output", score="number"), of("output", score="integer")) == ()
    (loss,) = losses(of("input", "text", "lang", text="string", lang="string"), of("input", "text", text="string"))
    assert loss.place == "/a rows[].lang"
    assert says(of("input", text="string"), of("input", "text", text="string")) == ()


def test_a_route_that_now_streams_and_a_removed_mounted_path_are_losses() -> None:
    """Nothing else is known about a mounted application."""
    streamed = {"/a": {"output": {"type": "string", "is_stream": True}}}
    assert says(streamed, {"/a": {"output": {"type": "string"}}}) == ("/a answers in parts; stable answers as a whole",)
    assert says({}, {"/app/x": {"mounted": True}}) == ("it has no route /app/x",)
    assert says({"/app/x": {"mounted": True}}, {"/app/x": {"mounted": True}}) == ()


@pytest.mark.parametrize("broken", ["text", [1], {"properties": 3, "items": [], "required": {}}, {"$ref": "#/gone"}])
def test_a_malformed_schema_is_ignored(broken: Any) -> None:
    """A partly unreadable manifest does not end a command."""
    assert losses({"/a": {"input": broken, "output": broken}}, {"/a": {"input": broken, "output": broken}}) == ()


@pytest.mark.parametrize(
    ("may_break", "is_allowed"),
    [(["/a label"], True), (["/a"], True), (["/a score"], False), (["/b"], False), ([], False)],
)
def test_a_plan_allows_a_loss_by_its_place_or_its_route(may_break: list[str], is_allowed: bool) -> None:
    (loss,) = losses({"/a": route("text")}, {"/a": route("text", answer=("label",))})
    assert loss.is_allowed(may_break) is is_allowed


def test_a_schema_whose_fields_contain_it_is_compared_only_to_a_limit() -> None:
    """Three fields that lead back to the whole schema have 3^20 paths.

    The control loop never finished comparing them.
    """
    inner: dict[str, Any] = {name: {"$ref": "#/definitions/all"} for name in ("left", "right", "above")}
    whole = {"definitions": {"all": {"type": "object", "properties": inner}}, "$ref": "#/definitions/all"}
    known = {"/a": {"input": whole, "output": whole}, "/b": route(answer=("label",))}
    assert says({"/a": known["/a"], "/b": route(answer=("label",))}, known) == ()
    lacking = {
        "definitions": {"all": {"type": "object", "properties": _texts(("left",))}},
        **whole["definitions"]["all"],
    }
    assert "its answers at /a lack `right`" in says(
        {"/a": {"input": whole, "output": lacking | {"properties": {}}}}, known
    )
    assert says({"/a": known["/a"], "/b": route()}, known) == ("its answers at /b lack `label`",)
