"""`kanaria rules`: writes the rules for Prometheus and an Alertmanager configuration for them; checks them.

Exit codes: 0 done; 1 the rules are wrong; 2 bad input; 3 they could not be checked.
"""

from pathlib import Path
from typing import Annotated

import typer

from monitoring.addresses import JUDGE, RUNBOOKS, runbooks_at
from monitoring.errors import RulesError
from monitoring.prometheus import promtool
from monitoring.prometheus.alertmanager import example_config
from monitoring.prometheus.configuration import RULES
from monitoring.slo.rules import alert_rules, cluster_rules, slo_rules

_HERE = Path(__file__).parents[1]
_SLOS, _ALERTS = _HERE / "slo.yaml", _HERE / "alerts.yaml"
_RULES = _HERE / "rules"
_IN_A_CLUSTER = _HERE.parent / "deploy" / "kubernetes" / "base" / "rules.yaml"  # only a checkout has it
_TESTS = sorted((_RULES / "tests").glob("*.yaml"))

app = typer.Typer(no_args_is_help=True, help="Prometheus rules of the service level objectives and alerts.")

Slos = Annotated[Path, typer.Option(help="Objectives. Default: monitoring/slo.yaml.", show_default=False)]


@app.command()
def generate(
    slo: Slos = _SLOS,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for slo.yaml, alerts.yaml and alertmanager.yml. Default: monitoring/rules.", show_default=False
        ),
    ] = _RULES,
    runbooks: Annotated[str, typer.Option(help="Address of the page of runbooks; alerts link to it.")] = RUNBOOKS,
    kubernetes: Annotated[
        Path | None,
        typer.Option(
            help="Write only the judge's alerts, as a PrometheusRule for prometheus-operator, to this file.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the rule files for Prometheus, and a starting point for Alertmanager's configuration."""
    if not runbooks.startswith(("http://", "https://")):
        raise RulesError(
            "the alerts' links to runbooks would be broken",
            saw=f"--runbooks {runbooks or 'is empty'}",
            do="give a full address, such as http://controller.example.com:8090/runbooks",
        )
    at_judge = runbooks_at(JUDGE) if runbooks == RUNBOOKS else runbooks
    if kubernetes is not None:
        made = {kubernetes: cluster_rules(_ALERTS.read_text(), runbooks=at_judge)}
    else:
        made = {out / name: text for name, text in _generated(slo, runbooks).items()}
        if out == _RULES and _IN_A_CLUSTER.parent.is_dir():
            made[_IN_A_CLUSTER] = cluster_rules(_ALERTS.read_text(), runbooks=at_judge)
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        typer.echo(f"wrote {path}")


@app.command()
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Rule files. Default: those of this project, and their tests.")
    ] = None,
) -> None:
    """Check rule files with promtool. This project's own files are also compared with their sources and tested."""
    if missing := [str(path) for path in files or () if not path.is_file()]:
        raise RulesError("there are no rules to check", saw=f"no file {', '.join(missing)}", do="correct the paths")
    complaints = [promtool.check_rules(files or RULES)]
    if not files:
        generated = _generated(_SLOS, RUNBOOKS)
        expected = {_RULES / name: text for name, text in generated.items()}
        if _IN_A_CLUSTER.is_file():
            expected[_IN_A_CLUSTER] = cluster_rules(_ALERTS.read_text(), runbooks=runbooks_at(JUDGE))
        complaints += [
            f"{path} does not match its source: run `kanaria rules generate`"
            for path, text in expected.items()
            if path.read_text() != text
        ]
        complaints.append(promtool.test_rules(_TESTS))
    if found := [complaint for complaint in complaints if complaint]:
        typer.echo("\n".join(found), err=True)
        raise typer.Exit(1)
    typer.echo(f"{', '.join(path.name for path in files or RULES)}: promtool finds nothing wrong")


def _generated(slos: Path, runbooks: str) -> dict[str, str]:
    """The text of each file by its name."""
    if not slos.is_file():
        raise RulesError("there are no objectives", saw=f"no file {slos}", do="correct the path after --slo")
    return {
        "slo.yaml": slo_rules(slos.read_text(), runbooks=runbooks),
        "alerts.yaml": alert_rules(_ALERTS.read_text(), runbooks=runbooks),
        "alertmanager.yml": example_config(),
    }
