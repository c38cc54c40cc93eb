"""Probes answer 200 while a server is healthy, otherwise 503 with the reason; other methods are refused."""

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
async def test_a_probe_tells_whether_the_server_is_healthy(method: str, is_good: bool, status: int, word: str) -> None:
    """Errors are problems as in RFC 9457."""
    transport = httpx.ASGITransport(app=probe(lambda: is_good))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.request(method, "/readyz")
    assert (answer.status_code, answer.headers.get("allow")) == (status, "GET, HEAD" if status == 405 else None)
    if word:
        assert word in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"
