"""Kanaria's own metrics: name, meaning and labels of each, for the code that exports them and the code that reads them.

The data plane's metrics are not declared here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. `str(metric)` is its name, for use in queries."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its series."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Histogram(Metric):
    """A metric whose events are counted in cumulative buckets."""

    bounds: tuple[float, ...] = ()  # upper bounds of its buckets, rising

    @property
    def bucket(self) -> str:
        """The series of its buckets, one for each value of the label `le`."""
        return f"{self.name}_bucket"

    @property
    def count(self) -> str:
        """The series that counts all its events."""
        return f"{self.name}_count"

    @property
    def sum(self) -> str:
        """The series of the sum of its events' values."""
        return f"{self.name}_sum"

    @property
    def series(self) -> tuple[str, ...]:
        return self.bucket, self.count, self.sum


# Of a model's server, labelled by the Bento tag that it serves. They exist at 0 before the first request. The label for
# a path is `route`, as in the gateway's metrics, because prometheus-operator gives targets a label `endpoint`.
REQUESTS = Metric("kanaria_requests_total", "Requests answered", ("version", "route", "status_class"))
REQUEST_DURATION = Histogram(
    "kanaria_request_duration_seconds",
    "Time from a request's headers to its answer",
    ("version", "route"),
    bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
PREDICTIONS = Metric(
    "kanaria_predictions_total",
    "Requests answered with each label, or with a number in each bin; one random row of each counts",
    ("version", "label"),
)
CONFIDENCE = Histogram(
    "kanaria_confidence",
    "Confidence of one row of each answered request",
    ("version",),
    bounds=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
)
CORRECT, WRONG = "correct", "wrong"
MOST_CALLERS = 20  # callers with series of their own, by the names of their keys
OTHER_CALLERS = "other"  # all other callers; a label from an unknown caller has an empty name
FEEDBACK = Metric(
    "kanaria_feedback_total",
    "Requests with feedback, by the version that answered and the caller that labelled; one random row of each counts",
    ("version", "outcome", "caller"),
)
LABEL_AGES_S = (10.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 21_600.0, 86_400.0)  # ages of answers at which labels count
CAME, LATE = "came", "late"
LABELS = Metric(
    "kanaria_labels_total",
    "Requests with feedback, for each age of an answer: `came` before that age, and `correct` or `wrong` "
    "once it is reached, or `late`; `correct` and `wrong` by the caller that labelled",
    ("version", "age_s", "outcome", "caller"),
)
SAME, DIFFERENT = "same", "different"
DISAGREEMENT = Metric(
    "kanaria_disagreement_total",
    "Requests that another version also answered, by whether its answer was the same; one row of each counts",
    ("version", "outcome"),
)
BETTER, WORSE = "better", "worse"
PAIRED_LABELS = Metric(
    "kanaria_paired_labels_total",
    "Labelled requests for which either this version or the other was right, but not both; one row of each counts",
    ("version", "outcome", "caller"),
)
ANSWERS_DROPPED = Metric(
    "kanaria_answers_dropped_total",
    "Answers that could not be kept, or not compared with their feedback or with another version's answer",
    ("version",),
)
PREDICTION_LOG_DROPPED = Metric(
    "kanaria_prediction_log_dropped_total", "Rows that the prediction log could not keep", ("version",)
)
LOG_THREADS = ("answers", "predictions")
LOG_FAILURES = Metric(
    "kanaria_log_failures_total",
    "Failures of the threads that write answers and the prediction log; the threads continue",
    ("version", "thread"),
)
MODEL_INFO = Metric(
    "kanaria_model_info",
    "1 for the served model and the engine on which it runs",
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

# Of the observer, which compares the answers of versions that export no counts. It also counts DISAGREEMENT.
OBSERVER_REPEATS = Metric(
    "kanaria_observer_repeats_total",
    "Requests that stable was asked twice, by whether its answers were the same",
    ("version", "outcome"),
)
COMPARED, SKIPPED, UNPAIRED, AMBIGUOUS, CUT = OBSERVED = ("compared", "skipped", "unpaired", "ambiguous", "cut")
OBSERVER_ANSWERS = Metric(
    "kanaria_observer_answers_total",
    "Answers that reached the observer: `compared` with stable's, `skipped` because there were too many, `unpaired` "
    "because the other answer or room was missing, `ambiguous` because a request id came twice, or `cut`",
    ("outcome",),
)
OBSERVER_WAITING = Metric("kanaria_observer_waiting_bytes", "Answers that wait for the answer to compare them with")
UNKNOWN_LABELS = Metric(
    "kanaria_observer_unknown_labels_total",
    "Labels for answers that the observer does not have: their requests did not reach it, or never existed",
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
    "Requests that reached `kanaria record`: `kept`, already `known`, `too_large`, `unsuccessful` because stable did "
    "not succeed, `private` because the path holds a secret, `unwritten` because writing failed, or `cut`",
    ("outcome",),
)

# Of the controller.
LAST_BEAT = Metric("kanaria_controller_last_beat_timestamp_seconds", "Last beat of the control loop")
FAILED_BEATS = Metric("kanaria_controller_failed_beats_total", "Beats of the control loop that failed")
FAILED_IN_A_ROW = Metric("kanaria_controller_failed_beats_in_a_row", "Failed beats since the last that succeeded")
UNWRITTEN = Metric("kanaria_ledger_unwritten_events", "Events that could not be written to the ledger yet")
FREE_BYTES = Metric("kanaria_state_folder_free_bytes", "Free space on the file system of the state folder")
GATEWAY_SILENT = Metric(
    "kanaria_gateway_silent_seconds", "For how long the gateway has not answered new clients; 0: it answers"
)
SOURCE_UNREACHABLE = Metric("kanaria_source_unreachable_total", "Failed readings of the metric source")
LEDGER_GONE = Metric("kanaria_ledger_gone", "1 while the ledger's file is missing and could not be restored")
UNJUDGED = Metric(
    "kanaria_controller_unjudged_seconds",
    "For how long the running release has not been judged; 0: it is judged, or none is running",
)
LEDGER_COPIED = Metric(
    "kanaria_ledger_last_backup_timestamp_seconds", "When the ledger was last copied, or found to be copied already"
)
LEDGER_COPY_FAILURES = Metric(
    "kanaria_ledger_backup_failures_in_a_row", "Failed copies of the ledger since the last that succeeded"
)
LEDGER_EVENTS = Metric("kanaria_ledger_events", "Events in the ledger")
LEDGER_HEAD = Metric(
    "kanaria_ledger_head", "Beginning of the hash of the ledger's last event, as a number: `kanaria ledger check --at`"
)
CERTIFICATE_EXPIRES = Metric(
    "kanaria_certificate_expires_timestamp_seconds",
    "When the certificate that new clients get expires; absent for a service without one",
    ("service",),
)
CERTIFICATE_LIFETIME = Metric(
    "kanaria_certificate_lifetime_seconds", "The whole period for which that certificate is valid", ("service",)
)
ROUTER_FAILURES = Metric("kanaria_router_failures_total", "Splits that the data plane refused")
SIGNATURE_REFUSED = Metric("kanaria_signature_refused_total", "Versions not started because of their signature")
VERSION_UP = Metric(
    "kanaria_version_up",
    "1 if the version answers its readiness probe, 0 if not; absent for a canary that is loading",
    ("version", "role"),
)

OBSERVER_SHARE = Metric(
    "kanaria_observer_share_ratio", "Share of requests whose answers the gateway passes to the observer; NaN: unknown"
)
OBSERVER_MISSED = Metric(
    "kanaria_observer_missed_total",
    "Answers that the gateway could not pass to the observer, because it was down or too many were under way",
)

# Of the newest release, exported by the controller. `version` is its canary.
RELEASE_INFO = Metric("kanaria_release_info", "1 for the newest release", ("release", "canary", "stable"))
RELEASE_STATE = Metric("kanaria_release_state", "1 for the phase of the newest release", ("state",))
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
    "Messages to people about decisions: delivered, delivered with only a title because the text could not be written, "
    "failed tries, and dropped because too many waited",
    ("outcome",),
)
NOTIFICATION_OVERDUE = Metric(
    "kanaria_notification_overdue_seconds",
    "How long the oldest message to people has waited, or the messages could not be read; 0: neither",
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
    "1 if the score reaches its threshold and chance does not explain it",
    ("kind", "version", "column"),
)

# Of the judge server.
JUDGE_ANSWERS = Metric("kanaria_judge_answers_total", "Questions answered, by verdict", ("verdict",))
JUDGE_REFUSED = Metric(
    "kanaria_judge_refused_total",
    "Requests refused, by HTTP status and by what was wrong: a question, an unknown route, or a page; "
    "Argo Rollouts then waits silently",
    ("status", "reason"),
)
JUDGE_ASKED = Metric(
    "kanaria_judge_last_asked_timestamp_seconds", "When the judge was last asked; before the first question: its start"
)
JUDGE_RELEASES = Metric("kanaria_judge_releases", "Releases with recent questions, whose evidence is in memory")
JUDGE_QUARANTINED = Metric("kanaria_judge_quarantined", "Versions that failed and are kept in quarantine")
JUDGE_VERDICT = Metric(
    "kanaria_judge_verdict",
    "1 for the last verdict about a release, `namespace/name`, and its canary",
    ("release", "canary", "verdict"),
)
JUDGE_SECONDS = Histogram(
    "kanaria_judge_answer_seconds",
    "Time to answer a question",
    bounds=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
)
