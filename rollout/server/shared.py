"""What the judge's replicas share about the tries of a release's versions. Pure."""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, RootModel, ValidationError

from rollout.server.answers import cut
from rollout.server.kept import Attempt

_MOST = 10  # the newest lifts of a release that are kept, and as many of its other entries
_MOST_BYTES = 200_000  # of all releases: a replica reads them with each question
_MOST_OF_ALL = 1_000_000  # including what others wrote there; the limit of a ConfigMap is 1 MiB
_MOST_OF_ONE = 50_000  # the judge never writes a longer line for a release
_LONGEST_SINCE = 40  # characters
AHEAD_S = 60.0  # how far in the future a stored time may be: clocks differ a little


class Shared(BaseModel):
    """What is known about one try of a version. Times are by the metric store's clock, Unix seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    failed_s: FiniteFloat | None = None
    reason: Annotated[str, AfterValidator(cut)] = ""  # shown in answers; a person may have written it
    since: Annotated[str, AfterValidator(lambda text: text[:_LONGEST_SINCE])] | None = None
    lifted_s: FiniteFloat | None = None  # all failures of the version up to then are lifted; only under its plain name
    began_s: FiniteFloat | None = None
    first_weight_s: FiniteFloat | None = None

    @property
    def at_s(self) -> float:
        return max(filter(None, (self.failed_s, self.lifted_s, self.began_s, self.first_weight_s)), default=0.0)


class Tries(RootModel[dict[str, Shared]]):
    """Everything that is shared about one release."""

    @property
    def at_s(self) -> float:
        return max((one.at_s for one in self.root.values()), default=0.0)

    def lifted_s(self, attempt: Attempt) -> float:
        """The time up to which a version's failures are lifted; -inf: none were lifted."""
        return self.root.get(attempt.canary, Shared()).lifted_s or -math.inf

    def failure(self, attempt: Attempt, *, after_s: float) -> Shared | None:
        """The failure of an attempt. One without a question was written by a person and holds for all questions."""
        for key in (_key(attempt), _try(attempt)):
            found = self.root.get(key, Shared())
            if found.failed_s is not None and found.failed_s > after_s:
                return found
        return None

    def with_failure(self, attempt: Attempt, failed: Shared, *, after_s: float) -> "Tries":
        """Add a failure; the first one since the last lift counts."""
        if self.failure(attempt, after_s=after_s):
            return self
        known = self.root.get(_key(attempt), Shared())
        told = failed.model_dump(include={"failed_s", "reason", "since"})
        return self._with(_key(attempt), known.model_copy(update=told))

    def with_lift(self, attempt: Attempt, at_s: float, *, up_to_s: float) -> "Tries":
        """Lift the version, and drop what is shared about its tries up to a time."""
        rest = {key: one for key, one in self.root.items() if _canary(key) != attempt.canary or one.at_s > up_to_s}
        lifted = rest.get(attempt.canary, Shared()).model_copy(update={"lifted_s": at_s})
        return Tries({**rest, attempt.canary: lifted})

    def with_first_weight(self, attempt: Attempt, at_s: float) -> "Tries":
        """Give an attempt its first weight; the same object: it already had it, and no other build has since."""
        return self._with_newest(attempt, "first_weight_s", at_s)

    def with_own_first_weight(self, attempt: Attempt, at_s: float, *, now_s: float) -> "Tries":
        """Add a past first weight of an attempt; the same object: it is known, or another build has had one since."""
        known = self._times(attempt, "first_weight_s", now_s)
        if _try(attempt) in known or at_s < max(known.values(), default=at_s):
            return self
        return self._with_time(attempt, "first_weight_s", at_s)

    def without_first_weight(self, attempt: Attempt) -> "Tries":
        """Remove an attempt's first weight, because the permission was not received."""
        return self._with_time(attempt, "first_weight_s", None)

    def with_start(self, attempt: Attempt, at_s: float) -> "Tries":
        """Add the start of an attempt; the same object: it had started, and no other build has since."""
        return self._with_newest(attempt, "began_s", at_s)

    def began_s(self, attempt: Attempt, *, now_s: float) -> float | None:
        """The start of an attempt; None: unknown, or another build has started since."""
        began = self._times(attempt, "began_s", now_s)
        found = began.get(_try(attempt))
        return found if found == max(began.values(), default=None) else None

    def has_starts(self, attempt: Attempt, *, now_s: float) -> bool:
        """Whether any build of a version has started."""
        return bool(self._times(attempt, "began_s", now_s))

    def _with_newest(self, attempt: Attempt, what: str, at_s: float) -> "Tries":
        known = self._times(attempt, what, at_s)
        newest_s = max(known.values(), default=-math.inf)
        if known.get(_try(attempt)) == newest_s:
            return self
        # If a clock is a little ahead, another build may be newer than now, and each question would write again.
        return self._with_time(attempt, what, max(at_s, math.nextafter(newest_s, math.inf)))

    def _with_time(self, attempt: Attempt, what: str, at_s: float | None) -> "Tries":
        one = self.root.get(_try(attempt), Shared())
        return self._with(_try(attempt), one.model_copy(update={what: at_s}))

    def _with(self, key: str, one: Shared) -> "Tries":
        return self if self.root.get(key, Shared()) == one else Tries({**self.root, key: one})

    def _times(self, attempt: Attempt, what: str, now_s: float) -> dict[str, float]:
        """The times of one kind of a version's builds, without those in the future."""
        times = {key: getattr(one, what) for key, one in self.root.items() if _canary(key) == attempt.canary}
        return {key: at_s for key, at_s in times.items() if at_s is not None and at_s <= now_s + AHEAD_S}

    def newest(self) -> "Tries":
        """Only the newest entries. Lifts are counted separately, so that later failures never push a lift out."""
        in_order = sorted(self.root.items(), key=lambda item: (item[1].at_s, item[0]))
        lifts, others = (
            [item for item in in_order if (item[1].lifted_s is not None) is is_lift] for is_lift in (True, False)
        )
        return Tries(dict(lifts[-_MOST:] + others[-_MOST:]))


