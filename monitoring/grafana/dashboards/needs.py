"""The events that a query needs before it can find anything. They tell an empty panel from a broken one."""

from enum import Enum

from contract import metrics as m
from monitoring.grafana.dashboards.promql import REQUESTS


class Needs(Enum):
    """The event that a query needs. The value is a query that is not empty once the event has happened."""

    SCRAPES = "up"
    TRAFFIC = f"sum(increase({REQUESTS}[$__range])) > 0"
    RELEASE = f'max(max_over_time({m.RELEASE_STATE}{{state="stepping"}}[$__range])) > 0'
    SHADOW = f'sum(increase({m.DISAGREEMENT}{{version="$canary"}}[$__range])) > 0'
    LABELS = f"sum(increase({m.FEEDBACK}[$__range])) > 0"
    CANARY_LABELS = f'sum(increase({m.FEEDBACK}{{version="$canary"}}[$__range])) > 0'
    JUDGE = f"{m.JUDGE_ASKED}"  # a judge server is scraped
    JUDGED = f"sum(increase({m.JUDGE_ANSWERS}[$__range])) > 0"
    OBJECTIVES = "slo:objective:ratio offset 1m"  # their rules are evaluated each half minute
    DRIFT = f'max(max_over_time({m.DRIFT_STATE}{{kind="data",state!="not_run"}}[$__range])) > 0'
    DRIFT_SCORES = f'max(max_over_time({m.DRIFT_STATE}{{kind="data",state=~"(no_)?drift"}}[$__range])) > 0'
    RELEASE_DRIFT = f'max(max_over_time({m.DRIFT_STATE}{{kind="release",state=~"(no_)?drift"}}[$__range])) > 0'
