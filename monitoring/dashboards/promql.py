"""The expressions that the boards are made of: rates, shares and quantiles over the series that Kanaria exports. Pure.

Sums of events are divided, ratios are never averaged. A share is empty, not zero, where nothing was counted.
"""

from collections.abc import Sequence

REQUESTS = "envoy_kanaria_predict_total"  # POST /predict at the gateway, by the version that answered
DURATION = "envoy_kanaria_predict_duration_ms_bucket"
COPIES = "envoy_cluster_upstream_rq_xx"  # mirrored requests; of clusters, only shadows are scraped
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

    A service without an error has no series of errors: 0 where there are events at all.
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


def unsure(matchers: str = "", *, by: str = "") -> str:
    """The share of answered rows with a confidence of at most 0.5."""
    low = total("kanaria_confidence_bucket", both(matchers, 'le="0.5"'), by=by)
    return f"{low} / ({total('kanaria_confidence_count', matchers, by=by)} > 0)"


def class_shares(matchers: str) -> str:
    """The share of each class among each version's answered rows, over the whole time shown."""
    rows = f"increase(kanaria_predictions_total{{{matchers}}}[$__range])"
    return f"sum by (label, version) ({rows}) / on (version) group_left () (sum by (version) ({rows}) > 0)"


def code_of(gauge: str, label: str, values: Sequence[str], matchers: str = "") -> str:
    """The place, from 1, of the label value whose series is 1; one number is one coloured word in Grafana."""
    chosen = [both(matchers, f'{label}="{value}"') for value in values]
    return " + ".join(f"{place} * max({gauge}{{{one}}})" for place, one in enumerate(chosen, start=1))


def both(*matchers: str) -> str:
    """Matchers that must all hold; empty ones say nothing."""
    return ",".join(filter(None, matchers))
