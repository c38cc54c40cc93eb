"""Kanaria's own metrics: name, meaning and labels of each, for the code that exports them and the code that reads them.

The data plane's metrics are not declared here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. `str(metric)` is its name, so that it can be written into a query."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The names of the series that it is made of."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Histogram(Metric):
    """A metric whose events are counted in cumulative buckets."""

    bounds: tuple[float, ...] = ()  # upper bounds of its buckets, rising

    @property
    def bucket(self) -> str:
        """The series of its buckets, which the label `le` distinguishes."""
        return f"{self.name}_bucket"

    @property
    def count(self) -> str:
        """The series of all its events."""
        return f"{self.name}_count"

    @property
    def sum(self) -> str:
        """The series of what its events add up to."""
        return f"{self.name}_sum"

    @property
    def series(self) -> tuple[str, ...]:
        return self.bucket, self.count, self.sum


# Of a model's server, labelled by the Bento tag that it serves. They exist at 0 before the first request. A route is a
# path, as in the gateway's metrics; `endpoint` is a label that prometheus-operator gives to targets.
REQUESTS = Metric("kanaria_requests_total", "Requests answered", ("version", "route", "status_class"))
REQUEST_DURATION = Histogram(
    "kanaria_request_duration_seconds",
    "Time from a request's headers to its answer",
    ("version", "route"),
    bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
PREDICTIONS = Metric(
    "kanaria_predictions_total",
    "Requests answered with each label, or with a number in each bin; one row of each counts, drawn at random",
    ("version", "label"),
)
CONFIDENCE = Histogram(
    "kanaria_confidence",
    "Confidence of one row of each answered request",
    ("version",),
    bounds=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
)
CORRECT, WRONG = "correct", "wrong"
MOST_CALLERS = 20  # whose labels count apart, by the names of their keys
OTHER_CALLERS = "other"  # all others; labels of which nobody knows who sent them have no name
FEEDBACK = Metric(
    "kanaria_feedback_total",
    "Requests with feedback, by the version that answered and by who labelled them; one row of each counts, at random",
    ("version", "outcome", "caller"),
)
LABEL_AGES_S = (10.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 21_600.0, 86_400.0)  # of answers, at which labels count
CAME, LATE = "came", "late"
LABELS = Metric(
    "kanaria_labels_total",
    "Requests with feedback, for each age that an answer may reach: `came` before that age and `correct` or `wrong` "
    "once it is reached, or `late`; `correct` and `wrong` by who labelled them",
    ("version", "age_s", "outcome", "caller"),
)
SAME, DIFFERENT = "same", "different"
DISAGREEMENT = Metric(
    "kanaria_disagreement_total",
    "Requests that another version answered too, by whether its answer was the same; one row of each counts",
    ("version", "outcome"),
)
BETTER, WORSE = "better", "worse"
PAIRED_LABELS = Metric(
    "kanaria_paired_labels_total",
    "Labelled requests about which either this version or another one was right, but not both; one row of each counts",
    ("version", "outcome", "caller"),
)
ANSWERS_DROPPED = Metric(
    "kanaria_answers_dropped_total",
    "Answers that could not be kept, or be compared with their feedback or with another version's answer",
    ("version",),
)
PREDICTION_LOG_DROPPED = Metric(
    "kanaria_prediction_log_dropped_total", "Rows that the prediction log could not keep", ("version",)
)
LOG_THREADS = ("answers", "predictions")
LOG_FAILURES = Metric(
    "kanaria_log_failures_total",
    "Failures of the threads that write answers and the prediction log; they go on",
    ("version", "thread"),
)
MODEL_INFO = Metric(
    "kanaria_model_info",
    "1 for the model that is served and the engine that it runs on",
    ("version", "model", "engine"),
)
OF_VERSIONS: tuple[Metric, ...] = (
    *(
        REQUESTS,
        REQUEST_DURATION,
        PREDICTIONS,
        CONFIDENCE,
        FEEDBACK,
        LABELS,
        DISAGREEMENT,
        PAIRED_LABELS,
        ANSWERS_DROPPED,
    ),
    *(PREDICTION_LOG_DROPPED, LOG_FAILURES, MODEL_INFO),
)

# Of the observer, which compares the answers of versions that count nothing themselves. It counts DISAGREEMENT, too.
OBSERVER_REPEATS = Metric(
    "kanaria_observer_repeats_total",
    "Requests that stable was asked twice, by whether its answers were the same",
    ("version", "outcome"),
)
COMPARED, SKIPPED, UNPAIRED, AMBIGUOUS, CUT = OBSERVED = ("compared", "skipped", "unpaired", "ambiguous", "cut")
OBSERVER_ANSWERS = Metric(
    "kanaria_observer_answers_total",
    "Answers that the observer was shown: `compared` with stable's, `skipped` because there are more than it takes, "
    "`unpaired` because another answer or room was lacking, `ambiguous` by a request id that came twice, or `cut`",
    ("outcome",),
)
OBSERVER_WAITING = Metric("kanaria_observer_waiting_bytes", "Answers that wait for the one they are compared with")
UNKNOWN_LABELS = Metric(
    "kanaria_observer_unknown_labels_total",
    "Labels about answers that the observer did not keep: of requests that it was not shown, or that there never were",
)
KEPT, KNOWN, TOO_LARGE, UNSUCCESSFUL, PRIVATE, UNWRITTEN_REQUEST, CUT_REQUEST = RECORDED = (
    "kept",
    "known",
    "too_large",
    "unsuccessful",
    "private",
    "unwritten",
    "cut",
)
OBSERVER_RECORDED = Metric(
    "kanaria_observer_recorded_total",
    "Requests that `kanaria record` was shown: `kept`, `known` already, `too_large`, `unsuccessful` because stable did "
    "not answer with success, `private` because the path has a key, `unwritten` because the disk refused, or `cut`",
    ("outcome",),
)

# Of the controller.
LAST_BEAT = Metric("kanaria_controller_last_beat_timestamp_seconds", "Last beat of the control loop")
FAILED_BEATS = Metric("kanaria_controller_failed_beats_total", "Beats of the control loop that failed")
FAILED_IN_A_ROW = Metric("kanaria_controller_failed_beats_in_a_row", "Beats that failed since the last that did not")
UNWRITTEN = Metric("kanaria_ledger_unwritten_events", "Events that could not be written to the ledger yet")
FREE_BYTES = Metric("kanaria_state_folder_free_bytes", "Free room on the file system of the state folder")
GATEWAY_SILENT = Metric(
    "kanaria_gateway_silent_seconds", "For how long the gateway has answered no new client; 0: it does"
)
SOURCE_UNREACHABLE = Metric("kanaria_source_unreachable_total", "Readings that the metric source did not give")
LEDGER_GONE = Metric("kanaria_ledger_gone", "1 while the ledger's file is gone and could not be put back")
UNJUDGED = Metric(
    "kanaria_controller_unjudged_seconds",
    "For how long the running release has not been judged; 0: it is, or none runs",
)
LEDGER_COPIED = Metric(
    "kanaria_ledger_last_backup_timestamp_seconds", "When the ledger was copied last, or found to be copied already"
)
LEDGER_COPY_FAILURES = Metric(
    "kanaria_ledger_backup_failures_in_a_row", "Copies of the ledger that failed since the last that did not"
)
LEDGER_EVENTS = Metric("kanaria_ledger_events", "Events in the ledger")
LEDGER_HEAD = Metric(
    "kanaria_ledger_head", "Beginning of the hash of the ledger's last event, as a number: `kanaria ledger check --at`"
)
CERTIFICATE_EXPIRES = Metric(
    "kanaria_certificate_expires_timestamp_seconds",
    "Until when the certificate is valid that new clients are shown; none for a service without one",
    ("service",),
)
CERTIFICATE_LIFETIME = Metric(
    "kanaria_certificate_lifetime_seconds", "How long that certificate is valid in all", ("service",)
)
ROUTER_FAILURES = Metric("kanaria_router_failures_total", "Splits that the data plane refused")
SIGNATURE_REFUSED = Metric("kanaria_signature_refused_total", "Versions that did not start for their signature")
VERSION_UP = Metric(
    "kanaria_version_up",
    "1 when the version answers its readiness probe, 0 when not; none of a canary that is loading",
    ("version", "role"),
)

OBSERVER_SHARE = Metric(
    "kanaria_observer_share_ratio", "Share of the requests whose answers the gateway shows the observer; NaN: not known"
)
OBSERVER_MISSED = Metric(
    "kanaria_observer_missed_total",
    "Answers that the gateway could not show the observer, because it was away or too many were on their way to it",
)

# Of the newest release, exported by the controller. `version` is its canary.
RELEASE_INFO = Metric("kanaria_release_info", "1 for the newest release", ("release", "canary", "stable"))
RELEASE_STATE = Metric("kanaria_release_state", "1 for the phase the newest release is in", ("state",))
RELEASE_OUTCOME = Metric("kanaria_release_outcome", "1 for the outcome of the newest release", ("outcome",))
RELEASE_STEP_STARTED = Metric("kanaria_release_step_started_timestamp_seconds", "Start of the step; 0: no release")
RELEASE_WEIGHT = Metric("kanaria_release_weight_percent", "Share of traffic by version, read back", ("version",))
RELEASE_VERDICT = Metric("kanaria_release_verdict", "1 for the judge's last verdict", ("version", "verdict"))
RELEASE_EVIDENCE = Metric(
    "kanaria_release_evidence_log", "Log e-value against a harmless canary", ("version", "signal")
)
RELEASE_THRESHOLD = Metric(
    "kanaria_release_evidence_threshold", "Log e-value at which this signal alone fails", ("version", "signal")
)
RELEASE_COMBINED_EVIDENCE = Metric(
    "kanaria_release_combined_evidence_log", "Log e-value of all signals together", ("version",)
)
RELEASE_COMBINED_THRESHOLD = Metric(
    "kanaria_release_combined_evidence_threshold", "Log e-value at which all signals together fail", ("version",)
)
RELEASE_EXCESS = Metric(
    "kanaria_release_excess_upper_ratio",
    "Bound on the canary's excess of bad answers, of its own requests",
    ("version", "signal"),
)
RELEASE_REQUESTS_NEEDED = Metric(
    "kanaria_release_requests_needed", "Canary requests still needed for the next step", ("version",)
)
RELEASE_CANARY_REQUESTS = Metric("kanaria_release_canary_requests_total", "Canary requests judged so far", ("version",))

# Of the newest drift reports, exported by the controller. `kind` is data or release.
DRIFT_STATE = Metric("kanaria_drift_state", "1 for the result of the newest report", ("kind", "version", "state"))
DRIFT_SHARE = Metric("kanaria_drift_share", "Drifted columns as a share of all columns, 0-1", ("kind", "version"))
DRIFT_ROWS = Metric("kanaria_drift_rows", "Rows that the newest report compared", ("kind", "version"))
DRIFT_LABELLED_ROWS = Metric(
    "kanaria_drift_labelled_rows", "Rows with known truth in the newest report", ("kind", "version")
)
DRIFT_LAST_RUN = Metric(
    "kanaria_drift_last_run_timestamp_seconds", "When the newest report was made; 0: never", ("kind", "version")
)
DELIVERED, WITHOUT_TEXT, FAILED, DROPPED = "delivered", "without_text", "failed", "dropped"
NOTIFICATIONS = Metric(
    "kanaria_notifications_total",
    "Messages to people about decisions: delivered, delivered as a title because the text could not be written, tries "
    "that failed, and those given up because too many waited",
    ("outcome",),
)
NOTIFICATION_OVERDUE = Metric(
    "kanaria_notification_overdue_seconds",
    "How long the oldest message to people waits to be delivered, or nothing could be read; 0: neither",
)
DRIFT_CRASHES = Metric("kanaria_drift_report_crashes_total", "Scheduled reports that crashed or were killed", ("kind",))
DRIFT_SCORE = Metric(
    "kanaria_drift_score",
    "Distance of a column from its reference, 0-1; higher is worse",
    ("kind", "version", "column"),
)
DRIFT_THRESHOLD = Metric(
    "kanaria_drift_threshold", "Score from which a column may count as drifted", ("kind", "version", "column")
)
DRIFT_DIRECTION = Metric(
    "kanaria_drift_direction", "1: values rose, -1: they fell, 0: neither", ("kind", "version", "column")
)
DRIFT_DRIFTED = Metric(
    "kanaria_drift_drifted",
    "1 when the score reaches its threshold and chance does not explain it",
    ("kind", "version", "column"),
)

# Of the judge server.
JUDGE_ANSWERS = Metric("kanaria_judge_answers_total", "Questions answered, by verdict", ("verdict",))
JUDGE_REFUSED = Metric(
    "kanaria_judge_refused_total",
    "Requests refused, by HTTP status and by what was wrong: a question, a route that there is none of, or a page; "
    "Argo Rollouts waits silently then",
    ("status", "reason"),
)
JUDGE_ASKED = Metric(
    "kanaria_judge_last_asked_timestamp_seconds", "When the judge was asked last; before the first question: its start"
)
JUDGE_RELEASES = Metric("kanaria_judge_releases", "Releases that were asked about lately, whose evidence is in memory")
JUDGE_QUARANTINED = Metric("kanaria_judge_quarantined", "Versions that failed and are kept in quarantine")
JUDGE_VERDICT = Metric(
    "kanaria_judge_verdict",
    "1 for the last verdict about a release, `namespace/name`, and its canary",
    ("release", "canary", "verdict"),
)
JUDGE_SECONDS = Histogram(
    "kanaria_judge_answer_seconds",
    "Time that an answer took",
    bounds=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
)
