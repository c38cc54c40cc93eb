"""The running service keeps what its OpenAPI page promises, for everything that the page allows or forbids."""

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis import GenerationMode

from tests.support.bentos import Bentos, Server

OPERATIONS = ("GET /healthz", "GET /livez", "GET /readyz", "GET /metrics", "POST /predict", "POST /feedback")
EXAMPLES = 50


@pytest.fixture(scope="module")
def server(bentos: Bentos) -> Iterator[Server]:
    with bentos.serve("digits:v1") as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server) -> schemathesis.BaseSchema:
    read = schemathesis.openapi.from_dict(httpx.get(f"{server.url}/docs.json", timeout=60).json())
    read.config.update(base_url=server.url)
    return read


def test_the_page_has_no_other_operation(page: schemathesis.BaseSchema) -> None:
    """Each operation is tested below."""
    assert {found.ok().label for found in page.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((label, GenerationMode.POSITIVE) for label in OPERATIONS),
        *((label, GenerationMode.NEGATIVE) for label in OPERATIONS if label.startswith("POST")),
    ],
)
def test_schemathesis_finds_nothing(page: schemathesis.BaseSchema, label: str, mode: GenerationMode) -> None:
    """Allowed input is accepted and other input refused; no 5xx, documented statuses, the right types and shapes."""
    (operation,) = (found.ok() for found in page.get_all_operations() if found.ok().label == label)
    with httpx.Client(timeout=60) as client:

        @settings(max_examples=EXAMPLES, derandomize=True, database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps_its_contract(case: schemathesis.Case) -> None:
            # schemathesis's own client does not work beside another package's fork of urllib3.
            asked = case.as_transport_kwargs()
            asked["content"] = asked.pop("data", None)
            wanted = {name: asked.get(name) for name in ("method", "url", "params", "headers", "json", "content")}
            case.validate_response(client.request(**wanted))

        keeps_its_contract()
