"""The observer over a real socket, with answers shown as Envoy shows them, and its pages."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.http import OWN_CALLER
from contract.observation import (
    CALLER,
    CANARY,
    COMPARED,
    COPY,
    DIFFERENCES_PATH,
    OWN_REQUEST,
    READ,
    REPEAT,
    ROLE,
    SAMPLED,
    STABLE,
    STABLE_COPY,
    FieldDifferences,
)
from contract.own_answers import NO_ANSWERS, OwnAnswers
from observer.findings import Findings
from observer.messages import ATTRIBUTES, HEALTH_METHOD, HEALTH_SERVICE, METHOD, SERVICE, SERVING, ProcessingRequest
from observer.pages import pages_of
from observer.reading import Row, Said
from observer.records import Asked, Records
from observer.server import Observer, make_server

PRIVATE = "4711-0815"
STEP = "step "  # prefix of a role: the answer belongs to a rollout step, where only a share of the requests is copied


def shown(
    request: str,
    content: Any,
    *,
    route: str = "",
    status: int = 200,
    is_whole: bool = True,
    by: str = "",
    asked: Any = None,
    own: str = "",
    caller: str = "",
) -> list[bytes]:
    """The messages of one answer in two parts, after those of its request if the request is shown."""
    head = ProcessingRequest()
    known = {"request.id": request, "xds.route_name": route, OWN_REQUEST: own, CALLER: caller}
    known = {name: value for name, value in known.items() if value}
    before = [ProcessingRequest(), ProcessingRequest()] if asked is not None else []
    if before:
        before[0].request_headers.headers.headers.add(key="content-type", raw_value=b"application/json")
        before[0].attributes[ATTRIBUTES].update(known)
        before[1].request_body.body = json.dumps(asked).encode()
    for key, value in ((":status", str(status)), ("content-type", "application/json")):
        head.response_headers.headers.headers.add(key=key, raw_value=value.encode())
    head.attributes[ATTRIBUTES].update(known)
    if by:
        head.attributes[ATTRIBUTES].update({"xds.upstream_host_metadata": f'fields {{ string_value: "{by}" }}'})
    body = json.dumps(content).encode()
    parts = [ProcessingRequest(), ProcessingRequest(), ProcessingRequest()]
    parts[0].response_body.body, parts[1].response_body.body = body[:5], body[5:]
    parts[2].response_body.end_of_stream = True
    return [message.SerializeToString() for message in (*before, head, *parts[: 3 if is_whole else 1])]


async def show(channel: grpc.aio.Channel, role: str, messages: list[bytes]) -> None:
    """Show an answer to compare, or one to read if `role` is a version's tag. The prefix STEP means a rollout step."""
    told = ((READ, role),) if ":" in role else ((ROLE, role.removeprefix(STEP)), (COMPARED, "m:v1 m:v2"))
    told += ((SAMPLED, "yes"),) if role.startswith(STEP) else ()
    call = channel.stream_stream(f"/{SERVICE}/{METHOD}")(metadata=told)
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the observer has seen enough
        for message in messages:
            await call.write(message)
        await call.done_writing()
        async for _ in call:
            raise AssertionError("the observer only listens")


async def findings_after(
    tmp_path: Path,
    answers: list[tuple[str, list[bytes]]],
    *,
    read: OwnAnswers = NO_ANSWERS,
    records: Records | None = None,
) -> Findings:
    """What an observer finds after it was shown these answers, one after the other."""
    findings = Findings(records=records)
    findings.expect(read)
    address = f"unix:{tmp_path / 'socket'}"
    server = make_server(Observer(findings), address)
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        assert await channel.unary_unary(f"/{HEALTH_SERVICE}/{HEALTH_METHOD}")(b"") == SERVING
        for role, messages in answers:
            await show(channel, role, messages)
    await server.stop(0)
    return findings


async def read(findings: Findings, path: str, **asked: str) -> str:
    """The text of one of the observer's pages."""
    transport = httpx.ASGITransport(pages_of(findings))
    async with httpx.AsyncClient(transport=transport, base_url="http://observer") as client:
        return (await client.get(path, params=asked)).raise_for_status().text


def counts(findings: Findings, name: str, *labels: str) -> dict[str, int]:
    """The samples of a metric by outcome or by other labels."""
    families = text_string_to_metric_families(findings.page().decode())
    samples = (sample for family in families for sample in family.samples if sample.name == name)
    return {
        " ".join(sample.labels[label] for label in labels or ("outcome",)): int(sample.value)
        for sample in samples
        if sample.value
    }


def hundred(answer: Any) -> list[tuple[str, list[bytes]]]:
    """The answers to a hundred requests, each with a different id; stable answers each request twice."""
    found = []
    for number in range(100):
        found += [
            (STABLE, shown(str(number), {"label": "a", "id": f"{PRIVATE}-{number}"}, route="/label")),
            (COPY, shown(str(number), answer(number))),
            (REPEAT, shown(str(number), {"label": "a", "id": f"{PRIVATE}-again-{number}"})),
        ]
    return found


