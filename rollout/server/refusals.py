"""The judge's refusals: errors become problems, and every refusal after which an engine waits silently is counted."""

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
    """A body is longer than any sensible question."""

    def __init__(self, most: int) -> None:
        super().__init__(f"more than {most:,} bytes")


class TooBusy(RolloutError):
    """A question did not get a thread in time, because too many are waiting."""

    def __init__(self, waiting: int) -> None:
        super().__init__(
            "the judge had no time for this question",
            saw=f"{count(waiting)} more wait for answers of other servers",
            do="check whether Prometheus, the ledger's volume and the Kubernetes API answer quickly",
        )


def exception_handlers(metrics: JudgeMetrics, routes: str) -> dict[int | type[Exception], Handler]:
    """Handlers of requests that no endpoint of the API answers.

    Args:
        routes: the existing routes, as text for a person.
    """
    no_route = partial(_no_route, metrics, routes)
    return {NoSuchRelease: _no_page, LedgerError: partial(_no_ledger, metrics), 404: no_route, 405: no_route}


async def counted(endpoint: Endpoint, metrics: JudgeMetrics, request: Request) -> Response:
    """The endpoint's answer. Errors raised on purpose become problems, and every refusal is counted."""
    try:
        answer = await endpoint(request)
    except HTTPException:
        raise  # an unknown route or method, counted by its own handler
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
    except Exception as error:  # also counted, because the engine then waits silently
        log.exception("failed", path=request.url.path)
        answer = problem(500, "the judge failed on this question", type(error).__name__, do="read its log")
    if answer.status_code >= 400 and answer.status_code != 409:
        _refused(metrics, request, answer, "question")
    return answer


def _refused(metrics: JudgeMetrics, request: Request, answer: Response, reason: str) -> None:
    metrics.refused.labels(str(answer.status_code), reason).inc()
    log.warning("refused", path=request.url.path, status=answer.status_code, answer=bytes(answer.body).decode())


async def _no_route(metrics: JudgeMetrics, routes: str, request: Request, error: Exception) -> Response:
    """The answer for an unknown route or method. An engine's request is counted, a browser's is not."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = "there is no such route" if status == 404 else f"this route takes no {request.method}"
    answer = problem(status, what, f"{request.method} {request.url.path[:100]}", do=f"POST to one of: {routes}")
    answer.headers.update(error.headers or {} if isinstance(error, HTTPException) else {})
    if request.method not in ("GET", "HEAD") or request.url.path.startswith(_API):
        _refused(metrics, request, answer, "route")
    return answer


async def _no_ledger(metrics: JudgeMetrics, request: Request, error: Exception) -> Response:
    """The answer for a page or readiness probe if the ledger cannot be read."""
    what, saw, do = (error.what, error.saw, error.do) if isinstance(error, LedgerError) else ("", "", "")
    answer = problem(503, what, saw, do=do)
    _refused(metrics, request, answer, "page")
    return answer


async def _no_page(_: Request, error: Exception) -> Response:
    saw = error.saw if isinstance(error, NoSuchRelease) else ""
    return problem(404, "this replica of the judge was not asked about this release", saw)
