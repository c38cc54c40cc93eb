"""Finds unknown `KANARIA_*` environment variables: a misspelt setting must not be ignored silently."""

from collections.abc import Iterable, Iterator

from contract import environment
from contract.complaints import nearest
from kanaria.settings import PREFIX, Settings

# Read by the load test, by a model's server, by processes of the keeper, and by the benchmarks.
OTHERS = (
    "PORT_GUARD",
    "PORT_PROCESSES",
    "API_KEY",
    "SAMPLES",
    "KEPT_IN",
    "KEPT_AS",
    "KEPT_PORT",
    "BENCHMARK_MODEL",
    "BENCHMARK_IMPLEMENTATION",
)


def known() -> set[str]:
    """Every variable that some part of Kanaria reads."""
    of_server = {name for name in vars(environment).values() if isinstance(name, str) and name.startswith(PREFIX)}
    return {PREFIX + name.upper() for name in (*Settings.model_fields, *OTHERS)} | of_server


def unknown(environ: Iterable[str]) -> Iterator[str]:
    """A sentence about each unknown variable."""
    names = {name.removeprefix(PREFIX): name for name in sorted(known())}
    for name in sorted(environ):
        short = name.removeprefix(PREFIX)
        if short != name and short not in names:
            yield f"{name} is ignored: there is no such setting{nearest(short, names).replace('`', f'`{PREFIX}', 1)}"
