"""Receives answers as streams from the gateway. Bodies are compared and then dropped, unless a request is recorded."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from contract import metrics as m
from contract.http import OWN_CALLER
from contract.observation import (
    ANSWERED_BY,
    CALLER,
    CANARY,
    COMPARED,
    OWN_REQUEST,
    READ,
    RECORD,
    ROLE,
    SAMPLED,
    STABLE,
    USERS_REQUEST,
)
from observer.answers import Answer, Reader
from observer.findings import Findings
from observer.messages import (
    ATTRIBUTES,
    HEALTH_METHOD,
    HEALTH_SERVICE,
    HOST,
    METHOD,
    REQUEST_ID,
    ROUTE_NAME,
    SERVICE,
    SERVING,
    ProcessingRequest,
)
from observer.pairing import Pairs, Sampler, Versions
from observer.reading import LARGEST_READ
from observer.recording import Recorder
from observer.records import Asked

_MOST_STREAMS = 1024
_LARGEST_MESSAGE = 32 * 1024 * 1024  # one part of a body; the gateway sends parts as they arrive


class Observer:
    """Pairs the answers that the gateway sends."""

    def __init__(self, findings: Findings, recorder: Recorder | None = None) -> None:
        """
        Args:
            recorder: records requests; None: none are recorded.
        """
        self._findings, self._recorder = findings, recorder
        self._sampler = Sampler()
        self._pairs = Pairs(
            lost=lambda count: findings.seen(m.UNPAIRED, count), ambiguous=lambda: findings.seen(m.AMBIGUOUS)
        )
        findings.waiting_bytes.set_function(lambda: self._pairs.bytes)

    async def observe(self, messages: AsyncIterator[Any], metadata: dict[str, str]) -> None:
        """Read one answer, as far as needed."""
        role, version = metadata.get(ROLE, ""), metadata.get(READ, "")
        if role == RECORD:
            if self._recorder is not None:
                await self._recorder.observe(messages, metadata.get(ANSWERED_BY, ""))
            return
        stable, _, canary = metadata.get(COMPARED, "").partition(" ")
        by = {STABLE: stable, CANARY: canary}.get(role)  # None: a copy, which only its own version can answer
        is_compared = bool(canary) and (by is not None or role in USERS_REQUEST)
        if not (is_compared or version):
            return
        is_users = role not in USERS_REQUEST
        shown = _Shown()
        async for message in messages:
            is_first = not shown.request
            shown.add(message)
            if is_first:
                if not shown.request or (is_users and not shown.route):
                    return  # such a request has no copy, and its answer may be a stream
                if not (is_compared or self._findings.reads(shown.route)):
                    return
                if not self._sampler.takes(shown.request, is_users=is_users, now_s=time.monotonic()):
                    self._findings.seen(m.SKIPPED)
                    return
            if shown.is_over:
                answer = shown.answer()
                if answer is None:
                    return
                if version and shown.is_by(version):
                    self._findings.answered(version, shown.route, answer, asked=shown.asked, question=shown.question())
                if is_compared and (by is None or shown.is_by(by)):
                    versions, now_s = Versions(stable, canary), time.monotonic()
                    for met in self._pairs.add(
                        versions,
                        shown.request,
                        role,
                        answer,
                        now_s=now_s,
                        route=shown.route,
                        is_sampled=SAMPLED in metadata,
                        asked=shown.asked,
                    ):
                        self._findings.met(versions, met)
                return
        self._findings.seen(m.CUT)


def make_server(observer: Observer, address: str) -> grpc.aio.Server:
    """The gRPC server at `address`, not started yet."""

    async def process(messages: AsyncIterator[Any], context: Any) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        await observer.observe(messages, metadata)

    async def check(_request: bytes, _context: Any) -> bytes:
        return SERVING

    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", _LARGEST_MESSAGE)], maximum_concurrent_rpcs=_MOST_STREAMS
    )
    handlers = {
        SERVICE: {
            METHOD: grpc.stream_stream_rpc_method_handler(process, request_deserializer=ProcessingRequest.FromString)
        },
        HEALTH_SERVICE: {HEALTH_METHOD: grpc.unary_unary_rpc_method_handler(check)},
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, methods) for service, methods in handlers.items()]
    )
    server.add_insecure_port(address)
    return server


class _Shown:
    """A request and its answer, as far as the gateway sent them."""

    def __init__(self) -> None:
        self.request = ""  # the gateway's own id of the request and its copies
        self.asked: Asked | None = None
        self.route = ""  # empty for a copy, and for a request that is not copied
        self._host = ""  # Envoy's metadata of the process that answered
        self._question: Reader | None = None
        self._answer: Reader | None = None
        self.is_over = False

    def add(self, message: Any) -> None:
        """Read the next message."""
        attributes = message.attributes.get(ATTRIBUTES, {})
        if not self.request:
            asked, own, caller, self.route = (
                str(attributes[name]) if name in attributes else ""
                for name in (REQUEST_ID, OWN_REQUEST, CALLER, ROUTE_NAME)
            )
            self.request = own or asked  # routes of an earlier version give no id of the gateway's own
            self.asked = Asked(asked, caller or OWN_CALLER) if asked else None
        if HOST in attributes:
            self._host = str(attributes[HOST])
        if message.HasField("request_headers"):
            self._question = Reader(0, *_of_body(message.request_headers), most=LARGEST_READ)
        elif message.HasField("request_body"):
            if self._question:
                self._question.add(message.request_body.body)
        elif message.HasField("response_headers"):
            status = _headers(message.response_headers).get(":status", b"")
            if status.isdigit():
                self._answer = Reader(int(status), *_of_body(message.response_headers))
            self.is_over = message.response_headers.end_of_stream
        else:
            if self._answer:
                self._answer.add(message.response_body.body)
            self.is_over = message.response_body.end_of_stream

    def is_by(self, version: str) -> bool:
        """Whether `version` answered, and not another version in its place."""
        return not self._host or f'"{version}"' in self._host

    def question(self) -> Answer:
        """The body of the request; empty if the gateway did not send it."""
        return (self._question or Reader(0, "", "")).answer()

    def answer(self) -> Answer | None:
        """The answer; None if it has no status."""
        return self._answer.answer() if self._answer else None


def _of_body(shown: Any) -> tuple[str, str]:
    """The media type and encoding of a body, from its headers."""
    found = _headers(shown)
    return found.get("content-type", b"").decode("latin-1"), found.get("content-encoding", b"").decode("latin-1")


def _headers(shown: Any) -> dict[str, bytes]:
    return {header.key: header.raw_value for header in shown.headers.headers}