def test_a_canary_that_is_wrong_for_a_quarter_is_counted_and_the_field_named(tmp_path: Path) -> None:
    wrong = hundred(lambda number: {"label": "b" if number % 4 == 0 else "a", "id": f"{PRIVATE}-other-{number}"})
    findings = asyncio.run(findings_after(tmp_path, wrong))
    assert counts(findings, "kanaria_disagreement_total") == {"different": 25, "same": 75}
    assert counts(findings, "kanaria_observer_repeats_total") == {"different": 100}
    assert counts(findings, "kanaria_observer_answers_total") == {"compared": 200}
    page = asyncio.run(read(findings, DIFFERENCES_PATH, stable="m:v1", canary="m:v2"))
    assert asyncio.run(read(findings, DIFFERENCES_PATH, stable="m:v1", canary="m:v3")) == "[]"
    assert PRIVATE not in page + asyncio.run(read(findings, "/metrics"))
    (found,) = FieldDifferences.validate_json(page)
    assert (found.route, found.field, found.different, found.compared) == ("/label", "label", 25, 100)


def test_a_canary_that_answers_the_same_does_not_differ(tmp_path: Path) -> None:
    same = hundred(lambda number: {"label": "a", "id": f"{PRIVATE}-other-{number}"})
    assert counts(asyncio.run(findings_after(tmp_path, same)), "kanaria_disagreement_total") == {"same": 100}


def test_no_content_of_an_answer_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """This holds for answers that the observer understands and for those that it does not."""
    caplog.set_level(logging.DEBUG)
    odd = [(STABLE, shown("a", [[PRIVATE]] * 3, route="/label")), (COPY, shown("a", {PRIVATE: float("nan")}))]
    asyncio.run(findings_after(tmp_path, hundred(lambda _: {PRIVATE: 1}) + odd))
    assert PRIVATE not in caplog.text + "".join(capfd.readouterr())


def test_incomplete_answers_and_those_without_a_copy_are_not_compared(tmp_path: Path) -> None:
    answers = [
        (STABLE, shown("a", {}, route="/label", is_whole=False)),
        (STABLE, shown("b", {}, route="")),  # the answer of a stream
        (COPY, shown("a", {})),
        ("nobody", shown("a", {})),
    ]
    findings = asyncio.run(findings_after(tmp_path, answers))
    assert counts(findings, "kanaria_observer_answers_total") == {"cut": 1}
    assert counts(findings, "kanaria_disagreement_total") == {}


LABELS = OwnAnswers.model_validate({"/label": {"label": "label", "ignore": ["id"]}})


def predicted(findings: Findings) -> dict[str, int]:
    return counts(findings, "kanaria_predictions_total", "version", "label")


def test_users_answers_are_counted_for_the_version_that_gave_them(tmp_path: Path) -> None:
    """Not counted: answers given in place of the other version, streams, and routes that the plan does not name."""
    answers = [
        ("m:v1", shown("a", {"label": "a"}, route="/label", by="m:v1")),
        ("m:v2", shown("b", {"label": "b"}, route="/label", by="m:v2")),
        ("m:v2", shown("c", {"label": "b"}, route="/label", by="m:v1")),
        ("m:v2", shown("d", {"label": "b"}, route="", by="m:v2")),
        ("m:v2", shown("e", {"label": "b"}, route="/other", by="m:v2")),
        ("m:v2", shown("f", {"label": "b"}, route="/label", by="m:v2", is_whole=False)),
        ("m:v2", shown("g", {"label": "b"}, route="/label", by="m:v2", status=500)),
    ]
    assert predicted(asyncio.run(findings_after(tmp_path, answers, read=LABELS))) == {"m:v1 a": 1, "m:v2 b": 1}


def test_copies_are_counted_when_they_are_paired_with_stables_answer(tmp_path: Path) -> None:
    """Repeats are not counted, because no caller asked for them. Fields that the plan ignores are no difference."""
    answers = hundred(lambda number: {"label": "b", "id": number})
    findings = asyncio.run(findings_after(tmp_path, answers, read=LABELS))
    assert predicted(findings) == {"m:v2 b": 100}
    assert counts(findings, "kanaria_observer_repeats_total") == {"same": 100}


def test_without_expressions_nothing_is_counted(tmp_path: Path) -> None:
    assert (
        predicted(asyncio.run(findings_after(tmp_path, [("m:v1", shown("a", {"label": "a"}, route="/label"))]))) == {}
    )


class Kept:
    """Records that are kept in memory."""

    def __init__(self) -> None:
        self.expected, self.rows = NO_ANSWERS, list[tuple[str, str, Said, Row]]()
        self.copies = list[tuple[str, str, Said]]()

    def expect(self, answers: OwnAnswers) -> None:
        self.expected = answers

    def record(self, version: str, asked: Asked, said: Said, row: Row, *, is_copy: bool = False) -> None:
        request = asked.id if asked.caller == OWN_CALLER else f"{asked.caller}: {asked.id}"
        if is_copy:
            self.copies.append((version, request, said))
        else:
            self.rows.append((version, request, said, row))


