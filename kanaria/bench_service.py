"""`kanaria bench service`: the served Bento beside other ways to serve its model, and behind the gateway."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kanaria.bentos import implementation_of, model_folder, model_of
from kanaria.errors import SetupError, StackError
from kanaria.machine import machine
from kanaria.network import free_port
from loadtest.benchmarks import tables
from loadtest.benchmarks.contenders import OURS, PEERS, Contender
from loadtest.benchmarks.page import FIGURE, PAGE, page
from loadtest.benchmarks.race import ALONE, BUSY, CASES, ROWS, Gateway, race
from loadtest.benchmarks.results import Bar, Score, bars, scores
from loadtest.benchmarks.subject import Subject
from loadtest.benchmarks.wrk import find_wrk
from loadtest.paths import make_out_dir, new_out_dir
from rollout.benchmarks.figures import Axis, Look, Mark, chart
from rollout.cli import EXIT_DONE, EXIT_FAIL
from rollout.interfaces import Backend, Split
from rollout.routers.envoy import EnvoyRouter
from rollout.routers.envoy_bootstrap import envoy_command, write_bootstrap
from rollout.routers.envoy_settings import GatewaySettings

ROUNDS, SECONDS = 5, 3
_PEERS = {peer.key: peer for peer in PEERS}
_API_KEY = "bench"
_GATEWAY_WITHIN_S = 30.0
_LOOKS = {
    ALONE.key: Look(ALONE.title, "diamond", "#5b8db8"),
    BUSY.key: Look(BUSY.title, "circle", "#00674f"),
    ROWS.key: Look(ROWS.title, "square", "#d9691e"),
}
_AXIS = Axis(
    "our requests per second over the peer's: median and range of the rounds",
    tuple((value, f"{value:g}x") for value in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)),
    is_logarithmic=True,
)


def service(
    tag: Annotated[str, typer.Argument(help="Bento to serve, `name:version`.")],
    *,
    peers: Annotated[
        list[str] | None, typer.Option("--peer", help=f"Compare with this one only; repeatable: {', '.join(_PEERS)}.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Visits to each server; more narrow the medians.")] = ROUNDS,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each load, seconds.")] = SECONDS,
    write: Annotated[bool, typer.Option("--write", help="Write the page and its chart.")] = False,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("docs/benchmarks"),
) -> None:
    """Serve a model with Kanaria and with other servers in turn, load each with wrk, and compare.

    Exit code: 0 every promise that was measured holds, 1 one is missed, 2 bad input, 3 a server could not be measured.
    """
    asked_for = _asked_for(peers)
    find_wrk()
    subject = _subject(tag)
    progress_console = Console(stderr=True)
    contenders = [OURS]
    for peer in asked_for:
        if peer.is_installed:
            contenders.append(peer)
        else:
            progress_console.print(f"without {peer.title}: the package {peer.package} is not installed")
    folder, where = make_out_dir(new_out_dir("bench-service")), machine()
    with Progress(console=progress_console) as progress:
        visiting = race(
            contenders, subject, folder, rounds=rounds, seconds=seconds, open_gateway=lambda *at: _gateway(tag, *at)
        )
        visits = list(progress.track(visiting, total=rounds * len(contenders), description="servers"))
    found, promises = scores(visits), bars(visits)
    _show(Console(), found, promises)
    if write:
        options = "".join(f" --peer {key}" for key in peers or ())
        options += "" if (rounds, seconds) == (ROUNDS, SECONDS) else f" --rounds {rounds} --seconds {seconds}"
        command = f"kanaria bench service {tag} --write{options}"
        out.mkdir(parents=True, exist_ok=True)
        (out / PAGE).write_text(page(found, promises, command=command, tag=tag, machine=where, rounds=rounds), "utf-8")
        (out / FIGURE).write_text(_figure(found), "utf-8")
        typer.echo(out / PAGE)
    raise typer.Exit(EXIT_FAIL if any(bar.holds is False for bar in promises) else EXIT_DONE)


def _asked_for(keys: Sequence[str] | None) -> list[Contender]:
    """Raises SetupError when one is not known."""
    unknown = sorted(set(keys or ()) - _PEERS.keys())
    if unknown:
        saw = ", ".join(f"--peer {key}" for key in unknown)
        raise SetupError("there is no such server to compare with", saw=saw, do=f"choose from {', '.join(_PEERS)}")
    return [peer for peer in PEERS if not keys or peer.key in keys]


def _subject(tag: str) -> Subject:
    """What is in the Bento. Raises SetupError."""
    implementation, code = implementation_of(tag)
    folder = model_folder(model_of(tag))
    return Subject(tag, code, implementation, model=folder, samples=folder / "samples.jsonl")


@contextmanager
def _gateway(tag: str, port: int, folder: Path) -> Iterator[Gateway]:
    """The gateway as `kanaria up` runs it, in front of one server."""
    settings = GatewaySettings(
        directory=folder / "gateway", port=free_port(), admin_port=free_port(), api_keys=(_API_KEY,)
    )
    write_bootstrap(settings)
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(envoy_command(settings), stderr=log)
    try:
        _wait_until_ready(settings)
        EnvoyRouter(settings).apply(Split(Backend(tag, "127.0.0.1", port)))
        yield Gateway(f"http://127.0.0.1:{settings.port}", {"x-api-key": _API_KEY})
    finally:
        process.terminate()
        process.wait()
        for left_over in (settings.clusters_path, settings.routes_path):
            left_over.unlink(missing_ok=True)  # the next round's server has another port


def _wait_until_ready(settings: GatewaySettings) -> None:
    deadline = time.monotonic() + _GATEWAY_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{settings.admin_url}/ready", trust_env=False).is_success:
                return
        time.sleep(0.05)
    raise StackError(
        "the gateway was not ready in time",
        saw=f"nothing after {_GATEWAY_WITHIN_S:.0f} s",
        do=f"read {settings.directory.parent / 'gateway.log'}",
    )


def _show(console: Console, found: Sequence[Score], promises: Sequence[Bar]) -> None:
    shown = {
        "median (lowest-highest round)": (tables.ADVANTAGE_HEADS, tables.advantage_rows(found)),
        **{case.title: (tables.CASE_HEADS, tables.case_rows(found, case)) for case in CASES},
        "processes": (tables.PROCESS_HEADS, tables.process_rows(found)),
        "promises": (tables.BAR_HEADS, tables.bar_rows(promises)),
    }
    for title, (heads, rows) in shown.items():
        table = Table(*heads, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _figure(found: Sequence[Score]) -> str:
    """One row for each peer, one mark for each load."""
    peers = [score for score in found if score.contender is not OURS]
    marks = {
        (score.contender.key, case.key): Mark(ratio.median, ratio.low, ratio.high)
        for score in peers
        for case in CASES
        for ratio in [score.cases[case.key].advantage]
    }
    return chart([(score.contender.key, score.contender.title) for score in peers], _LOOKS, marks, _AXIS)
