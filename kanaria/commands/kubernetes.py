"""`kanaria kubernetes`: manifests for a cluster whose releases the judge judges."""

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

app = typer.Typer(no_args_is_help=True, help="Manifests for Argo Rollouts and Flagger.")

_BY_WORKLOAD = "-app"  # ends the names of the profiles of deploy/kubernetes that tell versions apart by the label `app`
# Labels that never have the version's name as an engine gives it: why not. Argo Rollouts names versions by their pods'
# hash, Flagger by their workloads.
_TAG, _CLUSTER = "holds the tag of the Bento", "holds the name of a cluster of Envoy"
_SAME, _UNSET = "is the same for both versions", "is not set there"
_USELESS: Mapping[Engine, Mapping[str, str]] = MappingProxyType(
    {
        Engine.ARGO: {"app": _SAME, "destination_workload": _SAME, "version": _TAG, "envoy_cluster_name": _CLUSTER},
        Engine.FLAGGER: {HASH.replace("-", "_"): _UNSET, "version": _TAG, "envoy_cluster_name": _CLUSTER},
    }
)
_WHOLE = "{version}"  # a label that has more than the name may well be told by it


@app.callback()
def _root() -> None:
    """Manifests for Argo Rollouts and Flagger."""


@app.command()
def render(
    tag: Annotated[str, typer.Argument(help="Bento in the store.")],
    *,
    engine: Annotated[Engine, typer.Option(help="What moves the traffic.")],
    namespace: Annotated[str, typer.Option(help="Namespace of the model.")] = "default",
    name: Annotated[
        str | None, typer.Option(help="Name of the model. Default: the Bento's.", show_default=False)
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Image of the Bento. Default: its tag, as containerized.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port that its server takes. Default: the Bento's.", show_default=False)
    ] = None,
    replicas: Annotated[int, typer.Option(help="Pods.")] = 4,
    steps: Annotated[str, typer.Option(help="Weights in percent, before all the traffic.")] = ",".join(map(str, STEPS)),
    gateway: Annotated[
        str | None,
        typer.Option(
            help="NAMESPACE/NAME of a Gateway of the Gateway API. Without it the numbers of pods are the weights.",
            show_default=False,
        ),
    ] = None,
    hostname: Annotated[
        list[str] | None,
        typer.Option(
            help="Host whose requests the gateway's route takes; may be repeated. Default: all hosts.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(
            help="Path that the gateway's route takes, with all below it; may be repeated. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Metric profile. Default: what the Bento counts in its pods.", show_default=False),
    ] = None,
    profile_folder: Annotated[
        Path | None, typer.Option("--profiles", help="Folder with metric profiles of your own.", show_default=False)
    ] = None,
    judge: Annotated[str, typer.Option(help="URL of the judge, as the engine reaches it.")] = JUDGE_URL,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the judge's token, which Flagger's hooks carry in their URLs.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: print.", file_okay=False, show_default=False)
    ] = None,
) -> None:
    """Write the manifests with which Argo Rollouts or Flagger releases a Bento as far as the judge allows."""
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
    """That the gateway's route takes. Raises SetupError for a path that no route takes."""
    if given or not has_route:
        return tuple(map(below, given)) or OF_CONTRACT
    return paths_of(service_of(tag))


def _notes(wanted: Wanted, out: Path | None) -> Iterator[str]:
    """What a person should know of the manifests."""
    if wanted.engine is Engine.FLAGGER and wanted.token is None:
        yield f"the hooks carry {PLACEHOLDER}: put the judge's token in its place, or give it with --token-file"
    if wanted.engine is Engine.ARGO:
        yield (
            f"no manifest has the token: the analyses read the Secret {SECRET} of {wanted.namespace}, and without it "
            f"a rollout aborts: `kubectl --namespace {wanted.namespace} create secret generic {SECRET} "
            f"--from-file {SECRET_KEY}=FILE` once, of a file without a line end: with one no header is sent"
        )
    for name in secrets(wanted):
        yield f"{name if out is None else out / name} has the token: keep it out of Git, or leave --token-file out"
    if wanted.gateway is not None and not wanted.hostnames:
        yield "the route takes the requests to all hosts of the gateway; name the model's own with --hostname"
    if wanted.gateway is not None and (shown := {each for path in wanted.paths for each in path.private}):
        yield f"the route also takes {', '.join(sorted(shown))}, for everybody; name what callers ask with --path"


def _profile(tag: str, engine: Engine, given: str | None, folder: Path | None) -> str:
    """The profile to ask with. Raises SetupError for one that the judge of deploy/kubernetes does not know."""
    usual = "service" if service_of(tag) is CONTRACT else "bentoml"
    if given is None:
        return usual + (_BY_WORKLOAD if engine is Engine.FLAGGER else "")
    told_by = {f"{each}{_BY_WORKLOAD}": {"app": _WHOLE} for each in ("service", "bentoml")}
    told_by |= {each: profile.versions for each, profile in known_profiles(folder).items()}
    if given not in told_by:
        raise SetupError(
            f"there is no metric profile {given}{nearest(given, sorted(told_by))}",
            saw=f"profiles: {', '.join(sorted(told_by))}",
            do="correct it, or name the folder that has it with --profiles",
        )
    if useless := _useless(engine, told_by[given]):
        fitting = (each for each, labels in sorted(told_by.items()) if not _useless(engine, labels))
        raise SetupError(
            f"with {engine} the profile {given} cannot tell two versions apart",
            saw=" and ".join(f"it looks at {label}, which {why}" for label, why in useless.items()),
            do=f"use one of: {', '.join(fitting)}",
        )
    return given


def _useless(engine: Engine, labels: Mapping[str, str]) -> dict[str, str]:
    """Why labels of a profile never have the version's name."""
    return {label: why for label, why in _USELESS[engine].items() if labels.get(label) == _WHOLE}
