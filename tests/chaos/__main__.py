"""`python -m tests.chaos`: faults in every state of a release, on real stacks. `make chaos` writes the page.

Exit code 1 if a combination was wrong or too few were run, 130 after Ctrl-C. Every process that it started is stopped.
"""

import argparse
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.output import FOLDER
from tests.chaos.combinations import Combination, combinations
from tests.chaos.page import PAGE, page
from tests.chaos.run import run
from tests.chaos.seen import Seen
from tests.chaos.site import Interrupted
from tests.chaos.states import CANARY, STABLE
from tests.chaos.verdict import did, wrongs
from tests.support.bentos import Bentos
from tests.support.paths import ROOT

RESULTS = "results.jsonl"
LEAST = 60  # combinations that a page needs
BENTOFILE = "tests/chaos/bentofile.yaml"
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run combinations; returns the exit code."""
    options = _options(arguments)
    chosen = [one for one in combinations() if options.only.search(one.name)]
    if options.list:
        for one in chosen:
            print(one.name)
        print(f"{len(chosen)} combinations")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    results_file = options.out / RESULTS
    if not options.resume:
        results_file.unlink(missing_ok=True)
    results = read(results_file)
    began_s = time.monotonic()
    todo = [one for one in chosen if one not in results and not _skipped(one)]
    driver = Driver(options.store or _store(options.out / "bentoml"), options.out, results_file, results)
    is_whole = driver.run(todo, jobs=options.jobs, limit_s=options.minutes * 60)
    took_s = time.monotonic() - began_s
    wrong = [one for one, seen in results.items() if wrongs(seen, one.fault, one.state)]
    print(f"{len(results) - len(wrong)} of {len(results)} right, in {took_s / 60:.1f} minutes")
    if options.write and len(results) >= LEAST:
        (options.page / PAGE).write_text(page(results, combinations(), machine=machine()), "utf-8")
        print(options.page / PAGE)
    elif options.write:
        print(f"no page: fewer than {LEAST} combinations were run", file=sys.stderr)
        return 1
    return EXIT_INTERRUPTED if not is_whole else int(bool(wrong or driver.broken))


def read(path: Path) -> dict[Combination, Seen]:
    """The results of an earlier run, for the combinations that still exist."""
    known = {(one.fault.name, one.state.name): one for one in combinations()}
    lines = path.read_text().splitlines() if path.exists() else []
    found = [Seen.model_validate_json(line) for line in lines if line]
    return {known[seen.fault, seen.state]: seen for seen in found if (seen.fault, seen.state) in known}


class Driver:
    """Runs combinations in parallel threads, and writes each result as soon as it is known."""

    def __init__(self, store: Path, out: Path, results_file: Path, results: dict[Combination, Seen]) -> None:
        self._store, self._out, self._file, self._results = store, out, results_file, results
        self._stopping = threading.Event()
        self.broken: list[Combination] = []  # combinations in which the driver itself failed

    def run(self, todo: Sequence[Combination], *, jobs: int, limit_s: float) -> bool:
        """Run `todo`; no combination starts after `limit_s`. Returns False after Ctrl-C or SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stopping.set())
        deadline, waiting = time.monotonic() + limit_s, list(todo)
        running: dict[Future[Seen], Combination] = {}
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ThreadPoolExecutor(jobs) as pool:
            while running or waiting:
                while waiting and len(running) < jobs and time.monotonic() < deadline and not self._stopping.is_set():
                    one = waiting.pop(0)
                    running[pool.submit(self._run, one, Path(folder))] = one
                if not running:
                    break
                for done in wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                    self._write(running.pop(done), done, left=len(waiting))
        return not self._stopping.is_set()

    def _run(self, one: Combination, folder: Path) -> Seen:
        name = "-".join(filter(None, ("".join(c if c.isalnum() else " " for c in one.name)).split()))
        return run(one, folder / name, self._store, self._stopping, kept=self._out / name)

    def _write(self, one: Combination, done: Future[Seen], *, left: int) -> None:
        try:
            seen = done.result()
        except Interrupted:
            return
        except Exception:  # noqa: BLE001 - if the driver fails in one combination, the others still run
            self.broken.append(one)
            print(f"{one.name}: the driver failed\n{traceback.format_exc()}", file=sys.stderr)
            return
        self._results[one] = seen
        with self._file.open("a") as file:
            file.write(seen.model_dump_json() + "\n")
        found = wrongs(seen, one.fault, one.state)
        print(
            f"{one.name}: {did(seen, one.state)}; {len(seen.failures)} of {seen.requests} failed; {seen.took_s:.0f} s; "
            f"{'WRONG: ' + '; '.join(found) if found else 'right'} [{left} to go]",
            flush=True,
        )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--only",
        type=re.compile,
        default="",
        help="run only combinations whose name contains this regular expression; see --list",
    )
    parser.add_argument(
        "--jobs", type=int, default=3, help="number of stacks that run in parallel (default: 3; they mostly wait)"
    )
    parser.add_argument(
        "--minutes", type=float, default=120.0, help="start no combination after this many minutes (default: 120)"
    )
    parser.add_argument("--list", action="store_true", help="print the combinations and exit")
    parser.add_argument("--resume", action="store_true", help="skip combinations that already have a result")
    parser.add_argument(
        "--out", type=Path, default=Path("build/chaos"), help="folder for the results and the logs of each stack"
    )
    parser.add_argument("--store", type=Path, help="a BentoML home with both versions; by default a new one is built")
    parser.add_argument("--write", action="store_true", help="write the page")
    parser.add_argument("--page", type=Path, default=ROOT / FOLDER, help="folder for the page")
    return parser.parse_args(arguments)


def _skipped(one: Combination) -> bool:
    if reason := one.fault.why_not_here():
        print(f"{one.name}: skipped: {reason}")
    return bool(reason)


def _store(folder: Path) -> Path:
    """A store with two versions of the same model. Both are healthy until one is switched to fail."""
    shutil.rmtree(folder, ignore_errors=True)
    bentos = Bentos(folder.absolute())
    bentos.train("v1")
    for tag in (STABLE, CANARY):
        bentos.build(tag.partition(":")[2], "--bentofile", BENTOFILE, "--arg", "model=digits:v1")
    return folder.absolute()


if __name__ == "__main__":
    sys.exit(main())
