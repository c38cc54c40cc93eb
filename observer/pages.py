"""The observer's HTTP pages: its counts, and the fields in which two versions differ."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contract.http import METRICS_PATH
from contract.observation import DIFFERENCES_PATH, FieldDifferences
from observer.findings import Findings
from observer.pairing import Versions


def pages_of(findings: Findings) -> Starlette:
    """The pages."""

    async def metrics(_: Request) -> Response:
        return Response(findings.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def differences(request: Request) -> Response:
        asked = request.query_params
        found = findings.differing(Versions(asked.get("stable", ""), asked.get("canary", "")))
        return Response(FieldDifferences.dump_json(found), media_type="application/json")

    return Starlette(routes=[Route(METRICS_PATH, metrics), Route(DIFFERENCES_PATH, differences)])
