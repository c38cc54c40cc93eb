"""Probes: 200 while a server is good, else 503 with the reason; nothing else is answered there."""

import httpx
import pytest

from service.server.probes import probe


@pytest.mark.parametrize(
    ("method", "is_good", "status", "word"),
    [
        ("GET", True, 200, ""),
        ("HEAD", True, 200, ""),
        ("GET", False, 503, "does not answer"),
        ("POST", True, 405, "use GET"),
    ],
)
@pytest.mark.anyio
async def test_what_a_probe_answers(method: str, is_good: bool, status: int, word: str) -> None:
    """Problems are RFC 9457."""
    transport = httpx.ASGITransport(app=probe(lambda: is_good))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.request(method, "/readyz")
    assert (answer.status_code, answer.headers.get("allow")) == (status, "GET, HEAD" if status == 405 else None)
    if word:
        assert word in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"
