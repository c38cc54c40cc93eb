"""What the queries of the boards wait for, so that an empty panel can be told from a broken one. Pure."""

from enum import Enum


class Needs(Enum):
    """What must have happened for a query to find something. Its value is a query that is not empty when it did."""

    SCRAPES = "up"
    TRAFFIC = "sum(increase(envoy_kanaria_predict_total[$__range])) > 0"
    RELEASE = 'max(max_over_time(kanaria_release_state{state="stepping"}[$__range])) > 0'
    SHADOW = 'sum(increase(kanaria_disagreement_total{version="$canary"}[$__range])) > 0'
    LABELS = "sum(increase(kanaria_feedback_total[$__range])) > 0"
    CANARY_LABELS = 'sum(increase(kanaria_feedback_total{version="$canary"}[$__range])) > 0'
    OBJECTIVES = "slo:objective:ratio offset 1m"  # their rules are evaluated each half minute
    DRIFT = 'max(max_over_time(kanaria_drift_state{kind="data",state!="not_run"}[$__range])) > 0'
    DRIFT_SCORES = 'max(max_over_time(kanaria_drift_state{kind="data",state=~"(no_)?drift"}[$__range])) > 0'
    RELEASE_DRIFT = 'max(max_over_time(kanaria_drift_state{kind="release",state=~"(no_)?drift"}[$__range])) > 0'
