"""`python -m benchmarks service`: the served Bento beside other ways to serve its model, and behind the gateway."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.charts import Axis, Mark, Style, chart
from benchmarks.machine import machine
from benchmarks.output import FOLDER, Out, Write, command_line, show_table, write_files
from benchmarks.service import tables
from benchmarks.service.contenders import OURS, PEERS, Contender
from benchmarks.service.page import CHART, PAGE, page
from benchmarks.service.scores import Promise, Score, promises, scores
from benchmarks.service.subject import Subject
from benchmarks.service.visits import ALONE, BUSY, CASES, ROWS, Gateway, visit_all
from benchmarks.service.wrk import find_wrk
from contract import loopback
from contract.http import API_KEY_HEADER, LIVE_PATH
from contract.model_files import SAMPLES_FILE
from contract.terminal import Terminal
from kanaria.errors import SetupError, StackError
from kanaria.stack.bentos import implementation_of, model_folder, model_of
from kanaria.stack.ports import free_port
from loadtest.paths import make_out_dir, new_out_dir
from rollout.fleet import Backend, Version
from rollout.routers.envoy.bootstrap import envoy_command, write_bootstrap
from rollout.routers.envoy.router import EnvoyRouter
from rollout.routers.envoy.settings import ApiKey, GatewaySettings
from rollout.routers.router import Split
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL

ROUNDS, SECONDS = 5, 3
_PEERS = {peer.key: peer for peer in PEERS}
_API_KEY = "bench"
_GATEWAY_WITHIN_S = 30.0
_STYLES = {
    ALONE.key: Style(ALONE.title, "diamond", "#5b8db8"),
    BUSY.key: Style(BUSY.title, "circle", "#00674f"),
    ROWS.key: Style(ROWS.title, "square", "#d9691e"),
}
_AXIS = Axis(
    "our requests per second divided by the peer's: median and range of the rounds",
    tuple((value, f"{value:g}x") for value in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)),
    is_logarithmic=True,
)


def service(
    tag: Annotated[str, typer.Argument(help="Bento to serve, `name:version`.")],
    *,
    peers: Annotated[
        list[str] | None,
        typer.Option("--peer", help=f"Compare with this server only; may be repeated: {', '.join(_PEERS)}."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Visits to each server; more visits, better medians.")] = ROUNDS,
    seconds: Annotated[int, typer.Option(min=1, help="Duration of each load, seconds.")] = SECONDS,
    write: Write = False,
    out: Out = FOLDER,
) -> None:
    """Serve a model with Kanaria and with other servers in turn, load each with wrk, and compare.

    Exit code: 0 every measured promise holds, 1 a promise is broken, 2 bad input, 3 a server could not be measured.
    """
    asked_for = _asked_for(peers)
    find_wrk()
    subject = subject_of(tag)
    progress_console = Terminal(stderr=True)
    contenders = [OURS]
    for peer in asked_for:
        if peer.is_installed:
            contenders.append(peer)
        else:
            progress_console.print(f"without {peer.title}: the package {peer.package} is not installed")
    folder, where = make_out_dir(new_out_dir("service-benchmark")), machine()
    with Progress(console=progress_console) as progress:
        visiting = visit_all(
            contenders, subject, folder, rounds=rounds, seconds=seconds, open_gateway=lambda *at: _gateway(tag, *at)
        )
        visits = list(progress.track(visiting, total=rounds * len(contenders), description="servers"))
    found, promised = scores(visits), promises(visits)
    _show(found, promised)
    if write:
        chosen = [("--peer", key, None) for key in peers or ()]
        options = [*chosen, ("--rounds", rounds, ROUNDS), ("--seconds", seconds, SECONDS)]
        command = command_line(f"service {tag}", *options)
        text = page(found, promised, command=command, tag=tag, machine=where, rounds=rounds)
        write_files(out, {PAGE: text, CHART: _chart(found)})
    raise typer.Exit(EXIT_FAIL if any(promise.is_kept is False for promise in promised) else EXIT_DONE)


def _asked_for(keys: Sequence[str] | None) -> list[Contender]:
    """The chosen peers. Raises SetupError when one is not known."""
    unknown = sorted(set(keys or ()) - _PEERS.keys())
    if unknown:
        saw = ", ".join(f"--peer {key}" for key in unknown)
        raise SetupError("there is no such server to compare with", saw=saw, do=f"choose from {', '.join(_PEERS)}")
    return [peer for peer in PEERS if not keys or peer.key in keys]


def subject_of(tag: str) -> Subject:
    """What is in the Bento. Raises SetupError."""
    implementation, code = implementation_of(tag)
    folder = model_folder(model_of(tag))
    return Subject(tag, code, implementation, model=folder, samples=folder / SAMPLES_FILE)


@contextmanager
def _gateway(tag: str, port: int, folder: Path) -> Iterator[Gateway]:
    """The gateway as `kanaria up` runs it, in front of one server."""
    settings = GatewaySettings(
        directory=folder / "gateway", port=free_port(), stats_port=free_port(), api_keys=(ApiKey(_API_KEY),)
    )
    write_bootstrap(settings)
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(envoy_command(settings), stderr=log)
    try:
        _wait_until_ready(settings)
        EnvoyRouter(settings).apply(Split(Version((Backend(tag, "127.0.0.1", port),))))
        yield Gateway(f"http://127.0.0.1:{settings.port}", {API_KEY_HEADER: _API_KEY})
    finally:
        process.terminate()
        process.wait()
        for left_over in (settings.clusters_path, settings.routes_path):
            left_over.unlink(missing_ok=True)  # the next round's server has another port


def _wait_until_ready(settings: GatewaySettings) -> None:
    deadline = time.monotonic() + _GATEWAY_WITHIN_S
    while time.monotonic() < deadline:
        if loopback.answers(f"http://{settings.host}:{settings.port}{LIVE_PATH}", timeout_s=5.0):
            return
        time.sleep(0.05)
    raise StackError(
        "the gateway was not ready in time",
        saw=f"nothing after {_GATEWAY_WITHIN_S:.0f} s",
        do=f"read {settings.directory.parent / 'gateway.log'}",
    )


def _show(found: Sequence[Score], promised: Sequence[Promise]) -> None:
    shown = {
        "median (lowest-highest round)": (tables.ADVANTAGE_HEADS, tables.advantage_rows(found)),
        **{case.title: (tables.CASE_HEADS, tables.case_rows(found, case)) for case in CASES},
        "processes": (tables.PROCESS_HEADS, tables.process_rows(found)),
        "promises": (tables.PROMISE_HEADS, tables.promise_rows(promised)),
    }
    for title, (heads, rows) in shown.items():
        show_table(heads, rows, title=title)


def _chart(found: Sequence[Score]) -> str:
    """One row for each peer, one mark for each load."""
    peers = [score for score in found if score.contender is not OURS]
    marks = {
        (score.contender.key, case.key): Mark(ratio.median, ratio.low, ratio.high)
        for score in peers
        for case in CASES
        for ratio in [score.cases[case.key].advantage]
    }
    return chart([(score.contender.key, score.contender.title) for score in peers], _STYLES, marks, _AXIS)
