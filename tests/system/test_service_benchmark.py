"""`python -m benchmarks service`, shortened to one round and one peer."""

from collections.abc import Callable
from pathlib import Path

from tests.support.stack import Kanaria


def test_a_short_comparison_writes_every_number_to_the_page(
    kanaria: Kanaria, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """Two real servers run under real load, ours also behind the gateway; their speed is not checked."""
    require_program("wrk")
    options = ("--peer", "starlette", "--rounds", "1", "--seconds", "1", "--write", "--out", str(tmp_path))
    done = kanaria.benchmark("service", "digits:v2", *options)
    assert done.returncode in {0, 1}, done.stderr  # 1: a promise is broken, which may happen on a busy machine
    text = (tmp_path / "service.md").read_text()
    measured = {line.split("|")[1].strip(): line for line in text.splitlines() if "| at " in line}
    not_measured = {title for title, line in measured.items() if "not measured" in line}
    assert {title.partition(",")[0] for title in not_measured} == {
        "requests/s over BentoML quickstart",
        "requests/s over Flask",
        "requests/s over LitServe",
    }
    assert "<svg" in (tmp_path / "service.svg").read_text()
