"""The quick counters give the same numbers as prometheus_client itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# prometheus_client decides on import whether several processes share a folder, so each case has its own process.
_COUNT = """
import random, sys
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from service.server.counting import QuickHistogram, adder

is_quick, is_shared = (word == "True" for word in sys.argv[1:])
random.seed(7)
registry = CollectorRegistry()
requests = Counter("requests", "r", ["name"], registry=registry).labels("a")
seconds = Histogram("seconds", "s", ["name"], buckets=(0.1, 0.5, 1.0), registry=registry).labels("a")
many = Counter("many", "m", ["name"], registry=registry)
if is_quick:
    add, quick = adder(requests._value), QuickHistogram(seconds)
for number in range(2000):
    values = [random.choice((0.0, 0.1, 0.5, 1.0, 2.0, random.random())) for _ in range(number % 4)]
    if is_quick:
        add(number % 3)
        for value in values[:1]:
            quick.observe(value)
        quick.observe_all(values[1:])
    else:
        requests.inc(number % 3)
        for value in values:
            seconds.observe(value)
    many.labels("x" * 50 + str(number)).inc()  # the file grows meanwhile
if is_shared:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
lines = generate_latest(registry).decode().splitlines()
print("\\n".join(sorted(line for line in lines if "_created" not in line and not line.startswith("#"))))
"""


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_reader_sees_the_same_numbers(tmp_path: Path, is_shared: bool) -> None:
    """For one process and several workers, for values on bucket bounds, and while the shared file grows."""

    def counted(*, is_quick: bool) -> list[tuple[str, float]]:
        folder = tmp_path / str(is_quick)
        folder.mkdir()
        own = {"PROMETHEUS_MULTIPROC_DIR": str(folder)} if is_shared else {}
        words = [sys.executable, "-c", _COUNT, str(is_quick), str(is_shared)]
        done = subprocess.run(words, env={**os.environ, **own}, capture_output=True, text=True, check=True)
        lines = (line.rpartition(" ") for line in done.stdout.splitlines())
        return [(name, float(value)) for name, _, value in lines]

    ours, theirs = counted(is_quick=True), counted(is_quick=False)
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    assert [value for _, value in ours] == pytest.approx([value for _, value in theirs])
    assert dict(ours)['requests_total{name="a"}'] == sum(number % 3 for number in range(2000))
