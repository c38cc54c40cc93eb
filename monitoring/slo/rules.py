"""Makes the rule files for Prometheus from alerts.yaml and slo.yaml, with links to the runbooks."""

from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from monitoring.addresses import RUNBOOKS
from monitoring.errors import RulesError
from monitoring.slo.burn_rates import Alert, Group, Recording, slo_groups
from monitoring.slo.objectives import Duration, parse_slos

JUDGE = "kanaria-judge"  # the alert group of the judge server, and its name in a cluster


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Labels(_Part):
    severity: Literal["page", "ticket"]
    action: Literal["rollback"] | None = None


class _Annotations(_Part):
    summary: str
    description: str


class _Alert(_Part):
    alert: str
    expr: str
    labels: _Labels
    annotations: _Annotations
    for_: Duration | None = Field(default=None, alias="for")


class _Group(_Part):
    name: str
    rules: tuple[_Alert, ...]


class _Alerts(_Part):
    groups: tuple[_Group, ...]


def alert_rules(alerts: str, *, runbooks: str = RUNBOOKS) -> str:
    """The rules of alerts.yaml, whose text is `alerts`. Arguments and errors as for `slo_rules`."""
    return _text_of(_plain_groups(alerts), "alerts.yaml", runbooks)


def slo_rules(slos: str, *, runbooks: str = RUNBOOKS) -> str:
    """The rules of the objectives in slo.yaml, whose text is `slos`.

    Args:
        runbooks: address of the page of runbooks; each alert's anchor is its name in lower case.

    Raises: RulesError.
    """
    groups = [group for name, slo in parse_slos(slos).items() for group in slo_groups(name, slo)]
    return _text_of(groups, "slo.yaml", runbooks)


def cluster_rules(alerts: str, *, runbooks: str) -> str:
    """The groups of alerts.yaml that apply in a cluster, as a PrometheusRule. See `slo_rules`."""
    groups = [_group(group, runbooks) for group in _plain_groups(alerts) if group.name == JUDGE]
    rule: dict[str, object] = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": JUDGE},
        "spec": {"groups": groups},
    }
    return _written(rule, "monitoring/alerts.yaml")


def _text_of(groups: list[Group], source: str, runbooks: str) -> str:
    return _written({"groups": [_group(group, runbooks) for group in groups]}, f"../{source}")


def _written(document: dict[str, object], source: str) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return f"# Written by `kanaria rules generate`. Change {source}, not this.\n{text}"


def _plain_groups(text: str) -> list[Group]:
    try:
        alerts = _Alerts.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        raise RulesError("alerts.yaml is not valid", saw=str(error), do="correct that entry") from error
    return [
        Group(
            group.name,
            [
                Alert(
                    alert=rule.alert,
                    expr=rule.expr,
                    labels=rule.labels.model_dump(exclude_none=True),
                    annotations=rule.annotations.model_dump(),
                    for_=rule.for_,
                )
                for rule in group.rules
            ],
        )
        for group in alerts.groups
    ]


def _group(group: Group, runbooks: str) -> dict[str, object]:
    interval = {"interval": group.interval} if group.interval else {}
    return {"name": group.name} | interval | {"rules": [_rule(rule, runbooks) for rule in group.rules]}


def _rule(rule: Recording | Alert, runbooks: str) -> dict[str, object]:
    match rule:
        case Recording():
            return {"record": rule.record, "expr": rule.expr, "labels": rule.labels}
        case Alert():
            pending = {"for": rule.for_} if rule.for_ else {}
            link = {"runbook_url": f"{runbooks}#{rule.alert.lower()}"}
            return (
                {"alert": rule.alert, "expr": rule.expr}
                | pending
                | {"labels": rule.labels, "annotations": rule.annotations | link}
            )


class _Dumper(yaml.SafeDumper):
    """Writes queries with several lines as literal blocks, which are easy to read."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - no YAML aliases: a rule must not refer to another rule's labels
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
