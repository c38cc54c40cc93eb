"""The model board: answers, their confidence and accuracy, and drift of the input."""

from contract import metrics as m
from monitoring.grafana.dashboards.board import Board, Row, Variable
from monitoring.grafana.dashboards.drift import drift
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.panels import graph, grouped, heat, number
from monitoring.grafana.dashboards.promql import class_shares, quantile, share, total, unsure
from monitoring.grafana.dashboards.style import BAD, GOOD, PLAIN, WARN, About, Query

_CHOSEN = 'version=~"$version"'
_CORRECT = f'outcome="{m.CORRECT}"'
_STEP = "30s"  # shares of few answers vary by chance; half a minute smooths them


def model() -> Board:
    """uid `kanaria-model`."""
    return Board(
        uid="kanaria-model",
        title="Kanaria / Model",
        description="The model's answers, their confidence and accuracy, and drift of its input.",
        range="6h",
        rows=(_answers(), _confidence(), _accuracy(), drift()),
        variables=(
            Variable(
                "version",
                "Version",
                "Bentos that answered in the time shown",
                f"label_values({m.PREDICTIONS}, version)",
                has_all=True,
            ),
        ),
    )


def _answers() -> Row:
    of_all = f"sum by (label) (rate({m.PREDICTIONS}{{{_CHOSEN}}}[$__rate_interval]))"
    return Row(
        "Answers",
        (
            graph(
                About(
                    "Predicted classes over time",
                    "Share of each class among the answers of the chosen versions, one per request. A band that "
                    "becomes narrower or wider is a change of the input or of the model: see drift below.",
                    "short",
                    ((None, PLAIN),),
                    "KanariaDataDrift",
                ),
                Query(of_all, "class {{label}}", min_step=_STEP),
                stack="percent",
            ),
            grouped(
                About(
                    "Predicted classes by version",
                    "Share of each class among a version's answers, one per request, over the time shown.",
                    "percentunit",
                    ((None, "blue"),),
                    "KanariaDataDrift",
                ),
                Query(class_shares(_CHOSEN), form="table"),
                rows="label",
                columns="version",
            ),
        ),
    )


def _confidence() -> Row:
    return Row(
        "Confidence",
        (
            heat(
                About(
                    "Confidence of the answers",
                    "Answers per second, one per request, by confidence. A healthy classifier is dark at the top.",
                    "percentunit",
                    ((None, "blue"),),
                    "KanariaDataDrift",
                ),
                Query(total(m.CONFIDENCE.bucket, _CHOSEN, by="le"), "{{le}}", form="heatmap"),
            ),
            graph(
                About(
                    "Confidence by version",
                    "Half and a tenth of the answers have a lower confidence, interpolated between bucket bounds.",
                    "percentunit",
                    ((None, BAD), (0.5, WARN), (0.7, GOOD)),
                    "KanariaDataDrift",
                ),
                Query(
                    quantile(0.5, m.CONFIDENCE.bucket, _CHOSEN, by="version"),
                    "{{version}} median",
                    min_step=_STEP,
                ),
                Query(
                    quantile(0.1, m.CONFIDENCE.bucket, _CHOSEN, by="version"),
                    "{{version}} lowest tenth",
                    min_step=_STEP,
                ),
                span=6,
                top=1,
            ),
            graph(
                About(
                    "Unsure answers",
                    "Share of answers with a confidence of at most 0.5.",
                    "percentunit",
                    ((None, GOOD), (0.05, WARN), (0.2, BAD)),
                    "KanariaDataDrift",
                ),
                Query(unsure(_CHOSEN, by="version"), "{{version}}", min_step=_STEP),
                span=6,
                has_limits=True,
            ),
        ),
    )


def _accuracy() -> Row:
    return Row(
        "Online accuracy: answers with feedback",
        (
            graph(
                About(
                    "Accuracy by version",
                    "Share of correct answers among those with a true label from /feedback. Labels may be late and "
                    "exist only for some answers, so compare versions over the same time.",
                    "percentunit",
                    ((None, BAD), (0.9, WARN), (0.95, GOOD)),
                    "KanariaQualityBudgetBurnsFast",
                    Needs.LABELS,
                ),
                Query(share(m.FEEDBACK.name, _CORRECT, _CHOSEN, by="version"), "{{version}}", min_step=_STEP),
                top=1,
                has_limits=True,
            ),
            number(
                About(
                    "Accuracy",
                    "Share of correct answers over the whole time shown.",
                    "percentunit",
                    ((None, BAD), (0.9, WARN), (0.95, GOOD)),
                    "KanariaQualityBudgetBurnsFast",
                    Needs.LABELS,
                ),
                Query(
                    f"sum by (version) (increase({m.FEEDBACK}{{{_CORRECT},{_CHOSEN}}}[$__range])) / "
                    f"(sum by (version) (increase({m.FEEDBACK}{{{_CHOSEN}}}[$__range])) > 0)",
                    "{{version}}",
                    form="now",
                ),
                span=6,
                height=8,
                shows="both",
                has_history=False,
            ),
            graph(
                About(
                    "Answers with a label",
                    "Share of answers with a true label. The fewer there are, the less certain the accuracy is.",
                    "percentunit",
                    ((None, WARN), (0.01, GOOD)),
                    "KanariaVersionNotScraped",
                    Needs.LABELS,
                ),
                Query(
                    f"{total(m.FEEDBACK.name, _CHOSEN, by='version')} / "
                    f"({total(m.PREDICTIONS.name, _CHOSEN, by='version')} > 0)",
                    "{{version}}",
                    min_step=_STEP,
                ),
                span=6,
            ),
        ),
    )
