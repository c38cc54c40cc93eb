"""Many readers of reports at the same time; drawing a report takes time from the control loop."""

import asyncio
import threading
from pathlib import Path

import httpx
from starlette.applications import Starlette

from rollout.ledger.ledger import Ledger
from rollout.ui.site import Site
from tests.support.releases import finished

READERS = 4
_MEETS_WITHIN_S = 0.5


def test_one_report_is_drawn_at_a_time(tmp_path: Path) -> None:
    """The other requests wait, and all get their report."""
    path = tmp_path / "ledger.db"
    finished(path)
    meeting, met = threading.Barrier(2), []

    def read_ledger() -> Ledger:
        try:
            meeting.wait(_MEETS_WITHIN_S)  # for another reader that is served at the same time
            met.append(1)
        except threading.BrokenBarrierError:
            meeting.reset()
        return Ledger(path, read_only=True)

    async def read() -> list[int]:
        site = Site(lambda: None, read_ledger, tuple, tuple)  # type: ignore[arg-type, return-value]
        transport = httpx.ASGITransport(Starlette(routes=site.routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            answers = await asyncio.gather(*(client.get("/releases/1") for _ in range(READERS)))
        return [answer.status_code for answer in answers]

    assert asyncio.run(read()) == [200] * READERS
    assert met == []
