"""All releases that the judge is asked about. Folded windows are kept for releases with frequent questions."""

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog

from contract.metrics import JUDGE_RELEASES, JUDGE_VERDICT
from rollout.errors import SourceUnreachable, SpecError
from rollout.format import weight
from rollout.judge import Verdict
from rollout.server.answers import answer_object, with_notes
from rollout.server.evidence import Answer, Evidence, NeverSeen
from rollout.server.hosts import namespace_of
from rollout.server.kept import Attempt, Failure
from rollout.server.quarantine import Quarantine, Seen
from rollout.server.questions import JudgeBody, Plan
from rollout.signals.folding import Uncountable
from rollout.signals.profile import Profile
from rollout.sources.raw_samples import RawSamples

log = structlog.get_logger()

_MOST_KNOWN = 500  # releases whose windows are kept
_MOST_PLANS = 100  # parsed plans that are cached
_FORGOTTEN_AFTER_S = 3600.0
_MOST_SHOWN = 200  # failures, and releases of other replicas, on one page
_SHOWN_S = 60.0  # how long an answer about a weight is shown: engines ask every 15 s


@dataclass(slots=True)
class Known:
    """A release about which the judge was asked."""

    attempt: Attempt
    stable: str
    evidence: Evidence
    began_s: float | None = None  # the earliest start of its evidence, Unix seconds; None: unknown
    asked_s: float = 0.0  # on the monotonic clock
    answered_s: float = 0.0  # Unix seconds
    answer: Answer | None = None  # the answer that people are shown
    to_percent: float | None = None  # the weight that `answer` is about; None: whether there is harm

    @property
    def asked_whether(self) -> str:
        return "whether it does harm" if self.to_percent is None else f"whether {weight(self.to_percent)} is safe"

    def show(self, answer: Answer, to_percent: float | None) -> None:
        """Show an answer, unless it comes from a background analysis right after an answer about a weight."""
        now_s = time.time()
        is_less = to_percent is None and self.to_percent is not None and answer.verdict is not Verdict.FAIL
        if not is_less or now_s - self.answered_s > _SHOWN_S:
            self.answer, self.to_percent, self.answered_s = answer, to_percent, now_s


