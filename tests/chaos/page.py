"""Writes the page about all combinations, as Markdown."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks.markdown import table
from tests.chaos.combinations import Combination, left_out
from tests.chaos.faults import FAULTS
from tests.chaos.seen import Seen
from tests.chaos.states import CANARY
from tests.chaos.users import RATE
from tests.chaos.verdict import MOST_FAILING_S, did, failing_s, wrongs

PAGE = "chaos.md"
COMMAND = "make chaos"
HEADS = ("fault", "state", "failed of all requests", "failures of the bad version", "what the release did", "verdict")
RIGHT = "right"


def row(seen: Seen, one: Combination) -> tuple[str, ...]:
    """A row of the table."""
    failed = f"{len(seen.failures):,} of {seen.requests:,}"
    if seen.failures:
        failed += f", over {failing_s(seen):.1f} s"
    harm = f"{seen.bad_answers:,}, until {seen.bad_until_s:.1f} s" if one.state.is_bad else ""
    found = wrongs(seen, one.fault, one.state)
    return (one.fault.name, one.state.name, failed, harm, did(seen, one.state), _cell("; ".join(found)) or RIGHT)


def page(results: Mapping[Combination, Seen], planned: Sequence[Combination], *, machine: str) -> str:
    """Returns the whole page.

    Args:
        results: the results of the combinations that were run.
        planned: all combinations.
        machine: cores and system, in words.
    """
    done = [one for one in planned if one in results]
    rows = [row(results[one], one) for one in sorted(done, key=_place)]
    right = sum(cells[-1] == RIGHT for cells in rows)
    requests = sum(seen.requests for seen in results.values())
    failed = sum(len(seen.failures) for seen in results.values())
    took_s = sum(seen.took_s for seen in results.values())
    return f"""\
# Faults in every state of a release

Written by `{COMMAND}` on {machine}: the stacks ran for {took_s / 60:.0f} minutes in total, some in parallel.

**{right} of {len(rows)} combinations are right.** Each runs on its own real stack: Envoy, two versions served by
BentoML, Prometheus and Alertmanager. Users send {RATE:g} requests a second from before the release until after its end.
{failed:,} of {requests:,} requests failed. Failures that a bad version answered are not counted here; they have their
own column.
{_not_run(len(planned) - len(rows))}
A combination is right if all of these hold:

- A healthy version is promoted, or its release continues. It is never in quarantine, unless the fault is its own.
- A bad version is rolled back and put into quarantine.
- Each split that the gateway had was decided before and is in the ledger, in that order.
- What the judge or a person had decided is kept. A command that failed is not carried out later.
- A watch is not cut short.
- Requests fail only while a process that serves is dead or hangs, for at most
  {_limits()}.
  If everything is dead or hangs, they may fail until a second after `kanaria up`.
- `down` leaves no process behind, and `history` and `why` work afterwards.

While a version with one process loads again, it answers no request, unless the other version may answer. If that takes
too long, set `KANARIA_REPLICAS=2`. In a state called *bad*, most requests to the canary ({CANARY}) fail from the
moment of the fault on.

{table(HEADS, rows)}

## The faults

{table(("fault", "what it does", "what cannot serve meanwhile"), _faults())}

## Left out

{table(("fault", "state", "why"), _left_out(results, planned))}
"""


def _not_run(count: int) -> str:
    return f"**{count} more were not run**, for the reasons [below](#left-out).\n" if count else ""


def _limits() -> str:
    """How long requests may fail, for each thing that cannot serve."""
    return ", ".join(f"{most_s:g} s ({hurts.value})" for hurts, most_s in MOST_FAILING_S.items() if most_s)


def _place(one: Combination) -> int:
    """Sort key that keeps the rows of a fault together."""
    return [fault.name for fault in FAULTS].index(one.fault.name)


def _faults() -> list[tuple[str, ...]]:
    return [(fault.name, _cell(fault.does), fault.hurts.value) for fault in FAULTS]


def _left_out(results: Mapping[Combination, Seen], planned: Sequence[Combination]) -> list[tuple[str, ...]]:
    """The rows of the last table; states with the same reason share a row."""
    rows: list[tuple[str, ...]] = []
    for fault, states in left_out().items():
        by_reason: dict[str, list[str]] = defaultdict(list)
        for state, reason in states.items():
            by_reason[reason].append(state)
        for one in planned:
            if one.fault.name == fault and one not in results:
                by_reason[one.fault.why_not_here() or "there was no time left"].append(one.state.name)
        rows += [(fault, "; ".join(names), reason) for reason, names in by_reason.items()]
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
