"""No client input makes the service fail, reveal internals or stop answering. Every run is the same."""

import contextlib
import gzip
import json
import random
import re
import socket
from collections.abc import Iterator

import httpx
import orjson
import pytest

from tests.support.asking import HTTP
from tests.support.bentos import Bentos, Server

TAG = "digits:v1"
INSIDES = re.compile(r'Traceback|File "|\.py|site-packages|Exception')
WIDE = [0.0] * 64
TOKENS = b'" [ ] { } , : \\ \x00 - e9 null 1e400 -1 17 NaN \\ud800 \xf0\x9f "features":'.split(b" ")


@pytest.fixture(scope="module")
def server(bentos: Bentos) -> Iterator[Server]:
    with bentos.serve(TAG) as running:
        yield running


@pytest.fixture(scope="module")
def body(bentos: Bentos) -> bytes:
    return bentos.requests(TAG, 2)


@pytest.fixture(autouse=True)
def unharmed(server: Server) -> Iterator[None]:
    """After each test: no 5xx was counted, no error was logged, and the service still answers."""
    yield
    counted = server.metrics()
    failed = {name: value for name, value in counted.items() if name[0] == "kanaria_requests_total" and "5xx" in name}
    assert set(failed.values()) == {0.0}
    assert INSIDES.search(server.log.read_text()) is None
    assert HTTP.get(f"{server.url}/readyz").status_code == 200


def is_clean(answer: httpx.Response) -> bool:
    """Whether it is an answer, or a problem that says what to do and reveals no internals."""
    is_problem = answer.headers["content-type"] == "application/problem+json"
    expected = is_problem if answer.status_code != 200 else "predictions" in answer.text or "counted" in answer.text
    return answer.status_code < 500 and expected and INSIDES.search(answer.text) is None


def row(first: str) -> bytes:
    """A prediction request whose first value is written as `first`."""
    return b'{"features": [[%b%b]]}' % (first.encode(), b", 0" * 63)


HOSTILE: dict[str, bytes] = {
    "bad UTF-8 in a key": b'{"f\xff\xfeatures": [[0]]}',
    "bad UTF-8 in a value": b'{"features": [["\xc3\x28"]]}',
    "UTF-16": '{"features": [[0]]}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + row("0"),
    "null bytes": b"\x00" * 1000,
    "lone surrogate": b'{"features": "\\ud800"}',
    "deep lists": b"[" * 200_000 + b"]" * 200_000,
    "deep lists inside": b'{"features": ' + b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "huge exponent": row("1e999999"),
    "tiny exponent": row("1e-999999"),
    "5,000 digits": row("9" * 5000),
    "a million digits": row("9" * 1_000_000),
    "many decimals": row("0." + "3" * 100_000),
    "NaN": row("NaN"),
    "Infinity": row("Infinity"),
    "-Infinity": row("-Infinity"),
    "nan in another spelling": row("nan"),
    "hexadecimal": row("0x10"),
    "leading zero": row("007"),
    "plus sign": row("+1"),
    "true": row("true"),
    "null": row("null"),
    "a number as text": row('"1"'),
    "duplicate keys": b'{"features": [[1]], "features": ' + json.dumps([WIDE]).encode() + b"}",
    "many duplicate keys": b"{" + b'"features": [[0]],' * 50_000 + b'"features": [[0]]}',
    "many unknown keys": orjson.dumps({f"k{number}": number for number in range(20_000)}),
    "a long unknown key": orjson.dumps({"k" * 1_000_000: 1}),
    "a comment": b"/* */" + row("0"),
    "two documents": row("0") + row("0"),
    "single quotes": b"{'features': [[0]]}",
    "no closing brace": row("0")[:-1],
    "only white space": b" " * 100_000,
    "an empty body": b"",
    "ragged rows": orjson.dumps({"features": [WIDE, WIDE[:3], []]}),
    "rows of rows": orjson.dumps({"features": [[WIDE]]}),
    "too many rows": orjson.dumps({"features": [[0] * 64] * 1025}),
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
    "a gzip bomb": gzip.compress(b"0" * 50_000_000),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("path", ["/predict", "/feedback"])
def test_a_hostile_body_is_answered_or_refused_with_a_reason(server: Server, path: str, kind: str) -> None:
    """The answer is never a 5xx, and reveals no internals."""
    assert is_clean(HTTP.post(server.url + path, content=HOSTILE[kind], timeout=60))


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-encoding": "gzip"},
        {"content-encoding": "br, gzip, deflate"},
        {"accept": "image/png"},
        {"x-request-id": "../../etc/passwd"},
        {"x-request-id": "a" * 60_000},
        {"traceparent": "00-zz-zz-zz"},
        {"cookie": "a" * 30_000},
    ],
    ids=lambda headers: str(headers)[:60],
)
def test_unusual_headers_change_nothing(server: Server, body: bytes, headers: dict[str, str]) -> None:
    """The body is JSON whatever they say; other bodies are refused."""
    assert HTTP.post(f"{server.url}/predict", content=body, headers=headers).status_code == 200


