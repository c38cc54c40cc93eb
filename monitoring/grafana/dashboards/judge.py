"""The board of the judge server: its questions, its answers, and whether it works."""

from contract import metrics as m
from monitoring.grafana.dashboards.board import Board, Row
from monitoring.grafana.dashboards.needs import Needs
from monitoring.grafana.dashboards.panels import Names, graph, heat, number, states
from monitoring.grafana.dashboards.promql import quantile, rate, total
from monitoring.grafana.dashboards.style import BAD, GOOD, PLAIN, WARN, About, Query

VERDICTS = ("pass", "inconclusive", "no_data", "fail")
_COLORS = {"pass": GOOD, "inconclusive": PLAIN, "no_data": WARN, "fail": BAD}
_WORDS: Names = {
    str(place): (verdict.replace("_", " "), _COLORS[verdict]) for place, verdict in enumerate(VERDICTS, start=1)
}
# A canary that is not known yet: the engine asks again and is answered soon. After other refusals it waits silently.
_USUAL = 'reason="question",status="404"'
_BUCKETS = f"{m.JUDGE_SECONDS.name}_bucket"


def judge() -> Board:
    """uid `kanaria-judge`."""
    return Board(
        uid="kanaria-judge",
        title="Kanaria / Judge",
        description="The judge server in a cluster: the releases in its questions, its answers, and its own state.",
        range="6h",
        rows=(_now(), _releases(), _questions(), _machinery()),
        about=Needs.JUDGED,
    )


def _now() -> Row:
    return Row(
        "Now",
        (
            number(
                About(
                    "Replicas",
                    "Replicas of the judge that Prometheus scrapes. Two are usual; with none, every weight is held.",
                    "none",
                    ((None, BAD), (1, WARN), (2, GOOD)),
                    "KanariaJudgeAway",
                    Needs.JUDGE,
                ),
                Query(f"count({m.JUDGE_ASKED})", "replicas"),
                has_history=False,
            ),
            number(
                About(
                    "Asked last",
                    "Time since the judge was last asked, or since its start. Long is usual while nothing is released.",
                    "s",
                    ((None, PLAIN),),
                    "KanariaJudgeUnasked",
                    Needs.JUDGE,
                ),
                Query(f"time() - max({m.JUDGE_ASKED})", "ago"),
                has_history=False,
            ),
            number(
                About(
                    "Releases",
                    "Releases with recent questions at one replica; the evidence of each is in memory.",
                    "none",
                    ((None, PLAIN),),
                    "",
                    Needs.JUDGE,
                ),
                Query(f"max({m.JUDGE_RELEASES})", "releases"),
            ),
            number(
                About(
                    "In quarantine",
                    "Versions that failed. They stay in quarantine until a person lifts it at each replica.",
                    "none",
                    ((None, GOOD), (1, WARN)),
                    "",
                    Needs.JUDGE,
                ),
                Query(f"max({m.JUDGE_QUARANTINED})", "versions"),
            ),
            number(
                About(
                    "Refused",
                    "Questions per minute that are answered with an error. Engines wait then, and do not report it.",
                    "cpm",
                    ((None, GOOD), (0.01, BAD)),
                    "KanariaJudgeRefuses",
                    Needs.JUDGE,
                ),
                Query(f"60 * ({total(m.JUDGE_REFUSED.name)} - {total(m.JUDGE_REFUSED.name, _USUAL)})", "refused"),
                decimals=1,
            ),
            number(
                About(
                    "Slowest answers",
                    "19 of 20 answers are faster. Argo Rollouts and Flagger wait for 30 s.",
                    "s",
                    ((None, GOOD), (3, WARN), (30, BAD)),
                    "",
                    Needs.JUDGED,
                ),
                Query(quantile(0.95, _BUCKETS), "95 %"),
            ),
        ),
    )


def _releases() -> Row:
    # A verdict's number is its index. If replicas differ for a moment, the worst is shown.
    placed = (f'{place} * {m.JUDGE_VERDICT}{{verdict="{verdict}"}}' for place, verdict in enumerate(VERDICTS, start=1))
    worst = f"max by (release, canary) ({' or '.join(placed)})"
    return Row(
        "Releases",
        (
            states(
                About(
                    "Last verdicts",
                    "The judge's last verdict about each canary: inconclusive until there are enough requests.",
                    "none",
                    ((None, PLAIN),),
                    "",
                    Needs.JUDGED,
                ),
                {"{{release}}: {{canary}}": (worst, _WORDS)},
                span=24,
                height=8,
            ),
        ),
    )


def _questions() -> Row:
    return Row(
        "Questions",
        (
            graph(
                About(
                    "Answers by verdict",
                    "Answers per minute. Without data nothing passes; the reason names the query that found none.",
                    "cpm",
                    ((None, PLAIN),),
                    "KanariaJudgeUnasked",
                    Needs.JUDGE,
                ),
                Query(f"60 * {total(m.JUDGE_ANSWERS.name, by='verdict')}", "{{verdict}}"),
                colors=[(f"^{verdict}$", color) for verdict, color in _COLORS.items()],
            ),
            graph(
                About(
                    "Refused by status",
                    "Errors per minute. 404: Flagger asked for harm before there were requests. After all others the "
                    "engine waits: 401 is the token, 422 the question, 503 Prometheus or the ledger, `route` its URL.",
                    "cpm",
                    ((None, PLAIN),),
                    "KanariaJudgeRefuses",
                    Needs.JUDGE,
                ),
                Query(f"60 * {total(m.JUDGE_REFUSED.name, by='status, reason')}", "{{status}} {{reason}}"),
            ),
            heat(
                About(
                    "Time of an answer",
                    "How long answers take. The first about a release reads all its samples and is the slowest.",
                    "s",
                    ((None, PLAIN),),
                    "",
                    Needs.JUDGED,
                ),
                Query(f"sum by (le) (increase({_BUCKETS}[$__rate_interval]))", "{{le}}", form="heatmap"),
                span=24,
            ),
        ),
    )


def _machinery() -> Row:
    of_judge = f"and on (instance) {m.JUDGE_ASKED}"
    return Row(
        "Its processes",
        (
            graph(
                About(
                    "Memory",
                    "Memory of each replica. It grows with the releases that it was asked about in the last hour.",
                    "bytes",
                    ((None, PLAIN),),
                    "KanariaJudgeAway",
                    Needs.JUDGE,
                ),
                Query(f"process_resident_memory_bytes {of_judge}", "{{instance}}"),
            ),
            graph(
                About(
                    "Processor",
                    "Cores that each replica uses. Reading a new release takes one core for a second.",
                    "short",
                    ((None, PLAIN),),
                    "KanariaJudgeAway",
                    Needs.JUDGE,
                ),
                Query(f"{rate('process_cpu_seconds_total')} {of_judge}", "{{instance}}"),
            ),
        ),
    )
