"""`kanaria kubernetes`: manifests for releases in a cluster that the judge decides about."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from contract.complaints import nearest
from kanaria.errors import SetupError
from kanaria.kubernetes import rendered
from kanaria.kubernetes.flagger import PLACEHOLDER
from kanaria.kubernetes.parts import HASH
from kanaria.kubernetes.paths import OF_CONTRACT, Match, below, paths_of
from kanaria.kubernetes.rendered import secrets
from kanaria.kubernetes.tokens import read_token
from kanaria.kubernetes.wanted import JUDGE_URL, SECRET, SECRET_KEY, STEPS, Engine, Gateway, Wanted, parse_steps
from kanaria.stack.bentos import bento_tag, port_of, service_of
from rollout.fleet import CONTRACT
from rollout.sources.profiles import profiles as known_profiles

app = typer.Typer(no_args_is_help=True, help="Write manifests for Argo Rollouts and Flagger.")

_BY_WORKLOAD = "-app"  # suffix of the profiles in deploy/kubernetes that tell versions apart by the label `app`
# Labels that never contain the version's name as an engine uses it, and why. Argo Rollouts names versions by the hash
# of their pods, Flagger by their workloads.
_TAG, _CLUSTER = "contains the tag of the Bento", "contains the name of an Envoy cluster"
_SAME, _UNSET = "is the same for both versions", "is not set there"
_USELESS: Mapping[Engine, Mapping[str, str]] = MappingProxyType(
    {
        Engine.ARGO: {"app": _SAME, "destination_workload": _SAME, "version": _TAG, "envoy_cluster_name": _CLUSTER},
        Engine.FLAGGER: {HASH.replace("-", "_"): _UNSET, "version": _TAG, "envoy_cluster_name": _CLUSTER},
    }
)
_WHOLE = "{version}"  # a label with more than the name may still identify a version


@app.callback()
def _root() -> None:
    """Write manifests for Argo Rollouts and Flagger."""


@app.command()
def render(
    tag: Annotated[str, typer.Argument(help="Bento in the store, `name:version`.")],
    *,
    engine: Annotated[Engine, typer.Option(help="Engine that moves the traffic: argo or flagger.")],
    namespace: Annotated[str, typer.Option(help="Namespace of the model.")] = "default",
    name: Annotated[
        str | None, typer.Option(help="Name of the model. Default: the Bento's.", show_default=False)
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Image of the Bento. Default: its tag, as `bentoml containerize` names it.", show_default=False
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of its server. Default: the Bento's.", show_default=False)
    ] = None,
    replicas: Annotated[int, typer.Option(help="Number of pods.")] = 4,
    steps: Annotated[str, typer.Option(help="Rollout steps: weights in percent before 100.")] = ",".join(
        map(str, STEPS)
    ),
    gateway: Annotated[
        str | None,
        typer.Option(
            help="NAMESPACE/NAME of a Gateway of the Gateway API. Without it the numbers of pods set the weights.",
            show_default=False,
        ),
    ] = None,
    hostname: Annotated[
        list[str] | None,
        typer.Option(
            help="Host whose requests the gateway's route accepts. May be repeated. Default: all hosts.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(
            help="Path prefix that the gateway's route accepts. May be repeated. Default: the model's own paths.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Metric profile. Default: the one for the Bento's own metrics.", show_default=False),
    ] = None,
    profile_folder: Annotated[
        Path | None, typer.Option("--profiles", help="Folder with your own metric profiles.", show_default=False)
    ] = None,
    judge: Annotated[str, typer.Option(help="URL of the judge, as the engine reaches it.")] = JUDGE_URL,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the judge's token, which Flagger's hooks send in their URLs.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to. Default: print to standard output.", file_okay=False, show_default=False
        ),
    ] = None,
) -> None:
    """Write manifests with which Argo Rollouts or Flagger releases a Bento as far as the judge allows."""
    full = bento_tag(tag)
    wanted = Wanted(
        tag=full,
        name=full.partition(":")[0] if name is None else name,
        namespace=namespace,
        image=full if image is None else image,
        port=port_of(full) if port is None else port,
        replicas=replicas,
        profile=_profile(full, engine, profile, profile_folder),
        engine=engine,
        steps=parse_steps(steps),
        gateway=None if gateway is None else Gateway.parse(gateway),
        hostnames=tuple(hostname or ()),
        paths=_paths(full, path or [], has_route=gateway is not None),
        judge_url=judge.rstrip("/"),
        token=None if token_file is None else read_token(token_file),
    )
    if out is None:
        typer.echo(rendered.text(wanted), nl=False)
    else:
        for file, is_changed in rendered.write(wanted, out).items():
            typer.echo(f"{'written' if is_changed else 'unchanged':<10} {file}")
    for note in _notes(wanted, out):
        typer.secho(f"note: {note}", fg="yellow", err=True)


def _paths(tag: str, given: Sequence[str], *, has_route: bool) -> tuple[Match, ...]:
    """The paths that the gateway's route accepts. Raises SetupError for an invalid path."""
    if given or not has_route:
        return tuple(map(below, given)) or OF_CONTRACT
    return paths_of(service_of(tag))


