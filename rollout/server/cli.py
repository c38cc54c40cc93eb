"""`kanaria judge serve` and `kanaria judge explain`: the judge for engines in a cluster."""

import gc
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from contract.complaints import advice
from contract.given_headers import WRITE_ONE, given_header
from contract.login import Login
from rollout.errors import SpecError
from rollout.format import count, span
from rollout.server.absence import why_nothing
from rollout.server.hosts import hosts_of
from rollout.server.tokens import token_in
from rollout.signals.folding import Fold, RawSeries, Uncountable, scrape_interval
from rollout.signals.profile import Names, Profile
from rollout.sources.profiles import profiles
from rollout.sources.raw_samples import RawSamples, Wanted
from rollout.ui.cli.conventions import EXIT_DONE, EXIT_UNDECIDED, explained

Prometheus = Annotated[str, typer.Option(help="URL of Prometheus, or of a server with its API (Thanos, Mimir).")]
PrometheusLogin = Annotated[
    Path | None,
    typer.Option(help="File with `user:password` or a bearer token for Prometheus; it is read again for each query."),
]
PrometheusCa = Annotated[
    Path | None,
    typer.Option(help="File (PEM) with the authority of Prometheus's certificate. Default: the public authorities."),
]
PrometheusHeader = Annotated[
    list[str] | None,
    typer.Option(
        help="Header that each query carries, such as `X-Scope-OrgID: shop` for a tenant of Mimir; may be repeated.",
        show_default=False,
    ),
]
Folder = Annotated[Path | None, typer.Option("--profiles", help="Folder with your own metric profiles.")]

_SPAN_S = 300.0  # of samples that `explain` reads
_CLOCKS_APART_S = 30.0
_NEW_OBJECTS = 10_000  # the number of new objects at which garbage collection starts


def serve(
    *,
    prometheus: Prometheus,
    token_file: Annotated[
        Path, typer.Option(help="File with the token that questions must carry; it is read again for each question.")
    ],
    ledger: Annotated[Path, typer.Option(help="SQLite file that keeps failures; created if it is missing.")] = Path(
        "judge.db"
    ),
    prometheus_login: PrometheusLogin = None,
    prometheus_ca: PrometheusCa = None,
    prometheus_header: PrometheusHeader = None,
    profile_folder: Folder = None,
    share: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a service account that may get and patch the ConfigMap kanaria-judge-shared in its "
            "namespace, through which replicas share failures."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8091,
    url: Annotated[
        str | None,
        typer.Option(
            help="URL at which people reach the pages; for a Service, all its names in the cluster are accepted. "
            "Default: the address on which it listens."
        ),
    ] = None,
) -> None:
    """Judge releases that Argo Rollouts or Flagger carries out, from the samples in Prometheus."""
    with explained():
        _check_url(prometheus)
        known = profiles(profile_folder)
        token = token_in(token_file)
        token()
        import uvicorn  # noqa: PLC0415 - `explain` does not need it

        from contract.bounded_http import bounded_http  # noqa: PLC0415 - as above
        from rollout.server.app import make_app  # noqa: PLC0415 - as above
        from rollout.server.kept import Kept  # noqa: PLC0415 - as above
        from rollout.server.quarantine import Quarantine  # noqa: PLC0415 - as above
        from rollout.server.releases import Releases, now_s  # noqa: PLC0415 - as above
        from rollout.server.shared_map import SharedMap  # noqa: PLC0415 - as above

        samples = _samples(prometheus, prometheus_login, prometheus_ca, prometheus_header or ())
        shared = SharedMap(share) if share else None
        kept = Quarantine(Kept(ledger), shared, now_s=partial(now_s, samples))
        page_url = url or f"http://{host}:{port}"
        releases = Releases(samples, known, kept, url=page_url, pod=socket.gethostname())
        app = make_app(releases, token=token, names=hosts_of(page_url))
        # The objects that exist now stay. An answer makes tens of thousands of objects, but no cycles: garbage
        # collection over all of them would take a seventh of the first answer's time.
        gc.freeze()
        gc.set_threshold(_NEW_OBJECTS)
        uvicorn.run(app, host=host, port=port, http=bounded_http(), log_level="warning", access_log=False)


def explain(
    *,
    prometheus: Prometheus,
    canary: Annotated[str, typer.Option(help="Name of the canary in the profile's labels.")],
    stable: Annotated[str, typer.Option(help="Name of stable.")],
    namespace: Annotated[str, typer.Option(help="Namespace of both.")] = "default",
    rollout: Annotated[str, typer.Option(help="Name of the release, if the profile needs it.")] = "",
    profile: Annotated[str, typer.Option(help="Name of the metric profile.")] = "service",
    prometheus_login: PrometheusLogin = None,
    prometheus_ca: PrometheusCa = None,
    prometheus_header: PrometheusHeader = None,
    profile_folder: Folder = None,
) -> None:
    """Show what each query of a metric profile finds in a Prometheus. Exit code 3 if a query finds nothing to count."""
    with explained():
        _check_url(prometheus)
        known = profiles(profile_folder)
        if profile not in known:
            raise SpecError("there is no such metric profile", saw=profile, do=f"use one of: {', '.join(known)}")
        names = _names(namespace, rollout, canary, stable)
        with closing(_samples(prometheus, prometheus_login, prometheus_ca, prometheus_header or ())) as samples:
            is_whole = _explain(samples, known[profile], names)
        raise typer.Exit(EXIT_DONE if is_whole else EXIT_UNDECIDED)


