"""What replicas of the judge tell each other about the tries of a release's versions. Pure."""

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, FiniteFloat, RootModel, ValidationError

from rollout.server.kept import Attempt

_MOST = 10  # entries of a release that are kept, the newest ones
_MOST_BYTES = 200_000  # of all releases: a replica reads them with each question
AHEAD_S = 60.0  # of the clock, what is written down may be: clocks differ a little


class Shared(BaseModel):
    """What is known of one try of a version; times are those of the metric store, Unix seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    failed_s: FiniteFloat | None = None
    reason: str = ""
    since: str | None = None
    lifted_s: FiniteFloat | None = None  # all failures of the version up to then; only where its bare name is the key
    began_s: FiniteFloat | None = None
    first_weight_s: FiniteFloat | None = None

    @property
    def at_s(self) -> float:
        return max(filter(None, (self.failed_s, self.lifted_s, self.began_s, self.first_weight_s)), default=0.0)


class Tries(RootModel[dict[str, Shared]]):
    """All that is shared about one release."""

    @property
    def at_s(self) -> float:
        return max((one.at_s for one in self.root.values()), default=0.0)

    def lifted_s(self, attempt: Attempt) -> float:
        """Until when the failures of a version are lifted; -inf: nobody lifted any."""
        return self.root.get(attempt.canary, Shared()).lifted_s or -math.inf

    def failure(self, attempt: Attempt, *, after_s: float) -> Shared | None:
        """The failure of an attempt. One that names no question holds for all: a person wrote it."""
        for key in (_key(attempt), _try(attempt)):
            found = self.root.get(key, Shared())
            if found.failed_s is not None and found.failed_s > after_s:
                return found
        return None

    def with_failure(self, attempt: Attempt, failed: Shared, *, after_s: float) -> "Tries":
        """Another failure; the first since the last lift counts."""
        if self.failure(attempt, after_s=after_s):
            return self
        known = self.root.get(_key(attempt), Shared())
        told = failed.model_dump(include={"failed_s", "reason", "since"})
        return self._newest({**self.root, _key(attempt): known.model_copy(update=told)})

    def with_lift(self, attempt: Attempt, at_s: float, *, up_to_s: float) -> "Tries":
        """The version is lifted, and what is shared about its tries up to a time is forgotten."""
        rest = {key: one for key, one in self.root.items() if _canary(key) != attempt.canary or one.at_s > up_to_s}
        lifted = rest.get(attempt.canary, Shared()).model_copy(update={"lifted_s": at_s})
        return self._newest({**rest, attempt.canary: lifted})

    def with_first_weight(self, attempt: Attempt, at_s: float) -> "Tries":
        """An attempt has its first weight; the same object: it had it, and no other build has had one since."""
        return self._with_newest(attempt, "first_weight_s", at_s)

    def with_start(self, attempt: Attempt, at_s: float) -> "Tries":
        """An attempt has begun; the same object: it had, and no other build has begun since."""
        return self._with_newest(attempt, "began_s", at_s)

    def began_s(self, attempt: Attempt, *, now_s: float) -> float | None:
        """When an attempt began; None: nobody said so, or another build has begun since."""
        began = self._times(attempt, "began_s", now_s)
        found = began.get(_try(attempt))
        return found if found == max(began.values(), default=None) else None

    def has_starts(self, attempt: Attempt, *, now_s: float) -> bool:
        """Whether any build of a version has begun."""
        return bool(self._times(attempt, "began_s", now_s))

    def _with_newest(self, attempt: Attempt, what: str, at_s: float) -> "Tries":
        known, key = self._times(attempt, what, at_s), _try(attempt)
        if key in known and known[key] == max(known.values()):
            return self
        one = self.root.get(key, Shared())
        return self._newest({**self.root, key: one.model_copy(update={what: at_s})})

    def _times(self, attempt: Attempt, what: str, now_s: float) -> dict[str, float]:
        """The times of one kind of a version's builds. Those ahead of the clock are not believed."""
        times = {key: getattr(one, what) for key, one in self.root.items() if _canary(key) == attempt.canary}
        return {key: at_s for key, at_s in times.items() if at_s is not None and at_s <= now_s + AHEAD_S}

    @staticmethod
    def _newest(tries: Mapping[str, Shared]) -> "Tries":
        newest = sorted(tries.items(), key=lambda item: (item[1].at_s, item[0]))[-_MOST:]
        return Tries(dict(newest))


def change_of(data: Mapping[str, str], key: str, tries: Tries) -> dict[str, str | None]:
    """What to change in the data of all releases, so that one has these tries; nothing: there is no room for them.

    The releases of which nothing was heard for longest make room: None for each.
    """
    whole = {**data, key: tries.model_dump_json(exclude_defaults=True)}
    too_much = sum(map(_size, whole.items())) - _MOST_BYTES
    gone: dict[str, str | None] = {}
    if too_much > 0:
        for old in sorted(whole, key=lambda each: _heard_s(whole[each])):
            gone[old] = None
            too_much -= _size((old, whole[old]))
            if too_much <= 0:
                break
    return {} if key in gone else {key: whole[key], **gone}


def _size(entry: tuple[str, str]) -> int:
    return sum(len(text.encode()) for text in entry)


def _heard_s(text: str) -> float:
    """When something was last told of a release. What cannot be read is a person's, and stays for longest."""
    try:
        return Tries.model_validate_json(text).at_s
    except ValidationError:
        return math.inf


def _try(attempt: Attempt) -> str:
    return f"{attempt.canary}@{attempt.of}" if attempt.of else attempt.canary


def _key(attempt: Attempt) -> str:
    return f"{_try(attempt)}#{attempt.asked}" if attempt.asked else _try(attempt)


def _canary(key: str) -> str:
    return key.partition("@")[0].partition("#")[0]
