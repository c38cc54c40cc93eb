"""The metrics of the judge server, and its behaviour in an internal error."""

import asyncio
from typing import Any, cast

import httpx
import pytest
from prometheus_client import CollectorRegistry

from rollout.errors import LedgerError
from rollout.judge import Verdict
from rollout.server.app import make_app
from rollout.server.evidence import Answer
from rollout.server.kept import Attempt
from rollout.server.metrics import JudgeMetrics
from rollout.server.releases import Known, Releases

pytestmark = pytest.mark.needs("judge")

TOKEN = "twenty-letters-or-more"  # noqa: S105 - of a test
ASKED = {"namespace": "shop", "rollout": "digits", "canary": "b", "stable": "a"}


def known(canary: str, verdict: Verdict, checksum: str = "") -> Known:
    attempt = Attempt("shop", "digits", canary, checksum)
    return Known(attempt, "a", cast("Any", None), answer=Answer(verdict, "because"))


class KnownReleases:
    """The known releases, newest first."""

    def __init__(self, *releases: Known, failures: int | None = 0) -> None:
        self._releases, self._failures = releases, failures

    def all(self) -> list[Known]:
        return list(self._releases)

    def quarantined(self) -> int:
        if self._failures is None:
            raise LedgerError("the ledger cannot be read", saw="locked", do="wait")
        return self._failures


def values(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_the_newest_verdict_about_a_canary_is_shown() -> None:
    """It is shown once, however many builds or plans were asked about."""
    seen = KnownReleases(
        known("b", Verdict.FAIL, "2"), known("b", Verdict.PASS, "1"), known("c", Verdict.NO_DATA), failures=2
    )
    registry = JudgeMetrics(seen).registry
    assert values(registry, "kanaria_judge_verdict") == {
        ("shop/digits", "b", "fail"): 1.0,
        ("shop/digits", "c", "no_data"): 1.0,
    }
    assert values(registry, "kanaria_judge_releases") == {(): 3.0}
    assert values(registry, "kanaria_judge_quarantined") == {(): 2.0}


def test_an_unreadable_ledger_hides_no_other_metric() -> None:
    """Only its own number is missing."""
    registry = JudgeMetrics(KnownReleases(known("b", Verdict.PASS), failures=None)).registry
    assert values(registry, "kanaria_judge_quarantined") == {}
    assert values(registry, "kanaria_judge_releases") == {(): 1.0}


class FaultyJudge(KnownReleases):
    """A judge that raises an error."""

    def question(self, asked: object, *, attempt_of: str = "") -> dict[str, Any]:
        raise ZeroDivisionError(f"about {asked} {attempt_of}")


def test_an_internal_error_is_answered_and_counted() -> None:
    """An engine would wait silently; the alert on refused questions reads this counter. The answer has no details."""

    async def asked() -> tuple[httpx.Response, str]:
        app = make_app(cast("Releases", FaultyJudge()), token=lambda: TOKEN)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post("/v1/judge", json=ASKED, headers={"authorization": f"Bearer {TOKEN}"})
            return answer, (await client.get("/metrics")).text

    answer, metrics = asyncio.run(asked())
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "about" not in answer.json()["detail"]
    assert 'kanaria_judge_refused_total{reason="question",status="500"} 1.0' in metrics
