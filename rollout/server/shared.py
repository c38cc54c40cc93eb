"""What replicas of the judge tell each other about the tries of a Rollout's or Canary's versions. Pure."""

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, FiniteFloat, RootModel

from rollout.server.kept import Attempt

_MOST = 10  # entries that are kept, the newest ones


class Shared(BaseModel):
    """What is known of one try of a version; times are those of the metric store, Unix seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    failed_s: FiniteFloat | None = None
    reason: str = ""
    since: str | None = None
    lifted_s: FiniteFloat | None = None  # all failures of the version up to then; only where its bare name is the key
    first_weight_s: FiniteFloat | None = None

    @property
    def at_s(self) -> float:
        return max(filter(None, (self.failed_s, self.lifted_s, self.first_weight_s)), default=0.0)


class Tries(RootModel[dict[str, Shared]]):
    """All that is shared about one Rollout or Canary."""

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
        given = {
            key: one.first_weight_s
            for key, one in self.root.items()
            if _canary(key) == attempt.canary and one.first_weight_s is not None
        }
        key = _try(attempt)
        if key in given and given[key] == max(given.values()):
            return self
        known = self.root.get(key, Shared())
        return self._newest({**self.root, key: known.model_copy(update={"first_weight_s": at_s})})

    @staticmethod
    def _newest(tries: Mapping[str, Shared]) -> "Tries":
        newest = sorted(tries.items(), key=lambda item: (item[1].at_s, item[0]))[-_MOST:]
        return Tries(dict(newest))


def _try(attempt: Attempt) -> str:
    return f"{attempt.canary}@{attempt.of}" if attempt.of else attempt.canary


def _key(attempt: Attempt) -> str:
    return f"{_try(attempt)}#{attempt.asked}" if attempt.asked else _try(attempt)


def _canary(key: str) -> str:
    return key.partition("@")[0].partition("#")[0]
