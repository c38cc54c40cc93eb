"""`python -m benchmarks`."""

from benchmarks.cli import app
from kanaria.cli import run

run(app)
