"""The page with the counters of all workers is the one that `prometheus_client` would build, and up to date."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.server import metrics_page
from service.server.metrics_page import MetricsPage
from tests.support.paths import ROOT

WORKER = """
import sys
from prometheus_client import Counter, Gauge, Histogram

asked = Counter("asked", "Requests.", ["route"])
took = Histogram("took_seconds", "Time.", buckets=(0.1, 1.0))
info = Gauge("info", "Model.", ["model"], multiprocess_mode="max")
info.labels("m").set(1)
for word in sys.argv[1:]:
    asked.labels(word).inc()
    took.observe(0.5)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def work(folder: Path, *routes: str) -> None:
    """Let a separate worker count requests and end."""
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", WORKER, *routes], env=environment, check=True)


async def asked(page: MetricsPage, method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(app=page.endpoint)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, "/metrics")


def totals(answer: httpx.Response) -> dict[str, float]:
    families = text_string_to_metric_families(answer.text)
    samples = [sample for family in families for sample in family.samples]
    return {sample.labels["route"]: sample.value for sample in samples if sample.name == "asked_total"}


@pytest.mark.anyio
async def test_the_counts_of_all_workers_are_summed(folder: Path) -> None:
    """Workers that start later are included."""
    page = MetricsPage(folder)
    work(folder, "/a", "/a")
    assert totals(await asked(page)) == {"/a": 2}
    work(folder, "/a", "/b")
    answer = await asked(page)
    assert totals(answer) == {"/a": 3, "/b": 1}
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'took_seconds_bucket{le="1.0"} 4.0' in answer.text


@pytest.mark.anyio
async def test_an_unchanged_page_is_built_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is requested every second."""
    made = []
    put_together = metrics_page._put_together
    monkeypatch.setattr(metrics_page, "_put_together", lambda of: made.append(of) or put_together(of))
    page = MetricsPage(folder)
    work(folder, "/a")
    assert len({(await asked(page)).text for _ in range(4)}) == 1
    assert len(made) == 1
    work(folder, "/a")
    await asked(page)
    assert len(made) == 2


@pytest.mark.anyio
async def test_many_series_are_all_counted(folder: Path) -> None:
    """They do not fit into the first block of a file; only the last series is counted again."""
    page, routes = MetricsPage(folder), [f"/{number:040}" for number in range(200)]
    work(folder, *routes)
    assert totals(await asked(page)) == dict.fromkeys(routes, 1)
    work(folder, routes[-1])
    assert totals(await asked(page)) == dict.fromkeys(routes, 1) | {routes[-1]: 2}


@pytest.mark.anyio
async def test_the_page_is_empty_without_counters(folder: Path) -> None:
    """A file that has just been created is not an error."""
    page = MetricsPage(folder)
    assert (await asked(page)).text == ""
    assert metrics_page._read(folder) == {}
    (folder / "counter_1.db").touch()
    assert metrics_page._read(folder) == {folder / "counter_1.db": b""}


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 405), ("DELETE", 405)])
async def test_only_get_and_head_are_answered(folder: Path, method: str, status: int) -> None:
    """Other methods get a problem as in RFC 9457."""
    work(folder, "/a")
    answer = await asked(MetricsPage(folder), method)
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["content-type"] == "application/problem+json"
