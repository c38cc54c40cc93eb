"""The PromQL expressions of the boards: rates, shares and quantiles of the series that Kanaria and Envoy export.

A share divides sums of events; ratios are never averaged. A share is empty, not zero, if nothing was counted.
"""

from collections.abc import Sequence

from contract import metrics as m

# The gateway's series. A test compares them, objectives and alerts with the names in rollout/routers/envoy/metrics.py.
REQUESTS = "envoy_kanaria_predict_total"  # POST /predict at the gateway, by the version that answered
DURATION = "envoy_kanaria_predict_duration_ms_bucket"
COPIES = "envoy_cluster_upstream_rq"  # mirrored requests; only the shadow clusters are scraped
COPY_DURATION = "envoy_cluster_upstream_rq_time_bucket"


def rate(series: str, matchers: str = "") -> str:
    """Events per second."""
    return f"rate({series}{{{matchers}}}[$__rate_interval])"


def total(series: str, matchers: str = "", *, by: str = "") -> str:
    """Events per second, summed; `by` names the labels that are kept."""
    kept = f" by ({by})" if by else ""
    return f"sum{kept} ({rate(series, matchers)})"


def share(series: str, bad: str, matchers: str = "", *, by: str = "") -> str:
    """The share of events that also match `bad`.

    A service without errors has no series of errors; then the share is 0 if there are any events.
    """
    events = total(series, matchers, by=by)
    return f"({total(series, both(matchers, bad), by=by)} or {events} * 0) / ({events} > 0)"


def slower(series: str, bound: str, matchers: str = "", *, by: str = "") -> str:
    """The share of a histogram's events above the bucket bound `bound`."""
    within, events = (total(series, ",".join(filter(None, (matchers, f'le="{le}"'))), by=by) for le in (bound, "+Inf"))
    return f"1 - {within} / ({events} > 0)"


def quantile(q: float, series: str, matchers: str = "", *, by: str = "") -> str:
    """A quantile of a histogram, interpolated within its bucket."""
    kept = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({q}, {total(series, matchers, by=kept)})"


def within(histogram: str, bound: str, matchers: str = "", *, by: str = "") -> str:
    """The share of a histogram's events at or under the bucket bound `bound`."""
    low = total(f"{histogram}_bucket", both(matchers, f'le="{bound}"'), by=by)
    return f"{low} / ({total(f'{histogram}_count', matchers, by=by)} > 0)"


def unsure(matchers: str = "", *, by: str = "") -> str:
    """The share of answers with a confidence of at most 0.5."""
    return within(m.CONFIDENCE.name, "0.5", matchers, by=by)


def value_shares(series: str, label: str, matchers: str) -> str:
    """The share of each value of `label` among each version's events, over the whole time shown."""
    rows = f"increase({series}{{{matchers}}}[$__range])"
    return f"sum by ({label}, version) ({rows}) / on (version) group_left () (sum by (version) ({rows}) > 0)"


def class_shares(matchers: str) -> str:
    """The share of each class among each version's answers, over the whole time shown."""
    return value_shares(m.PREDICTIONS.name, "label", matchers)


def code_of(gauge: str, label: str, values: Sequence[str], matchers: str = "") -> str:
    """The 1-based index of the label value whose series is 1. Grafana shows each number as a coloured word."""
    chosen = [both(matchers, f'{label}="{value}"') for value in values]
    return " + ".join(f"{place} * max({gauge}{{{one}}})" for place, one in enumerate(chosen, start=1))


def both(*matchers: str) -> str:
    """Matchers that must all match; empty ones are left out."""
    return ",".join(filter(None, matchers))
