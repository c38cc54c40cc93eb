"""Makes the JSON object of an answer, which engines store, in less than 4 kB."""

import json
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from rollout.explain.format import date
from rollout.format import in_order
from rollout.judge import Judgement, SignalJudgement, Verdict
from rollout.server.evidence import Answer

MOST_BYTES = 4000  # Argo Rollouts keeps the last ten answers in a resource of the cluster
_LONGEST_REASON = 1200  # bytes


def answer_object(answer: Answer, report: str) -> dict[str, Any]:
    """The object. The signals with the strongest evidence come first; those without room are only counted.

    Args:
        report: URL of the page with everything.
    """
    judgement = answer.judgement
    signals = _signals(judgement) if judgement else {}
    found: dict[str, Any] = {
        "verdict": answer.verdict.value,
        "reason": cut(answer.reason),
        "since": None if answer.since_s is None else date(answer.since_s),
        "signals": signals,
        "next": _next(judgement) if judgement and answer.verdict is Verdict.INCONCLUSIVE else None,
        "report": report,
        "notes": [cut(note) for note in answer.notes],
    }
    return _fitting(found)


def with_notes(said: dict[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """The same answer with more notes, within the limit: another replica, or a person, may have written it."""
    texts = {
        "reason": cut(said["reason"]),
        "since": said["since"] and cut(said["since"]),
        "notes": [cut(note) for note in (*said["notes"], *notes)],
    }
    return _fitting({**said, **texts, "signals": dict(said["signals"])})


def _fitting(found: dict[str, Any]) -> dict[str, Any]:
    """The same object within the limit: it drops signals first, then the last notes."""
    signals, left_out = [*found["signals"].items()], found.get("signals_left_out", 0)

    def without(last: int) -> dict[str, Any]:
        kept = {**found, "signals": dict(signals[: len(signals) - last])}
        return {**kept, "signals_left_out": left_out + last} if last else kept

    found = without(bisect_left(range(len(signals)), True, key=lambda last: _is_short(without(last))))
    while not _is_short(found) and found["notes"]:
        found["notes"].pop()
    return found


def _is_short(found: dict[str, Any]) -> bool:
    return len(json.dumps(found)) <= MOST_BYTES


def _rows(judgement: Judgement) -> list[tuple[str, SignalJudgement]]:
    """The signals, those with the strongest evidence of harm first."""
    return sorted(judgement.signals.items(), key=lambda item: (item[1].threshold - item[1].log_e, in_order(item[0])))


def _signals(judgement: Judgement) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "verdict": signal.verdict.value,
            "canary": list(signal.canary),
            "stable": list(signal.stable),
            "log_e": round(signal.log_e, 2),
            "threshold": round(signal.threshold, 2) if math.isfinite(signal.threshold) else None,
        }
        for name, signal in _rows(judgement)
    }


def _next(judgement: Judgement) -> dict[str, Any] | None:
    """How many more canary requests are needed, and how long they take, approximately; None: unknown."""
    waiting = [signal for signal in judgement.signals.values() if signal.more_requests_needed]
    if not waiting:
        return None
    last = max(waiting, key=lambda signal: signal.more_requests_needed or 0.0)
    more = last.more_requests_needed or 0.0
    if math.isinf(more):
        return {"requests": "never", "seconds": None}
    seconds = round(more / last.canary_per_s) if last.canary_per_s else None
    return {"requests": math.ceil(more), "seconds": seconds}


def cut(text: str) -> str:
    """The text, shortened so that it is short as JSON, in which a letter may take up to twelve bytes."""
    if len(json.dumps(text)) <= _LONGEST_REASON:
        return text
    kept = text[: _LONGEST_REASON - 5]
    while len(json.dumps(f"{kept}...")) > _LONGEST_REASON:
        kept = kept[:-1]
    return f"{kept}..."