def change_of(data: Mapping[str, str], key: str, known: Tries, wanted: Tries) -> dict[str, str | None]:
    """The changes in the data of all releases so that `key` gets the wanted tries; empty: there is no room for them.

    The releases without news for longest are removed (None). Data that the judge cannot have written stays; it reduces
    the room only if the ConfigMap is full.
    """
    kept = wanted.newest()
    if any(one not in kept.root for one in wanted.root if wanted.root[one] != known.root.get(one)):
        return {}
    line = kept.model_dump_json(exclude_defaults=True)
    heard_s = {name: _heard_s(text) for name, text in data.items()} | {key: kept.at_s}
    whole = {**data, key: line}
    others = sum(_size(entry) for entry in whole.items() if heard_s[entry[0]] is None)
    ours = {name: at_s for name, at_s in heard_s.items() if at_s is not None}
    too_much = sum(_size((name, whole[name])) for name in ours) - min(_MOST_BYTES, _MOST_OF_ALL - others)
    gone: dict[str, str | None] = {}
    for old in sorted(ours, key=lambda each: ours[each]):
        if too_much <= 0:
            break
        gone[old] = None
        too_much -= _size((old, whole[old]))
    return {} if key in gone or too_much > 0 else {key: line, **gone}


def _size(entry: tuple[str, str]) -> int:
    return sum(len(text.encode()) for text in entry)


def _heard_s(text: str) -> float | None:
    """The time of the last news about a release; None: the judge did not write this text."""
    if len(text) > _MOST_OF_ONE:
        return None
    try:
        return Tries.model_validate_json(text).at_s
    except ValidationError:
        return None


def _try(attempt: Attempt) -> str:
    return f"{attempt.canary}@{attempt.of}" if attempt.of else attempt.canary


def _key(attempt: Attempt) -> str:
    return f"{_try(attempt)}#{attempt.asked}" if attempt.asked else _try(attempt)


def _canary(key: str) -> str:
    return key.partition("@")[0].partition("#")[0]
