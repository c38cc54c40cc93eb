"""Between the judge's own types and what the ledger stores of them. Pure."""

from collections.abc import Sequence

from rollout.events import CountsRecord, EvidenceRecord, SignalRecord, Ticked
from rollout.judge import Judgement, Pair, Window


def window_records(windows: Sequence[Window]) -> tuple[CountsRecord, ...]:
    """What a tick stores of its windows."""
    return tuple(
        CountsRecord(
            signal=window.signal,
            stable=(window.stable.bad, window.stable.total),
            canary=(window.canary.bad, window.canary.total),
        )
        for window in windows
    )


def recorded_windows(tick: Ticked) -> list[Window]:
    """The windows of a stored tick, as the judge saw them."""
    return [
        Window(
            end_s=tick.at_s,
            window_s=tick.window_s,
            signal=counts.signal,
            stable=Pair(*counts.stable),
            canary=Pair(*counts.canary),
        )
        for counts in tick.counts
    ]


def evidence_record(judgement: Judgement) -> EvidenceRecord:
    """What a decision stores of the judgement that it rests on."""
    return EvidenceRecord(
        verdict=judgement.verdict.value,
        reason=judgement.reason,
        log_e=judgement.log_e,
        threshold=judgement.threshold,
        failed_log_e=judgement.failed_log_e,
        signals={
            name: SignalRecord(
                verdict=signal.verdict.value,
                log_e=signal.log_e,
                threshold=signal.threshold,
                stable=(signal.stable.bad, signal.stable.total),
                canary=(signal.canary.bad, signal.canary.total),
                excess_upper=signal.excess_upper,
                more_requests_needed=signal.more_requests_needed,
                limit=signal.limit,
            )
            for name, signal in judgement.signals.items()
        },
    )