def _notes(wanted: Wanted, out: Path | None) -> Iterator[str]:
    """Notes about the manifests for a person."""
    if wanted.engine is Engine.FLAGGER and wanted.token is None:
        yield f"the hooks contain {PLACEHOLDER}: replace it by the judge's token, or give the token with --token-file"
    if wanted.engine is Engine.ARGO:
        yield (
            f"no manifest contains the token: the analyses read the Secret {SECRET} of {wanted.namespace}; without it "
            f"a rollout aborts: `kubectl --namespace {wanted.namespace} create secret generic {SECRET} "
            f"--from-file {SECRET_KEY}=FILE` once, from a file without a newline: with one no header is sent"
        )
    for name in secrets(wanted):
        yield f"{name if out is None else out / name} contains the token: keep it out of Git, or omit --token-file"
    if wanted.gateway is not None and not wanted.hostnames:
        yield "the route accepts requests to all hosts of the gateway; name the model's own with --hostname"
    if wanted.gateway is not None and (shown := {each for path in wanted.paths for each in path.private}):
        yield f"the route also exposes {', '.join(sorted(shown))} to everyone; name the callers' paths with --path"


def _profile(tag: str, engine: Engine, given: str | None, folder: Path | None) -> str:
    """The metric profile. Raises SetupError for one that the judge in deploy/kubernetes does not have."""
    usual = "service" if service_of(tag) is CONTRACT else "bentoml"
    if given is None:
        return usual + (_BY_WORKLOAD if engine is Engine.FLAGGER else "")
    labels_of = {f"{each}{_BY_WORKLOAD}": {"app": _WHOLE} for each in ("service", "bentoml")}
    labels_of |= {each: profile.versions for each, profile in known_profiles(folder).items()}
    if given not in labels_of:
        raise SetupError(
            f"there is no metric profile {given}{nearest(given, sorted(labels_of))}",
            saw=f"profiles: {', '.join(sorted(labels_of))}",
            do="correct the name, or give the folder of your profiles with --profiles",
        )
    if useless := _useless(engine, labels_of[given]):
        fitting = (each for each, labels in sorted(labels_of.items()) if not _useless(engine, labels))
        raise SetupError(
            f"with {engine} the profile {given} cannot tell two versions apart",
            saw=" and ".join(f"it uses the label {label}, which {why}" for label, why in useless.items()),
            do=f"use one of: {', '.join(fitting)}",
        )
    return given


def _useless(engine: Engine, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a profile that cannot identify a version, and why."""
    return {label: why for label, why in _USELESS[engine].items() if labels.get(label) == _WHOLE}