def test_answers_are_kept_with_the_declared_columns_of_their_requests(tmp_path: Path) -> None:
    """Only the user's request is shown. An error is not an answer."""
    columns = {"features": {"age": "age"}, "words": {"country": "country"}}
    read, kept = OwnAnswers.model_validate({"/label": {"label": "label", **columns}}), Kept()
    asked = {"age": 41, "country": "jp", "name": PRIVATE}
    answers = [
        ("m:v1", shown("a", {"label": "x"}, route="/label", asked=asked)),
        ("m:v2", shown("b", {"label": "y"}, route="/label", asked={"age": "old"})),
        ("m:v2", shown("c", {"label": "y"}, route="/label", asked=asked, status=500)),
    ]
    asyncio.run(findings_after(tmp_path, answers, read=read, records=kept))
    assert kept.expected == read
    assert kept.rows == [("m:v1", "a", Said("x"), (41.0, "jp")), ("m:v2", "b", Said("y"), (None, None))]


def test_the_answer_to_a_copy_is_kept_with_the_users_request(tmp_path: Path) -> None:
    read, kept = OwnAnswers.model_validate({"/label": {"label": "label", "features": {"age": "age"}}}), Kept()
    findings = Findings(records=kept)
    findings.expect(read)
    observer = Observer(findings)

    async def show_both() -> None:
        for metadata, messages in (
            ({ROLE: COPY, COMPARED: "m:v1 m:v2"}, shown("a", {"label": "y"})),
            (
                {ROLE: STABLE, COMPARED: "m:v1 m:v2", READ: "m:v1"},
                shown("a", {"label": "x"}, route="/label", asked={"age": 41}),
            ),
        ):
            await observer.observe(_each(messages), metadata)

    asyncio.run(show_both())
    assert kept.rows == [("m:v1", "a", Said("x"), (41.0,)), ("m:v2", "a", Said("y"), (41.0,))]


def test_answers_are_paired_by_the_gateways_ids_if_a_caller_reuses_its_own(tmp_path: Path) -> None:
    """Nothing was compared within 90 seconds, so the release waited in the shadow step while that caller went on."""
    answers = []
    for number in range(50):
        own = f"own {number}"
        answers += [
            (STABLE, shown("same", {"label": "a"}, route="/label", own=own)),
            (COPY, shown("same", {"label": "a"}, own=own)),
            (REPEAT, shown("same", {"label": "a"}, own=own)),
        ]
    findings = asyncio.run(findings_after(tmp_path, answers))
    assert counts(findings, "kanaria_disagreement_total") == {"same": 50}
    assert counts(findings, "kanaria_observer_answers_total") == {"compared": 100}


def test_answers_are_kept_with_the_name_of_the_key_that_asked(tmp_path: Path) -> None:
    kept = Kept()
    answers = [
        ("m:v1", shown("a", {"label": "x"}, route="/label", caller="shop")),
        (STABLE, shown("b", {"label": "x"}, route="/label", own="1", caller="bank")),
        (COPY, shown("b", {"label": "y"}, own="1", caller="bank")),
    ]
    asyncio.run(findings_after(tmp_path, answers, read=LABELS, records=kept))
    assert kept.rows == [("m:v1", "shop: a", Said("x"), ()), ("m:v2", "bank: b", Said("y"), ())]


async def _each(messages: list[bytes]) -> AsyncIterator[Any]:
    for message in messages:
        yield ProcessingRequest.FromString(message)


def test_rollout_steps_compare_both_directions_and_count_copies_only_as_comparisons(tmp_path: Path) -> None:
    """An answer that one version gave in place of the other is not compared, nor are most requests."""
    answers = []
    for number in range(20):
        of_stable, of_canary = f"s{number}", f"c{number}"
        answers += [
            (STEP + STABLE, shown(of_stable, {"label": "a"}, route="/label", by="m:v1")),
            (STEP + COPY, shown(of_stable, {"label": "a" if number % 2 else "b"}, by="m:v2")),
            (STEP + REPEAT, shown(of_stable, {"label": "a"}, by="m:v1")),
            (STEP + CANARY, shown(of_canary, {"label": "b" if number % 4 else "a"}, route="/label", by="m:v2")),
            (STEP + STABLE_COPY, shown(of_canary, {"label": "a"}, by="m:v1")),
            (STEP + STABLE, shown(f"alone {number}", {"label": "a"}, route="/label", by="m:v1")),
            (STEP + STABLE, shown(f"other {number}", {"label": "b"}, route="/label", by="m:v2")),
            (STEP + COPY, shown(f"other {number}", {"label": "b"}, by="m:v2")),
        ]
    kept = Kept()
    findings = asyncio.run(findings_after(tmp_path, answers, read=LABELS, records=kept))
    assert counts(findings, "kanaria_disagreement_total") == {"different": 25, "same": 15}
    assert counts(findings, "kanaria_observer_repeats_total") == {"same": 20}
    assert predicted(findings) == {}
    assert kept.rows == []
    assert {("m:v2", "s0", Said("b")), ("m:v1", "c1", Said("a"))} <= set(kept.copies)
    assert len(kept.copies) == 40
