"""The row of the promises to users: kept or not, and what is left of each error budget. Pure; `overview` shows it."""

from monitoring.dashboards.board import Row
from monitoring.dashboards.drawings import bars, graph, number
from monitoring.dashboards.needs import Needs
from monitoring.dashboards.style import BAD, GOOD, PLAIN, WARN, About, Query


def objectives() -> Row:
    """What slo.yaml promises, as its recording rules count it."""
    return Row(
        "Objectives: what users are promised over 30 days",
        (
            bars(
                About(
                    "Error budget left",
                    "Of the bad events that the promise allows in 30 days, what is left. Under 0 the promise is "
                    "broken: release nothing but repairs.",
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
                    "How many times faster than allowed the budget burns now, over 5 minutes: 1 spends it in just "
                    "30 days; from 14.4 on, for an hour, somebody is paged.",
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
                    "A step down is an incident; a slope that would reach 0 within 30 days is a service that does not "
                    "keep its promise.",
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
                    "Kept so far, and promised",
                    "Share of good events over 30 days, in each promise's own sense: answered, in time, right.",
                    "percentunit",
                    ((None, PLAIN),),
                    "KanariaAvailabilityBudgetBurnsSlowly",
                    Needs.OBJECTIVES,
                ),
                Query("1 - slo:sli_error:ratio_rate30d", "{{slo}}", form="now"),
                Query("slo:objective:ratio", "{{slo}}, promised", Needs.OBJECTIVES, form="now"),
                height=8,
                shows="both",
                has_history=False,
                decimals=2,
            ),
        ),
    )
