"""The commands about releases. Reading works from the ledger alone; commanding asks the controller.

Exit codes: 0 done, promoted or pass; 1 rolled back or fail; 2 bad input; 3 could not decide.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from rollout import screen
from rollout.client import ControllerClient
from rollout.errors import ControllerUnreachable, LedgerError, RolloutError, SpecError
from rollout.explain import why
from rollout.judge import Judge, JudgeConfig, Judgement, Verdict, judgement_object, parse_ticks
from rollout.report import render_report
from rollout.spec import RolloutSpec, parse_spec
from rollout.state import fold
from rollout.store import Ledger, load_view
from rollout.view import ReleaseView

EXIT_DONE, EXIT_FAIL, EXIT_BAD_INPUT, EXIT_UNDECIDED = 0, 1, 2, 3
DEFAULT_SPEC = Path("rollout.yaml")
_VERDICT_EXITS = {
    Verdict.PASS: EXIT_DONE,
    Verdict.FAIL: EXIT_FAIL,
    Verdict.INCONCLUSIVE: EXIT_UNDECIDED,
    Verdict.NO_DATA: EXIT_UNDECIDED,
}
_POLL_S = 0.5
_PATIENCE_S = 60.0  # a controller that was killed is back long before

app = typer.Typer()
console = Console()


@dataclass(frozen=True, slots=True)
class Access:
    """How the commands reach the deployment."""

    client: Callable[[], ControllerClient]
    ledger: Path
    reports: Path


Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ReleaseArgument = Annotated[str | None, typer.Argument(help="Number of a release, or a tag. Default: the newest.")]
Reason = Annotated[str | None, typer.Option(help="Why; it stands in the ledger.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for promotion or rollback; the exit code tells which.")]
SpecOption = Annotated[
    Path | None, typer.Option("--spec", help="Plan of the release. Default: ./rollout.yaml where it exists.")
]


def exit_code(error: RolloutError) -> int:
    """The exit code that an error ends a command with."""
    return EXIT_UNDECIDED if isinstance(error, ControllerUnreachable | LedgerError) else EXIT_BAD_INPUT


@contextmanager
def explained() -> Iterator[None]:
    """Print an error on purpose to stderr and exit with its code."""
    try:
        yield
    except RolloutError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(exit_code(error)) from error


def _access(context: typer.Context) -> Access:
    access = context.find_object(Access)
    if access is None:
        raise TypeError("the composition root puts an Access into the context")
    return access


@app.command()
def release(
    context: typer.Context,
    tag: Annotated[str, typer.Argument(help="Bento to release, `name:version`.")],
    spec: SpecOption = None,
    wait: Wait = False,
) -> None:
    """Put a Bento on trial: it earns traffic step by step, or is rolled back."""
    with explained():
        _start(_access(context), tag, spec, wait=wait, retry=False)


@app.command()
def retry(
    context: typer.Context,
    tag: Annotated[str, typer.Argument(help="Bento in quarantine, `name:version`.")],
    spec: SpecOption = None,
    wait: Wait = False,
) -> None:
    """Release a Bento again that was rolled back."""
    with explained():
        _start(_access(context), tag, spec, wait=wait, retry=True)


@app.command()
def pause(context: typer.Context, reason: Reason = None) -> None:
    """Hold the canary's weight. Evidence against it still rolls it back."""
    _command(context, "pause", reason)


@app.command()
def resume(context: typer.Context) -> None:
    """Go on after a pause."""
    _command(context, "resume")


@app.command()
def promote(context: typer.Context) -> None:
    """Skip the remaining steps; after promotion: end the watch."""
    _command(context, "promote")


@app.command()
def abort(context: typer.Context, reason: Reason = None) -> None:
    """Stop the release: weight 0, no quarantine."""
    _command(context, "abort", reason)


@app.command()
def rollback(context: typer.Context, reason: Reason = None) -> None:
    """Return to the version before; also after promotion, while it is still warm."""
    _command(context, "rollback", reason)


@app.command()
def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep it on the screen until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show what runs, who gets traffic and what the evidence says."""
    with explained():
        client = _access(context).client()
        if as_json:
            typer.echo(client.status().model_dump_json(indent=2))
        elif watch:
            _watch(client)
        else:
            console.print(screen.status(client.status()))


@app.command("why")
def why_(context: typer.Context, which: ReleaseArgument = None, as_json: Json = False) -> None:
    """Explain what was decided about a release, and on what evidence."""
    with explained():
        found = find_release(_access(context).ledger, which)
        if as_json:
            _print_json({"release": found.number, "outcome": found.outcome, **asdict(why(found))})
        else:
            console.print(screen.why(found))


@app.command()
def history(context: typer.Context, as_json: Json = False) -> None:
    """List every release with its outcome."""
    with explained():
        found = all_releases(_access(context).ledger)
        if as_json:
            _print_json([_row(one) for one in found])
        else:
            console.print(screen.history(found))


@app.command()
def report(
    context: typer.Context,
    which: ReleaseArgument = None,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: in the state folder.")] = None,
) -> None:
    """Write a release's report with pictures as one HTML file, and print its path."""
    with explained():
        found = find_release(_access(context).ledger, which)
        path = out or _access(context).reports / f"release-{found.number}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_report([found], title=f"Release {found.number}: {found.canary}"))
        typer.echo(path)


