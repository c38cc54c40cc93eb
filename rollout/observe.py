"""How many answers an observer is shown: those to a share of the requests, and to at most so many a second.

Which requests these are is drawn before a version is asked, so neither the version that answers nor what it answers
matters, and all answers to one request are shown or none is.
"""

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from contract.observation import MOST_PER_S
from rollout.format import count, share
from rollout.units import WRITTEN_BY_A_PERSON

DEFAULT_PER_S = 50
_LEAST = 0.001  # share
_HOW = f"write a share from 0.1% to 100%, such as 10%, or requests a second, from 1/s to {MOST_PER_S}/s, such as 20/s"


class Observe(BaseModel):
    """Of which requests the answers are shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(default=1.0, ge=_LEAST, le=1)
    per_s: float = Field(default=DEFAULT_PER_S, ge=1, le=MOST_PER_S)  # requests

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """`10%` is a share of all, `50/s` a number."""
        if isinstance(value, dict) and info.context != WRITTEN_BY_A_PERSON:
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|/s)", value.strip()) if isinstance(value, str) else None
        number = float(match[1]) if match else 0.0
        is_share = match is not None and match[2] == "%"
        if is_share and _LEAST <= number / 100 <= 1:
            return {"share": number / 100, "per_s": MOST_PER_S}
        if match and not is_share and 1 <= number <= MOST_PER_S:
            return {"per_s": number}
        raise ValueError(_HOW)

    @classmethod
    def all_that_can_be(cls) -> Self:
        """Every answer, as long as one observer can take them."""
        return cls(share=1.0, per_s=MOST_PER_S)

    def share_at(self, requests_per_s: float) -> float:
        """The share of the requests, where so many come."""
        return min(self.share, self.per_s / max(requests_per_s, self.per_s))

    def __str__(self) -> str:
        """As people write it in a plan."""
        return f"{self.per_s:g}/s" if self.share == 1 else f"{100 * self.share:g}%"

    @property
    def words(self) -> str:
        """The same in a sentence, after `the answers to`."""
        if self.share == 1:
            return f"all requests while at most {count(int(self.per_s))} a second come, of more to as many a second"
        return f"{share(self.share)} of the requests, to at most {count(int(self.per_s))} a second"


BY_DEFAULT = Observe()
