"""Refusals as RFC 9457 problem details."""

from starlette.responses import JSONResponse

from contract.http import PROBLEM_JSON


def problem(status: int, title: str, detail: str, **more: str) -> JSONResponse:
    """An answer that says what happened, what was seen and, in `do`, what to do."""
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(content, status_code=status, media_type=PROBLEM_JSON)
