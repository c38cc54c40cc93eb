"""Fixtures that every kind of test shares, and the rules for skipping tests whose packages or programs are missing."""

import gc
import re
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from kanaria.extras import missing_packages
from tests.support.absence import DEBIAN_PACKAGES, is_strict, leave_out
from tests.support.left_running import processes_under
from tests.support.longest import longest_first, took_longest
from tests.support.paths import ROOT
from tests.support.small_disk import SmallDisk, mounted

# No time limits for examples: a busy machine is not a bug.
settings.register_profile("kanaria", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kanaria")


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """Give the path of a program. If it is missing, the test is skipped with its name, or fails where CI is set."""

    def find(name: str) -> str:
        beside_python = Path(sys.executable).parent / name
        path = str(beside_python) if beside_python.exists() else shutil.which(name)
        if path is None:
            package = DEBIAN_PACKAGES.get(name)
            leave_out(f"{name} is not installed" + (f" (Debian: apt-get install {package})" if package else ""))
        return path

    return find


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of 4 MiB. Without the right to mount it the test is skipped, or fails where CI is set."""
    with mounted(tmp_path / "disk", mib=4) as made:
        yield made


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail if a test leaves processes running: those of a stack outlive the process that started them."""
    yield
    base = str(tmp_path_factory.getbasetemp().resolve())
    deadline = time.monotonic() + 20.0
    while left := processes_under(base):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.2)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep all that test files import until the end: the garbage collector never traverses it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In a run of more than 100 files, report which took longest."""
    stats = terminalreporter.stats.values()
    reports = [report for same in stats for report in same if isinstance(report, pytest.TestReport)]
    if len({report.nodeid.partition("::")[0] for report in reports}) > 100:
        terminalreporter.section("files that took longest")
        terminalreporter.write_line("\n".join(took_longest(reports)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.needs("serve")`: a test that uses the packages of an extra only when it runs."""
    for marker in item.iter_markers("needs"):
        for extra in marker.args:
            if missing := missing_packages(extra):
                leave_out(f"the extra {extra} is not installed: no {', '.join(missing)}")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that imports packages of an extra that is not installed is skipped, or fails where CI is set."""
    report = yield
    absent = re.search(r"ModuleNotFoundError: No module named '(\w+)", str(report.longrepr)) if report.failed else None
    if absent and not (ROOT / absent[1]).is_dir() and not is_strict():
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"{absent[1]} is not installed")
    return report
