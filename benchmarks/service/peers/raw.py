"""The model alone, without a server: `python -m benchmarks.service.peers.raw BODIES SECONDS` prints rows/s."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.service.peers.model import LoadedModel

WARM_UP_CALLS = 100


def main(bodies: Path, seconds: float) -> float:
    """Rows per second, batch after batch."""
    model = LoadedModel()
    batches = [np.array(json.loads(body)["features"], np.float32) for body in bodies.read_bytes().splitlines()]
    for _ in range(WARM_UP_CALLS):
        model.answers(batches[0])
    rows = 0
    began_s = time.perf_counter()
    while (took_s := time.perf_counter() - began_s) < seconds:
        for batch in batches:
            rows += len(model.answers(batch))
    return rows / took_s


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), float(sys.argv[2])))