@dataclass(frozen=True, slots=True, order=True)
class Elsewhere:
    """The last verdict of another replica, read from Prometheus."""

    release: str  # namespace/name
    canary: str
    verdict: str
    pod: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question with a valid plan and profile, and what the quarantine says about it."""

    asked: JudgeBody
    attempt: Attempt
    profile: Profile
    plan: Plan
    seen: Seen
    notes: list[str]
    answer: dict[str, Any] | None  # set if the version failed before


class Releases:
    """Answers questions about any number of releases.

    Args:
        samples: the metric store.
        profiles: by name.
        kept: the store for what outlives the samples.
        url: the URL under which people reach the pages.
        pod: the name of this process's pod in Prometheus.
    """

    def __init__(
        self, samples: RawSamples, profiles: Mapping[str, Profile], kept: Quarantine, *, url: str, pod: str = ""
    ) -> None:
        self._samples, self._profiles, self._kept, self._url = samples, profiles, kept, url.rstrip("/")
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._lock = threading.Lock()
        self._namespace, self._pod = namespace_of(url), pod
        self._plan = lru_cache(_MOST_PLANS)(self._read_plan)  # engines send the same plan with each question

    def judge(self, asked: JudgeBody, *, attempt_of: str = "") -> dict[str, Any]:
        """The answer to a question, as an object. A canary that was never seen gives NO_DATA.

        Args:
            attempt_of: tells this try of the canary from other tries with the same name.

        Raises: what `question` and `judged` raise.
        """
        question = self.question(asked, attempt_of=attempt_of)
        return question.answer or self.judged(question)

    def question(self, asked: JudgeBody, *, attempt_of: str = "") -> Question:
        """Check a question, and whether the version failed before. This needs no metric store.

        Raises: SpecError if the plan or profile cannot be used; LedgerError.
        """
        profile = self._profile(asked.profile)
        plan = self._plan(asked.plan if isinstance(asked.plan, str) else json.dumps(asked.plan or {}), asked.profile)
        attempt = Attempt(asked.namespace, asked.rollout, asked.canary, attempt_of, asked.digest)
        seen = self._kept.look(attempt)
        failure, notes = self._kept.failure(attempt, self.report_url(attempt), seen)
        answer = with_notes(failure.answer, notes) if failure else None
        if answer:
            try:
                self._start(attempt, seen)
            except SourceUnreachable as error:  # the failure is still answered
                log.warning("start_not_noted", error=error.what, saw=error.saw)
        return Question(asked, attempt, profile, plan, seen, notes, answer)

    def judged(self, question: Question, *, must_be_seen: bool = False) -> dict[str, Any]:
        """The answer from the samples.

        Args:
            must_be_seen: raise NeverSeen if the canary has no samples.

        Raises: SourceUnreachable, LedgerError.
        """
        asked, attempt, notes = question.asked, question.attempt, question.notes
        report = self.report_url(attempt)
        if asked.canary == asked.stable:
            same = Answer(Verdict.NO_DATA, f"no data: canary and stable are the same version, {asked.canary}")
            return with_notes(answer_object(same, report), notes)
        self._start(attempt, question.seen)
        known = self._of(question)
        try:
            answer = known.evidence.answer(asked.to_percent, own_clock_s=time.time())
        except (NeverSeen, Uncountable) as error:
            if must_be_seen and isinstance(error, NeverSeen):
                raise
            answer = Answer(Verdict.NO_DATA, f"{error.what} ({error.saw}): {error.do}")
        known.show(answer, asked.to_percent)
        said = answer_object(answer, report)
        if answer.verdict is Verdict.FAIL:
            if self._kept.started_anew_s(attempt) != known.began_s:  # lifted while it was judged
                return self.judge(asked, attempt_of=attempt.of)
            notes = self._kept.keep(Failure(attempt, now_s(self._samples), said))
        return with_notes(said, notes)

    def last_failure(self, names: tuple[str, str, str]) -> Failure | None:
        """The newest failure of any try of a version that this replica knows, for any question."""
        return next(iter(self.failures_of(names)), None)

    def may_have_first_weight(self, attempt: Attempt, said: Mapping[str, Any]) -> bool:
        """Whether a canary without traffic so far may get some: once per try, otherwise it would never be judged.

        Args:
            said: the answer about it. A canary that is not scraped has no requests at any weight.

        Raises: SourceUnreachable.
        """
        requests = said["signals"].get("errors", {}).get("canary", (0, 0))[1]
        if said["verdict"] != Verdict.NO_DATA.value or requests:
            return False
        return self._kept.give_first_weight(attempt, self._samples.now_s())

    def take_first_weight_back(self, attempt: Attempt) -> None:
        """Undo the permission, because its answer was not received. Raises LedgerError."""
        self._kept.take_first_weight_back(attempt)

    def lift(self, attempt: Attempt) -> tuple[int, list[str]]:
        """Allow a version to be tried again; see `Quarantine`. This needs no metric store."""
        notes = []
        try:
            at_s = self._samples.now_s()
        except SourceUnreachable as error:
            at_s = time.time()
            notes.append(f"{error.what}: the lift has the time of the judge's own clock, not of Prometheus's")
        lifted, more = self._kept.lift(attempt, at_s)
        with self._lock:
            for key, known in list(self._known.items()):
                if known.attempt.names == attempt.names:
                    del self._known[key]
        return lifted, notes + more

    def check(self) -> None:
        """Check that this machine can answer questions. Raises LedgerError."""
        self._kept.check()

    def all(self) -> list[Known]:
        """The releases with recent questions, newest first."""
        with self._lock:
            self._forget()
            return [known for known in reversed(self._known.values()) if known.answer]

    def quarantined(self) -> int:
        """The number of failures in quarantine."""
        return self._kept.count()

    def failures(self) -> list[Failure]:
        """The newest failures in quarantine."""
        return self._kept.failures(most=_MOST_SHOWN)

    def not_shown(self) -> int:
        """The number of failures that are older than those of `failures`."""
        return max(0, self._kept.count() - _MOST_SHOWN)

    def failures_of(self, names: tuple[str, str, str]) -> list[Failure]:
        """The failures of a version, newest first."""
        return self._kept.failures_of(names)

    @property
    def shares(self) -> bool:
        """Whether one lift holds for all replicas."""
        return self._kept.is_shared

    def elsewhere(self) -> list[Elsewhere]:
        """Releases about which only other replicas were asked; empty while Prometheus cannot be reached.

        The same Prometheus may scrape other judges. Replicas of this judge are in the namespace that its URL names, and
        in the job that scrapes this pod, if it is scraped.
        """
        here = f'namespace=~"{self._namespace}|"' if self._namespace else ""
        verdicts = f"{JUDGE_VERDICT}{{{here}}} == 1"
        this = f"{JUDGE_RELEASES}{{{here}{here and ','}pod={json.dumps(self._pod)}}}"
        try:
            found = self._samples.labels(f"{verdicts} and on (namespace, job) {this} or {verdicts} unless on () {this}")
        except SourceUnreachable:
            return []
        attempts = [each.attempt for each in self.all()] + [each.attempt for each in self.failures()]
        own = {(f"{each.namespace}/{each.rollout}", each.canary) for each in attempts}
        said = {Elsewhere(*(labels.get(name, "") for name in (*JUDGE_VERDICT.labels, "pod"))) for labels in found}
        return sorted(each for each in said if (each.release, each.canary) not in own)[:_MOST_SHOWN]

    def report_url(self, attempt: Attempt) -> str:
        """The page about a release."""
        return f"{self._url}/releases/{attempt.namespace}/{attempt.rollout}/{attempt.canary}"

    def _profile(self, name: str) -> Profile:
        if name not in self._profiles:
            raise SpecError(
                "there is no such metric profile",
                saw=name[:100],
                do=f"ask with one of: {', '.join(self._profiles)}; `--profiles` names a folder with your own",
            )
        return self._profiles[name]

    def _read_plan(self, text: str, profile: str) -> Plan:
        return Plan.of(text, self._profile(profile))

    def _start(self, attempt: Attempt, seen: Seen) -> None:
        """Store that a named try runs: its evidence starts now, unless it is already the newest try.

        Raises: SourceUnreachable, LedgerError.
        """
        if attempt.of:
            self._kept.start(attempt, self._samples.now_s, seen)

    def _of(self, question: Question) -> Known:
        """The record of this release under this plan; a new one if there is none."""
        asked, attempt = question.asked, question.attempt
        started_s = self._kept.started_s(attempt)
        key = json.dumps([*attempt.key, started_s, asked.stable, asked.profile, asked.plan], sort_keys=True)
        with self._lock:
            known = self._known.pop(key, None)
            if known is None:
                begins_s = -math.inf if started_s is None else started_s
                evidence = Evidence(self._samples, question.profile, asked.names, question.plan, not_before_s=begins_s)
                known = Known(attempt, asked.stable, evidence, started_s)
            known.asked_s = time.monotonic()
            self._known[key] = known
            self._forget()
        return known

    def _forget(self) -> None:
        """Drop releases without recent questions. The lock is held."""
        since_s = time.monotonic() - _FORGOTTEN_AFTER_S
        while self._known and (len(self._known) > _MOST_KNOWN or next(iter(self._known.values())).asked_s < since_s):
            self._known.popitem(last=False)


def now_s(samples: RawSamples) -> float:
    """The time by the metric store's clock, or by this machine's if the store cannot be reached."""
    try:
        return samples.now_s()
    except SourceUnreachable:
        return time.time()
