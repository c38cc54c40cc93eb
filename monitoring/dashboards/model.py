"""The board of the model: what it answers, how sure it is, how often it is right, and whether its input moved. Pure."""

from monitoring.dashboards.board import Board, Row, Variable
from monitoring.dashboards.drawings import graph, grouped, heat, number
from monitoring.dashboards.drift import drift
from monitoring.dashboards.needs import Needs
from monitoring.dashboards.promql import class_shares, quantile, share, total, unsure
from monitoring.dashboards.style import BAD, GOOD, PLAIN, WARN, About, Query

_CHOSEN = 'version=~"$version"'
_CORRECT, _WRONG = 'outcome="correct"', 'outcome="wrong"'
_STEP = "30s"  # shares of few rows jump; half a minute shows what lasts


def model() -> Board:
    """uid `kanaria-model`."""
    return Board(
        uid="kanaria-model",
        title="Kanaria / Model",
        description="What the model answers, how sure it is, how often it is right, and whether its input has moved.",
        range="6h",
        rows=(_answers(), _confidence(), _accuracy(), drift()),
        variables=(
            Variable(
                "version",
                "Version",
                "Bentos that answered in the time shown",
                "label_values(kanaria_predictions_total, version)",
                has_all=True,
            ),
        ),
    )


def _answers() -> Row:
    of_all = f"sum by (label) (rate(kanaria_predictions_total{{{_CHOSEN}}}[$__rate_interval]))"
    return Row(
        "Answers",
        (
            graph(
                About(
                    "Predicted classes over time",
                    "Share of each class among the answered rows of the chosen versions. A band that closes or opens "
                    "is a change of the input or of the model: see drift below.",
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
                    "Share of each class among a version's answered rows, over the time shown.",
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
                    "Rows per second in each range of confidence. A healthy classifier is dark at the top.",
                    "percentunit",
                    ((None, "blue"),),
                    "KanariaDataDrift",
                ),
                Query(total("kanaria_confidence_bucket", _CHOSEN, by="le"), "{{le}}", form="heatmap"),
            ),
            graph(
                About(
                    "Confidence by version",
                    "What half and a tenth of the rows stay under, interpolated between bucket bounds.",
                    "percentunit",
                    ((None, BAD), (0.5, WARN), (0.7, GOOD)),
                    "KanariaDataDrift",
                ),
                Query(
                    quantile(0.5, "kanaria_confidence_bucket", _CHOSEN, by="version"),
                    "{{version}} median",
                    min_step=_STEP,
                ),
                Query(
                    quantile(0.1, "kanaria_confidence_bucket", _CHOSEN, by="version"),
                    "{{version}} lowest tenth",
                    min_step=_STEP,
                ),
                span=6,
                top=1,
            ),
            graph(
                About(
                    "Unsure answers",
                    "Share of rows with a confidence of at most 0.5.",
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
        "Online accuracy: rows whose true label came",
        (
            graph(
                About(
                    "Accuracy by version",
                    "Share of right rows among those whose true label came through /feedback. Labels may come late and "
                    "for some rows only, so compare versions over the same time.",
                    "percentunit",
                    ((None, BAD), (0.9, WARN), (0.95, GOOD)),
                    "KanariaQualityBudgetBurnsFast",
                    Needs.LABELS,
                ),
                Query(share("kanaria_feedback_total", _CORRECT, _CHOSEN, by="version"), "{{version}}", min_step=_STEP),
                top=1,
                has_limits=True,
            ),
            number(
                About(
                    "Accuracy",
                    "Share of right rows over the whole time shown.",
                    "percentunit",
                    ((None, BAD), (0.9, WARN), (0.95, GOOD)),
                    "KanariaQualityBudgetBurnsFast",
                    Needs.LABELS,
                ),
                Query(
                    f"sum by (version) (increase(kanaria_feedback_total{{{_CORRECT},{_CHOSEN}}}[$__range])) / "
                    f"(sum by (version) (increase(kanaria_feedback_total{{{_CHOSEN}}}[$__range])) > 0)",
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
                    "Rows with a label",
                    "Share of answered rows whose true label came: how much the accuracy rests on.",
                    "percentunit",
                    ((None, WARN), (0.01, GOOD)),
                    "KanariaVersionNotScraped",
                    Needs.LABELS,
                ),
                Query(
                    f"{total('kanaria_feedback_total', _CHOSEN, by='version')} / "
                    f"({total('kanaria_predictions_total', _CHOSEN, by='version')} > 0)",
                    "{{version}}",
                    min_step=_STEP,
                ),
                span=6,
            ),
        ),
    )
