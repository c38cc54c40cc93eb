"""Refusals of the judge: errors as problems, and all that an engine would wait for silently, counted."""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from contract.complaints import advice, listed
from rollout.errors import LedgerError, NoSuchRelease, RolloutError, SourceUnreachable, SpecError
from rollout.format import count
from rollout.judge.jsonl import LineError
from rollout.server.metrics import JudgeMetrics
from rollout.server.tokens import TokenUnusable
from rollout.ui.problems import problem

log = structlog.get_logger()

_API = "/v1/"
Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


class TooLong(Exception):
    """A body that is longer than anything that could be meant."""

    def __init__(self, most: int) -> None:
        super().__init__(f"more than {most:,} bytes")


class TooBusy(RolloutError):
    """So many questions wait that one did not have its turn in time."""

    def __init__(self, waiting: int) -> None:
        super().__init__(
            "the judge had no time for this question",
            saw=f"{count(waiting)} more wait for what it asks others",
            do="see whether Prometheus, the ledger's volume and the Kubernetes API answer quickly",
        )


def exception_handlers(metrics: JudgeMetrics, routes: str) -> dict[int | type[Exception], Handler]:
    """For what no endpoint of the API answers.

    Args:
        routes: that there are, for a person.
    """
    no_route = partial(_no_route, metrics, routes)
    return {NoSuchRelease: _no_page, LedgerError: partial(_no_ledger, metrics), 404: no_route, 405: no_route}


async def counted(endpoint: Endpoint, metrics: JudgeMetrics, request: Request) -> Response:
    """The endpoint's answer; errors on purpose become problems, and every refusal is counted."""
    try:
        answer = await endpoint(request)
    except HTTPException:
        raise  # of a route: it is counted as such
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {advice(e)}" for e in listed(error))
        answer = problem(422, "the question is not valid", places)
    except TooLong as error:
        answer = problem(413, "the question is too long", str(error))
    except NoSuchRelease as error:
        answer = problem(404, "nothing is known of this canary", error.saw)
    except (SpecError, LineError) as error:
        answer = problem(422, error.what, error.saw, do=error.do)
    except (SourceUnreachable, LedgerError, TokenUnusable, TooBusy) as error:
        answer = problem(503, error.what, error.saw, do=error.do)
    except RolloutError as error:
        answer = problem(500, error.what, error.saw, do=error.do)
    except Exception as error:  # counted as all others: an engine waits silently
        log.exception("failed", path=request.url.path)
        answer = problem(500, "the judge failed on this question", type(error).__name__, do="see its log")
    if answer.status_code >= 400 and answer.status_code != 409:
        _refused(metrics, request, answer, "question")
    return answer


def _refused(metrics: JudgeMetrics, request: Request, answer: Response, reason: str) -> None:
    metrics.refused.labels(str(answer.status_code), reason).inc()
    log.warning("refused", path=request.url.path, status=answer.status_code, answer=bytes(answer.body).decode())


async def _no_route(metrics: JudgeMetrics, routes: str, request: Request, error: Exception) -> Response:
    """What an engine asks where nothing answers is counted; what a browser looks for is not."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = "there is no such route" if status == 404 else f"this route takes no {request.method}"
    answer = problem(status, what, f"{request.method} {request.url.path[:100]}", do=f"POST to one of: {routes}")
    answer.headers.update(error.headers or {} if isinstance(error, HTTPException) else {})
    if request.method not in ("GET", "HEAD") or request.url.path.startswith(_API):
        _refused(metrics, request, answer, "route")
    return answer


async def _no_ledger(metrics: JudgeMetrics, request: Request, error: Exception) -> Response:
    """A page, or readiness, for which the ledger cannot be read."""
    what, saw, do = (error.what, error.saw, error.do) if isinstance(error, LedgerError) else ("", "", "")
    answer = problem(503, what, saw, do=do)
    _refused(metrics, request, answer, "page")
    return answer


async def _no_page(_: Request, error: Exception) -> Response:
    saw = error.saw if isinstance(error, NoSuchRelease) else ""
    return problem(404, "this replica of the judge was not asked about this release", saw)
