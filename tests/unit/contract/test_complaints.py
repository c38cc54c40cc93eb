"""Pydantic's error messages become plain English that names the key the user probably meant."""

import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from contract.complaints import advice, complaints, first_complaint, listed
from contract.errors import KanariaError
from contract.model_files import Golden, Reference, Sample, Schema
from loadtest.scenario import Scenario, load_scenario
from monitoring.slo.objectives import Slo
from tests.support.peak import at_most

PYDANTIC = re.compile(r"Input should|valid (tuple|number|integer|string|dict|list)|instance of|not permitted|required")
SCHEMA = {
    "features": [{"name": "age", "minimum": 0, "maximum": 120}],
    "answer": {"kind": "label", "labels": ["no", "yes"]},
}
VALID: dict[type[BaseModel], dict[str, Any]] = {
    Schema: SCHEMA,
    Golden: {"features": [[1.0]], "predictions": [{"label": "no"}]},
    Sample: {"features": [1.0], "label": "no"},
    Reference: {"features": [1.0], "prediction": {"label": "no"}, "truth": "no"},
    Scenario: load_scenario("demo").model_dump(mode="json"),
    Slo: {"objective": "99%", "bad_means": "failed", "total": "a", "bad": "b"},
}
ODD = (None, True, -1, 10**9, 0.5, float("nan"), "", "word", [], [1], ["x"], {}, {"x": 1}, [{"x": 1}])


@pytest.mark.parametrize("model", VALID, ids=lambda model: model.__name__)
def test_no_complaint_uses_the_words_of_pydantic(model: type[BaseModel]) -> None:
    """Any odd value in any field, and any missing field, gives a message of our own."""
    said = []
    for name in (*model.model_fields, "no_such_key"):
        for odd in ODD:
            try:
                model.model_validate({**VALID[model], name: odd})
            except ValidationError as error:
                said += complaints(error, model, whole="it")
            except KanariaError:  # has its own message
                continue
    assert said
    assert [line for line in said if PYDANTIC.search(line)] == []


def said(model: type[BaseModel], **values: Any) -> list[str]:
    """The complaints about these values."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return complaints(caught.value, model, whole="the schema")


def test_a_misspelt_key_gets_a_suggestion() -> None:
    """The nearest valid key is suggested, also inside nested objects."""
    feature = {"name": "age", "minimum": 0, "maximun": 120}
    misspelt = "`features.0.maximun` is not a key here; did you mean `maximum`?"
    assert said(Schema, features=[feature], answer=SCHEMA["answer"])[0] == misspelt
    assert said(Schema, feature=[], **SCHEMA) == ["`feature` is not a key here; did you mean `features`?"]


def test_a_complaint_shows_the_value_that_was_found() -> None:
    """A long value is shortened."""
    assert said(Schema, features=5, answer=SCHEMA["answer"]) == [
        "`features`: write a list in brackets, such as [25, 100], not 5"
    ]
    (long,) = said(Schema, features="x" * 1000, answer=SCHEMA["answer"])
    assert len(long) < 150


def test_more_than_200_mistakes_are_only_counted() -> None:
    """Each mistake is a dictionary: a million of them filled the memory of the process that read a hostile file."""
    few, many = ({str(number): 1 for number in range(count)} for count in (200, 100_000))
    with pytest.raises(ValidationError) as error, at_most(megabytes=20):
        Golden.model_validate(VALID[Golden] | many)
    assert [advice(details) for details in listed(error.value)] == ["100,000 mistakes are in it"]
    assert first_complaint(error.value, whole="the file") == "the file: 100,000 mistakes are in it"
    assert complaints(error.value, Golden, whole="the file") == ["the file: 100,000 mistakes are in it"]
    with pytest.raises(ValidationError) as error:
        Golden.model_validate(VALID[Golden] | few)
    assert len(complaints(error.value, Golden, whole="the file")) == 200
