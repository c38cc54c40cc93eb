"""What this process counts, as Prometheus metrics that exist at 0 before the first request.

`prometheus_client` decides at import whether it works for several processes, and BentoML sets that up
after it has imported the service: it is imported when `Metrics` is made, never before (BentoML issue 5056).
"""

import os
import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import psutil

from service.kinds import AnswerKind, Prediction

Endpoint = Literal["predict", "feedback"]
ENDPOINTS: tuple[Endpoint, ...] = ("predict", "feedback")
STATUS_CLASSES = ("2xx", "4xx", "5xx")
DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The counters of one served version.

    Args:
        version: the Bento tag, the label of every series.
        model: the tag of the model in that Bento.
        answer: which classes answers are counted as.
        engine: what the model runs on.
    """

    def __init__(self, version: str, model: str, answer: AnswerKind, *, engine: str = "eager") -> None:
        import prometheus_client as prometheus  # noqa: PLC0415 - see the module docstring

        requests = prometheus.Counter("kanaria_requests", "Requests answered", ("version", "endpoint", "status_class"))
        duration = prometheus.Histogram(
            "kanaria_request_duration_seconds",
            "Time from the request's head to its answer",
            ("version", "endpoint"),
            buckets=DURATION_BUCKETS_S,
        )
        predictions = prometheus.Counter(
            "kanaria_predictions", "Rows answered with each label, or with a number in each bin", ("version", "label")
        )
        confidence = prometheus.Histogram(
            "kanaria_confidence", "Confidence of each answered row", ("version",), buckets=CONFIDENCE_BUCKETS
        )
        feedback = prometheus.Counter(
            "kanaria_feedback", "Rows whose truth came, by the version that answered", ("version", "outcome")
        )
        disagreement = prometheus.Counter(
            "kanaria_disagreement",
            "Rows of requests that another version answered too, by whether its answer was the same",
            ("version", "outcome"),
        )
        dropped = prometheus.Counter(
            "kanaria_answers_dropped",
            "Answers that nothing can be joined to, because they could not be kept",
            ("version",),
        )
        log_dropped = prometheus.Counter(
            "kanaria_prediction_log_dropped", "Rows that the prediction log could not keep", ("version",)
        )
        info = prometheus.Gauge(
            "kanaria_model_info",
            "1 for the model that is served and the engine that it runs on",
            ("version", "model", "engine"),
            multiprocess_mode="max",
        )
        info.labels(version, model, engine).set(1)
        # Each child is made now, so that it exists at 0 and costs no lookup by labels later.
        self._requests = {
            (endpoint, status_class): requests.labels(version, endpoint, status_class)
            for endpoint in ENDPOINTS
            for status_class in STATUS_CLASSES
        }
        self._duration = {endpoint: duration.labels(version, endpoint) for endpoint in ENDPOINTS}
        self._class_of = answer.class_of
        self._predictions = {name: predictions.labels(version, name) for name in answer.classes}
        self._confidence = confidence.labels(version)
        self._correct, self._wrong = feedback.labels(version, "correct"), feedback.labels(version, "wrong")
        self._same, self._different = (disagreement.labels(version, outcome) for outcome in ("same", "different"))
        self._dropped = dropped.labels(version)
        self._log_dropped = log_dropped.labels(version)

    def count_request(self, endpoint: Endpoint, status: int, duration_s: float) -> None:
        self._requests[endpoint, f"{status // 100}xx"].inc()
        self._duration[endpoint].observe(duration_s)

    def count_predictions(self, predictions: list[Prediction]) -> None:
        names = Counter(self._class_of(prediction.label) for prediction in predictions)
        found = [(self._predictions[name], rows) for name, rows in names.items()]  # all or, for an unknown one, none
        for series, rows in found:
            series.inc(rows)
        confidences = [confidence for prediction in predictions if (confidence := prediction.confidence) is not None]
        _observe(self._confidence, confidences)

    def count_feedback(self, *, correct: int, wrong: int) -> None:
        """Count rows, not requests."""
        self._correct.inc(correct)
        self._wrong.inc(wrong)

    def count_disagreement(self, *, same: int, different: int) -> None:
        """Count rows, not requests."""
        self._same.inc(same)
        self._different.inc(different)

    def count_dropped(self, answers: int) -> None:
        self._dropped.inc(answers)

    def count_log_dropped(self, rows: int) -> None:
        self._log_dropped.inc(rows)


def _observe(histogram: Any, values: Sequence[float]) -> None:
    """What `histogram.observe` does with each value, in one step for each bucket: 32 rows cost as much as three."""
    histogram._sum.inc(sum(values))  # noqa: SLF001 - prometheus_client observes one value at a time
    for bucket, count in Counter(bisect_left(histogram._upper_bounds, value) for value in values).items():  # noqa: SLF001 - as above
        histogram._buckets[bucket].inc(count)  # noqa: SLF001 - as above


def use_own_multiprocess_dir() -> None:
    """Give the workers of this server a folder for their counters that no other server shares.

    BentoML uses one folder per BENTOML_HOME and empties it whenever a server starts: the counters of a
    version that already serves would vanish. The folder is named after the process that started the
    workers; folders of servers that are gone are removed. Does nothing outside BentoML's workers.
    """
    if MULTIPROCESS_DIR not in os.environ:
        return
    shared = Path(os.environ[MULTIPROCESS_DIR])
    for folder in shared.parent.glob(f"{shared.name}.*"):
        if not _is_running(folder.suffix[1:]):
            shutil.rmtree(folder, ignore_errors=True)
    own = shared.with_name(f"{shared.name}.{_identity(psutil.Process(os.getppid()))}")
    own.mkdir(parents=True, exist_ok=True)
    os.environ[MULTIPROCESS_DIR] = str(own)


def _identity(process: psutil.Process) -> str:
    return f"{process.pid}-{process.create_time():.0f}"  # process ids come back, with another start time


def _is_running(identity: str) -> bool:
    try:
        return _identity(psutil.Process(int(identity.partition("-")[0]))) == identity
    except psutil.Error:
        return False