def _explain(samples: RawSamples, profile: Profile, names: Names) -> bool:
    """Print what is found. Returns whether all queries find something that can be counted."""
    now_s = samples.now_s()
    if abs(now_s - time.time()) > _CLOCKS_APART_S:
        typer.echo(f"Prometheus's clock is {span(abs(now_s - time.time()))} off this machine's; Prometheus's is used")
    is_whole = True
    counters = profile.counters({})
    begin_s = now_s - _SPAN_S
    since_s = now_s  # when the canary was first seen
    every: list[RawSeries] = []
    for counter in counters:
        for version in (names.stable, names.canary):
            wanted = Wanted.of(profile, [counter], names, version)
            found = samples.between(wanted, begin_s, now_s)
            every += found
            taken = [series for series in found if counter.counts(series.labels)]
            if version == names.canary:
                since_s = min([since_s, *(float(series.times[0]) for series in taken)])
            typer.echo(f"{counter.signal}, {version}: {_seen(taken, profile, now_s) if taken else 'nothing'}")
            typer.echo(f"  {wanted}")
            if not taken:
                typer.echo(f"  {why_nothing(samples, wanted)}")
                is_whole = False
    fold = Fold(profile, counters, names, origin_s=since_s, window_s=1.0, interval_s=_SPAN_S, from_s=begin_s)
    try:
        fold.extend(every, now_s)
    except Uncountable as error:
        typer.echo(f"{error.what}: {error.saw}\n  {error.do}")
        is_whole = False
    return is_whole


def _seen(taken: Sequence[RawSeries], profile: Profile, now_s: float) -> str:
    pods = {tuple(series.labels.get(label, "") for label in profile.process) for series in taken}
    age_s = now_s - max(float(series.times[-1]) for series in taken)
    interval_s = scrape_interval(taken, profile.process)
    every = f", scraped every {span(interval_s)}" if interval_s else ""
    of_pods = f"{count(len(pods))} pod{'s' if len(pods) > 1 else ''}"
    return f"{count(len(taken))} series of {of_pods}, the newest sample {span(age_s)} old{every}"


def _names(namespace: str, rollout: str, canary: str, stable: str) -> Names:
    """The names, checked as the judge checks them. Raises SpecError."""
    from rollout.server.questions import JudgeBody  # noqa: PLC0415 - `serve` imports it elsewhere

    given = {"namespace": namespace, "rollout": rollout or "unnamed", "canary": canary, "stable": stable}
    try:
        JudgeBody.model_validate(given)
    except ValidationError as error:
        where, saw = str(error.errors()[0]["loc"][0]), str(error.errors()[0]["input"])
        raise SpecError(f"--{where} is not a name", saw=saw[:100], do=advice(error.errors()[0])) from error
    return Names(namespace, rollout, canary, stable)


def _samples(prometheus: str, login: Path | None, authority: Path | None, headers: Sequence[str]) -> RawSamples:
    """A reader of Prometheus. Raises SpecError if a setting cannot be used."""
    return RawSamples(
        prometheus,
        login=None if login is None else _login(login),
        trust=None if authority is None else _trust(authority),
        headers=dict(map(_header, headers)),
    )


def _login(path: Path) -> Login:
    known = Login(path)
    try:
        known.header()
    except (OSError, ValueError) as error:
        do = "write `user:password` or a bearer token into that file"
        raise SpecError("the login of Prometheus cannot be read", saw=str(error), do=do) from error
    return known


def _trust(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise SpecError(
            "the authority of Prometheus's certificate cannot be read",
            saw=f"{path}: {error}",
            do="give a file with certificates in PEM: --prometheus-ca FILE",
        ) from error


def _header(text: str) -> tuple[str, str]:
    try:
        return given_header(text)
    except ValueError as error:
        raise SpecError(
            "that is not a header for Prometheus",
            saw=str(error),
            do=WRITE_ONE,
        ) from error


def _check_url(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        rest = url.rpartition("://")[2]
        do = f"write http or https as its scheme: --prometheus http://{rest}"
        raise SpecError("that is not the URL of a Prometheus", saw=url, do=do)
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0  # reading the port raises ValueError if it is not a number
    except ValueError:
        is_whole = False
    if is_whole and parts.username is not None:
        do = "write them into a file: --prometheus-login FILE"
        raise SpecError(
            "the URL of Prometheus contains a login, and many people see this URL", saw="user:password@", do=do
        )
    if is_whole and (parts.query or parts.fragment):
        do = "leave them out; to send something with each query, use a header: --prometheus-header 'NAME: VALUE'"
        raise SpecError("the URL of Prometheus has parameters", saw=url.partition("?")[2] or parts.fragment, do=do)
    if not is_whole:
        do = "write a host and, if it is not the usual one, a port: --prometheus http://localhost:9090"
        raise SpecError("that is not the URL of a Prometheus", saw=url, do=do)
