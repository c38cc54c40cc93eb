"""Stands in for the service in tests of load tests: the same HTTP contract, with faults that a test can switch on.

Run as a program, it listens on a free port, prints the port on its first line, and answers until it is stopped.
"""

import asyncio
import contextlib
import math
import time
import uuid
from collections import Counter

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LABEL_COUNT = 10
FAULTS: dict[str, float] = {}  # name -> value, as set by PUT /faults
SEEN: Counter[str] = Counter()
ANSWERED: dict[str, list[str]] = {}  # request id -> predicted labels


def problem(status: int, detail: str) -> JSONResponse:
    body = {"type": "about:blank", "title": "refused", "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


def is_row(row: object) -> bool:
    return isinstance(row, list) and len(row) == 4 and all(type(x) in {int, float} and math.isfinite(x) for x in row)


async def predict(request: Request) -> Response:
    SEEN["predict"] += 1
    SEEN[f"key:{request.headers.get('x-api-key')}"] += 1
    if (wait_s := FAULTS.get("stall_until", 0) - time.time()) > 0:
        await asyncio.sleep(wait_s)
    await asyncio.sleep(FAULTS.get("slow_s", 0))
    try:
        body = await request.json()
    except ValueError:
        body = None
    rows = body.get("features") if isinstance(body, dict) and set(body) == {"features"} else None
    if not isinstance(rows, list) or not rows or not all(map(is_row, rows)):
        SEEN["bad_input"] += 1
        if "bad_input_is_500" in FAULTS:
            return JSONResponse({"detail": "boom"}, 500)
        return problem(422, "features: not rows of 4 numbers")
    SEEN["good"] += 1
    if FAULTS.get("fail_every") and SEEN["good"] % FAULTS["fail_every"] == 0:
        return problem(500, "it broke")
    version = "toy:v2" if SEEN["good"] % 4 == 0 else "toy:v1"
    request_id = str(uuid.uuid4())
    labels = [str(int(row[0]) % LABEL_COUNT) if version == "toy:v1" else "wrong" for row in rows]
    ANSWERED[request_id] = labels
    predictions = [{"label": label, "confidence": 0.9} for label in labels]
    return JSONResponse({"request_id": request_id, "version": version, "predictions": predictions})


async def feedback(request: Request) -> Response:
    SEEN["feedback"] += 1
    body = await request.json()
    predicted = ANSWERED.pop(body["request_id"], None)
    if predicted is None or len(predicted) != len(body["labels"]):
        return problem(404, "no such answer, or labelled before")
    SEEN["joined"] += 1
    return Response(status_code=204)


async def faults(request: Request) -> Response:
    FAULTS.clear()
    FAULTS.update(await request.json())
    return Response(status_code=204)


async def seen(_: Request) -> Response:
    return JSONResponse(SEEN)


app = Starlette(
    routes=[
        Route("/predict", predict, methods=["POST"]),
        Route("/feedback", feedback, methods=["POST"]),
        Route("/faults", faults, methods=["PUT"]),
        Route("/seen", seen),
    ]
)

if __name__ == "__main__":
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False)
    listener = config.bind_socket()
    listener.listen()  # before the port is printed, because a reader may connect at once
    print(listener.getsockname()[1], flush=True)
    with contextlib.suppress(KeyboardInterrupt), listener:
        uvicorn.Server(config).run(sockets=[listener])