@app.command()
def judge(
    file: Annotated[Path, typer.Argument(help="Counts, one JSON line per window and signal; - for standard input.")],
    spec: SpecOption = None,
    trace: Annotated[bool, typer.Option(help="Print the judgement after every window.")] = False,
) -> None:
    """Judge counts from anywhere: prints the verdict as JSON."""
    with explained():
        plan = read_spec(spec) if spec else None
        with _lines(file) as lines:
            judgement = _judge(lines, plan, trace=trace)
        _print_json(judgement_object(judgement))
        raise typer.Exit(_VERDICT_EXITS[judgement.verdict])


def read_spec(path: Path | None) -> RolloutSpec:
    """The plan in `path`, or in ./rollout.yaml, or the default one. Raises SpecError."""
    if path is None and not DEFAULT_SPEC.exists():
        return RolloutSpec()
    path = path or DEFAULT_SPEC
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read", saw=str(error), do="give the path of a rollout.yaml") from error
    return parse_spec(text, name=str(path))


def find_release(ledger_path: Path, which: str | None) -> ReleaseView:
    """A release by number, by tag (its newest), or the newest of all. Raises LedgerError, SpecError."""
    ledger = Ledger(ledger_path, read_only=True)
    try:
        requested = [event for event in ledger.events(without_ticks=True) if event.kind == "release_requested"]
        matching = [event for event in requested if which in (None, str(event.release), event.tag)]
        if not matching:
            known = ", ".join(f"{event.release} ({event.tag})" for event in requested) or "none yet"
            raise SpecError(
                f"there is no release {which or 'yet'}", saw=f"releases: {known}", do="see `kanaria history`"
            )
        return load_view(ledger, matching[-1].release or 0)
    finally:
        ledger.close()


def all_releases(ledger_path: Path) -> list[ReleaseView]:
    """Every release, oldest first. Raises LedgerError."""
    ledger = Ledger(ledger_path, read_only=True)
    try:
        newest = fold(ledger.events(without_ticks=True)).release
        return [load_view(ledger, number) for number in range(1, (newest.number if newest else 0) + 1)]
    finally:
        ledger.close()


def _command(context: typer.Context, name: str, reason: str | None = None) -> None:
    with explained():
        _access(context).client().command(name, reason=reason)
        console.print(f"{name}: done")


def _row(release: ReleaseView) -> dict[str, object]:
    return {
        "release": release.number,
        "tag": release.canary,
        "stable": release.stable,
        "outcome": release.outcome,
        "signal": release.state.outcome_signal,
        "reason": release.state.outcome_reason,
        "requested_s": release.requested_s,
    }


def _start(access: Access, tag: str, spec: Path | None, *, wait: bool, retry: bool) -> None:
    client = access.client()
    number = client.release(tag, read_spec(spec), retry=retry)
    console.print(f"release {number}: {tag} is on trial; `kanaria status --watch` shows it, `kanaria why` explains it")
    if wait:
        raise typer.Exit(_wait(client, access, number))


def _wait(client: ControllerClient, access: Access, number: int) -> int:
    """Follow a release to its end, also across a restart of the controller."""
    shown = 0
    last_answer_s = time.monotonic()
    while True:
        try:
            status = client.status()
            last_answer_s = time.monotonic()
        except ControllerUnreachable:
            if time.monotonic() - last_answer_s > _PATIENCE_S:
                raise
            time.sleep(_POLL_S)
            continue
        release = find_release(access.ledger, str(number))
        for decision in release.decisions[shown:]:
            console.print(screen.decision(decision))
        shown = len(release.decisions)
        if status.release and status.release.number == number and status.release.outcome:
            return EXIT_DONE if status.release.outcome == "promoted" else EXIT_FAIL
        time.sleep(_POLL_S)


def _watch(client: ControllerClient) -> None:
    """Show the status anew every second until Ctrl-C; a controller that is away is shown as that."""
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live, suppress(KeyboardInterrupt):
        while True:
            try:
                picture = screen.status(client.status())
            except ControllerUnreachable as error:
                picture = str(error)
            live.update(picture, refresh=True)
            time.sleep(1.0)


@contextmanager
def _lines(file: Path) -> Iterator[Iterable[str]]:
    """The lines of `file`, or of standard input as they come."""
    if str(file) == "-":
        yield sys.stdin
        return
    try:
        with file.open() as lines:
            yield lines
    except OSError as error:
        raise SpecError(f"{file} cannot be read", saw=str(error), do="give a file of JSON lines, or -") from error


def _judge(lines: Iterable[str], plan: RolloutSpec | None, *, trace: bool) -> Judgement:
    """Judge every line; asks for the whole traffic, as no release says how much comes next."""
    config = plan.judge_config() if plan else JudgeConfig()
    judge = Judge(config)
    expected = plan.expected() if plan else ()
    for tick in parse_ticks(lines, tuple(config.rules)):
        judge.observe(tick)
        if trace:
            at = judge.judgement(next_weight=1.0, expected=expected)
            typer.echo(json.dumps({"end_s": tick[0].end_s, **judgement_object(at)}))
    return judge.judgement(next_weight=1.0, expected=expected)


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2))
