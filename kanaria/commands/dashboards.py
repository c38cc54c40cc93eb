"""`kanaria dashboards`: writes the boards, pushes them to a Grafana, checks every panel against a Prometheus."""

import json
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import promql_parser
import typer
from rich.table import Table

from contract.given_headers import WRITE_ONE, given_header
from contract.login import Login
from contract.terminal import Terminal
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.signal_graphs import signal_graphs
from monitoring.grafana.check import Finding, State, check
from monitoring.grafana.dashboards import boards
from monitoring.grafana.dashboards.resources import DataSource, Webhook
from monitoring.grafana.provisioning import GENERATED, generated_files
from monitoring.prometheus.api import PrometheusApi, Span
from rollout.ui.cli import EXIT_DONE, EXIT_FAIL, Json

app = typer.Typer(help="Grafana's boards as code: generate, push, check.", no_args_is_help=True)
console = Terminal()

PrometheusOption = Annotated[
    str | None, typer.Option("--prometheus", help="URL of Prometheus. Default: the running stack's.")
]
LoginOption = Annotated[
    Path | None,
    typer.Option(
        "--prometheus-login",
        help="File with `user:password` or a bearer token for Prometheus. Default: the running stack's own.",
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--prometheus-ca",
        help="File (PEM) with the authority of Prometheus's certificate. Default: the public authorities.",
    ),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--prometheus-header",
        help="Header of each query, such as `X-Scope-OrgID: shop` for a tenant of Mimir. May be repeated.",
        show_default=False,
    ),
]


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Folder to write to.", file_okay=False)] = GENERATED,
) -> None:
    """Write the boards, and the files for Grafana, Prometheus and Alertmanager of compose.yaml."""
    for name, text in generated_files(signal_graphs()).items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            console.print(f"written: {path}", soft_wrap=True)


@app.command()
def push(
    *,
    prometheus: PrometheusOption = None,
    login: LoginOption = None,
    authority: CaOption = None,
    header: HeaderOption = None,
    controller: Annotated[
        str | None, typer.Option(help="URL of the controller, as Grafana and people's browsers reach it.")
    ] = None,
) -> None:
    """Bring a Grafana (KANARIA_GRAFANA_URL, KANARIA_GRAFANA_TOKEN) up to date; pushing again changes nothing."""
    from kanaria.stack.annotations import release_annotations  # noqa: PLC0415 - its HTTP library takes half a second
    from monitoring.grafana.push import Grafana  # noqa: PLC0415 - likewise
    from monitoring.grafana.push import push as push_all  # noqa: PLC0415 - likewise

    settings = Settings()
    if settings.grafana_url is None:
        raise SetupError(
            "there is no Grafana to push to",
            saw="KANARIA_GRAFANA_URL is not set",
            do="set it to where you open Grafana, and KANARIA_GRAFANA_TOKEN to a service account's token",
        )
    at = (controller or settings.controller_url).rstrip("/")
    url, known = _prometheus(prometheus, login, settings)
    source = DataSource(
        url,
        settings.scrape_interval_s,
        _header(known) if known else None,
        authority=None if authority is None else _authority(authority)[0],
        headers=_headers(header or ()),
    )
    with Grafana(str(settings.grafana_url), settings.grafana_secret) as grafana:
        webhook = Webhook(at, settings.token)
        for change in push_all(grafana, [board.at(at) for board in boards(signal_graphs())], source, webhook):
            console.print(f"{change.done:<10} {change.thing}")
        if settings.ledger.exists():
            added = grafana.push_annotations(release_annotations(settings.ledger, at))
            console.print(f"{'created' if added else 'unchanged':<10} annotations ({added} new)")


@app.command("check")
def check_(
    *,
    prometheus: PrometheusOption = None,
    login: LoginOption = None,
    authority: CaOption = None,
    header: HeaderOption = None,
    last: Annotated[str, typer.Option(help="How far back to look, a duration as in Prometheus.")] = "15m",
    as_json: Json = False,
) -> None:
    """Run every query of the panels. Fails on an error, an unknown metric or an empty panel."""
    try:
        span_s = promql_parser.parse_duration(last).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(f"{last}: {error}; write for example 15m", param_hint="--last") from error
    now_s = time.time()
    settings = Settings()
    url, known = _prometheus(prometheus, login, settings)
    trust = None if authority is None else _authority(authority)[1]
    with PrometheusApi(url, login=known, trust=trust, headers=_headers(header or ())) as api:
        span = Span(now_s - span_s, now_s)
        findings = list(check(boards(signal_graphs()), api, span, scrape_interval_s=settings.scrape_interval_s))
    if as_json:
        shown = [
            {k: v for k, v in asdict(one).items() if k != "series"} | {"state": one.state.value} for one in findings
        ]
        typer.echo(json.dumps(shown, indent=2))
    else:
        _show(findings)
    raise typer.Exit(EXIT_FAIL if any(finding.state.is_fault for finding in findings) else EXIT_DONE)


def _show(findings: list[Finding]) -> None:
    rest = [finding for finding in findings if finding.state is not State.DRAWN]
    if rest:
        table = Table("board", "panel", "state", "seen", "query")
        for finding in sorted(rest, key=lambda finding: not finding.state.is_fault):
            style = "red" if finding.state.is_fault else "dim"
            query = finding.query if finding.state.is_fault else ""
            table.add_row(finding.board, finding.panel, finding.state.value, finding.detail, query, style=style)
        console.print(table)
    counts = Counter(finding.state for finding in findings)
    console.print(", ".join(f"{counts[state]} {state.value}" for state in State if counts[state]))


def _prometheus(given: str | None, login: Path | None, settings: Settings) -> tuple[str, Login | None]:
    """Prometheus's URL and login. The stack's own login is never sent to another address."""
    address = settings.prometheus_address
    own = address.read_text().strip() if address.exists() else None
    if given is not None and (login is not None or given.rstrip("/") != own):
        return given, Login(login) if login else None
    if own is None:
        raise SetupError(
            "the address of Prometheus is unknown",
            saw=f"no file {address}: no stack with Prometheus was started here",
            do="start one (`kanaria up`, with `prometheus` installed), or give its address with --prometheus URL",
        )
    return own, Login(login) if login else settings.prometheus_login


def _authority(path: Path) -> tuple[str, ssl.SSLContext]:
    """The certificates in a file, and a TLS context that trusts only these. Raises SetupError."""
    try:
        return path.read_text(), ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SetupError(
            "the authority of Prometheus's certificate cannot be read",
            saw=f"{path}: {error}",
            do="give a file with certificates in PEM: --prometheus-ca FILE",
        ) from error


def _headers(given: Sequence[str]) -> dict[str, str]:
    """The headers by name. Raises SetupError."""
    try:
        return dict(map(given_header, given))
    except ValueError as error:
        raise SetupError(
            "this is not a valid header for Prometheus",
            saw=str(error),
            do=WRITE_ONE,
        ) from error


def _header(login: Login) -> str:
    try:
        return login.header()
    except (OSError, ValueError) as error:
        raise SetupError(
            "the login of Prometheus cannot be read",
            saw=str(error),
            do="write `user:password` or a bearer token into the file of --prometheus-login",
        ) from error