def test_a_gzip_bomb_is_not_decompressed(server: Server) -> None:
    """48 KB would become 50 MB: the body is not JSON, the header says why, and it is not examined further."""
    bomb = HOSTILE["a gzip bomb"]
    answer = HTTP.post(f"{server.url}/predict", content=bomb, headers={"content-encoding": "gzip"})
    assert (answer.status_code, is_clean(answer)) == (415, True)


@pytest.mark.parametrize(
    "labels",
    [
        b"[1e999]",
        b"[" + b"9" * 5000 + b"]",
        b"[NaN]",
        b'["\\u0000"]',
        b"[" + b'"a",' * 200_000 + b'"a"]',
        b'["' + b"a" * 1_000_000 + b'"]',
        b"[[]]",
        b"[null]",
        b"{}",
    ],
    ids=lambda labels: str(labels[:20]),
)
def test_unusual_labels_are_refused_or_kept(server: Server, body: bytes, labels: bytes) -> None:
    """They are sent as feedback to an existing answer."""
    request_id = HTTP.post(f"{server.url}/predict", content=body).json()["request_id"]
    content = b'{"request_id": "%b", "labels": %b}' % (request_id.encode(), labels)
    assert is_clean(HTTP.post(f"{server.url}/feedback", content=content, timeout=60))


def mutated(body: bytes, luck: random.Random) -> bytes:
    """`body` with one to five small random changes."""
    content = bytearray(body)
    for _ in range(luck.randint(1, 5)):
        at, length = luck.randrange(len(content) + 1), luck.randint(1, 40)
        repeated = bytes(content[at : at + length]) * 2
        token = luck.choice(TOKENS)
        content[at : at + luck.choice((0, 1, length))] = luck.choice((luck.randbytes(3), b"", repeated, token, token))
    return bytes(content)


@pytest.mark.parametrize(
    ("path", "mutations"),
    [("/predict", 1500), ("/feedback", 300)],  # feedback for an unknown request is searched for a while
)
def test_mutated_requests_are_answered_or_refused_with_a_reason(
    server: Server, body: bytes, path: str, mutations: int
) -> None:
    """Valid bodies with small changes get further than random bytes."""
    good = body if path == "/predict" else b'{"request_id": "some-request", "labels": ["1", "2"]}'
    luck = random.Random(20_241)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(mutations):
            content = mutated(good, luck)
            answer = client.post(path, content=content)
            assert is_clean(answer), (answer.status_code, content)


HEAD = b"POST /predict HTTP/1.1\r\nhost: a\r\n"
WIRE: dict[str, bytes] = {
    "chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "bad chunk size": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "chunk shorter than declared": HEAD + b"transfer-encoding: chunked\r\n\r\nffff\r\n{}",
    "length and chunked": HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "invalid length": HEAD + b"content-length: two\r\n\r\n{}",
    "negative length": HEAD + b"content-length: -2\r\n\r\n{}",
    "endless length": HEAD + b"content-length: " + b"9" * 40 + b"\r\n\r\n{}",
    "body shorter than declared": HEAD + b"content-length: 500\r\n\r\n{}",
    "no host": b"POST /predict HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
    "old protocol": b"POST /predict HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}",
    "no protocol": b"POST /predict\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a control character in a header": HEAD + b"x-a: \x7f\r\ncontent-length: 2\r\n\r\n{}",
    "bytes in a header": HEAD + b"x-request-id: \xff\xfe\r\ncontent-length: 2\r\n\r\n{}",
    "null in the path": b"POST /predict\x00 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
    "long path": b"POST /predict?" + b"a" * 60_000 + b" HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
    "expect 100-continue": HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n{}",
    "pipelined": (HEAD + b"content-length: 2\r\n\r\n{}") * 20,
}


@pytest.mark.parametrize("kind", WIRE)
def test_broken_http_is_refused_or_dropped(server: Server, kind: str) -> None:
    """The test uses a socket: an answer below 500 or a closed connection, even if the client leaves in the middle."""
    answers = sent(server, WIRE[kind])
    assert ([status for status in statuses(answers) if status >= 500], INSIDES.search(answers)) == ([], None)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/predict", "/feedback"])
def test_other_methods_are_refused(server: Server, path: str, method: str) -> None:
    """The answer names the allowed method."""
    answer = HTTP.request(method, server.url + path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def sent(server: Server, content: bytes) -> str:
    """What comes back on one connection after `content` was sent, until it is closed or silent."""
    url = httpx.URL(server.url)
    received = bytearray()
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := connection.recv(65_536):
                received += part
    return received.decode("latin-1")


def statuses(answers: str) -> list[int]:
    return [int(status) for status in re.findall(r"HTTP/1\.[01] (\d{3})", answers)]
