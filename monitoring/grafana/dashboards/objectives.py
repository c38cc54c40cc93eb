"""The row of objectives: whether they are met, and how much of each error budget is left."""

from monitoring.grafana.dashboards.board import Row
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.panels import bars, graph, number
from monitoring.grafana.dashboards.style import BAD, GOOD, PLAIN, WARN, About, Query


def objectives() -> Row:
    """The objectives of slo.yaml, from their recording rules."""
    return Row(
        "Objectives: the promises to users over 30 days",
        (
            bars(
                About(
                    "Error budget left",
                    "The share of the bad events allowed in 30 days that is left. Below 0 the objective is missed: "
                    "release nothing but fixes.",
                    "percentunit",
                    ((None, BAD), (0.1, WARN), (0.3, GOOD)),
                    "KanariaAvailabilityBudgetBurnsSlowly",
                    Needs.OBJECTIVES,
                ),
                Query("slo:period_error_budget_remaining:ratio", "{{slo}}"),
                top=1,
                span=6,
            ),
            graph(
                About(
                    "Burn rate",
                    "How many times faster than allowed the budget burns now, over 5 minutes: 1 spends it in exactly "
                    "30 days; above 14.4 for an hour pages a person.",
                    "none",
                    ((None, GOOD), (1, WARN), (14.4, BAD)),
                    "KanariaAvailabilityBudgetBurnsFast",
                    Needs.OBJECTIVES,
                ),
                Query("slo:current_burn_rate:ratio", "{{slo}}"),
                span=9,
                has_limits=True,
            ),
            graph(
                About(
                    "Budget left over time",
                    "A step down is an incident; a slope that would reach 0 within 30 days means that the service "
                    "misses its objective.",
                    "percentunit",
                    ((None, BAD), (0.1, WARN), (0.3, GOOD)),
                    "KanariaAvailabilityBudgetBurnsSlowly",
                    Needs.OBJECTIVES,
                ),
                Query("slo:period_error_budget_remaining:ratio", "{{slo}}"),
                span=5,
                top=1,
            ),
            number(
                About(
                    "Reached so far, and objective",
                    "Share of good events over 30 days: answered (availability), in time (latency), correct (quality).",
                    "percentunit",
                    ((None, PLAIN),),
                    "KanariaAvailabilityBudgetBurnsSlowly",
                    Needs.OBJECTIVES,
                ),
                Query("1 - slo:sli_error:ratio_rate30d", "{{slo}}", form="now"),
                Query("slo:objective:ratio", "{{slo}}, objective", Needs.OBJECTIVES, form="now"),
                height=8,
                shows="both",
                has_history=False,
                decimals=2,
            ),
        ),
    )
