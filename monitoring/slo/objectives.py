"""The objectives of slo.yaml: validated when read, immutable afterwards."""

import re
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.types import PositiveFloat, PositiveInt

from contract.complaints import complaints
from monitoring.errors import RulesError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def seconds(duration: str) -> int:
    """`90s`, `5m`, `1h` or `3d` in seconds."""
    return int(duration[:-1]) * _UNITS_S[duration[-1]]


def _percent(value: Any) -> Any:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a share such as 99.9%")
    return float(match[1]) / 100


Duration = Annotated[str, StringConstraints(pattern=r"^[1-9]\d*[smhd]$")]
Selector = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}]*\})?$")]  # names one counter
Objective = Annotated[float, BeforeValidator(_percent), Field(gt=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BurnWindow(_Part):
    """Alert if the budget burned `burn_rate` times too fast over `long`, and still does over `short`."""

    long: Duration
    short: Duration
    burn_rate: PositiveFloat

    @model_validator(mode="after")
    def _short_is_shorter(self) -> Self:
        if seconds(self.short) >= seconds(self.long):
            raise ValueError(f"`short` ({self.short}) must be shorter than `long` ({self.long})")
        return self


class ReleaseWindow(BurnWindow):
    """Alert if only one version burns the budget: no other running version did so over `compared_over`."""

    compared_over: Duration

    @model_validator(mode="after")
    def _compared_is_longest(self) -> Self:
        if seconds(self.compared_over) <= seconds(self.long):
            raise ValueError(f"`compared_over` ({self.compared_over}) must be longer than `long` ({self.long})")
        return self


# SRE workbook, chapter 5, table 5-8; the third window is Sloth's. They spend 2, 5, 10 and 10 % of a 30-day budget.
FAST = (BurnWindow(long="1h", short="5m", burn_rate=14.4), BurnWindow(long="6h", short="30m", burn_rate=6))
SLOW = (BurnWindow(long="1d", short="2h", burn_rate=3), BurnWindow(long="3d", short="6h", burn_rate=1))
RELEASE = ReleaseWindow(long="5m", short="1m", compared_over="1h", burn_rate=14.4)


class Slo(_Part):
    """One objective: at least `objective` of all events are good."""

    objective: Objective
    bad_means: str  # completes the sentence "3 % ..." in an alert's summary
    total: Selector
    bad: Selector | None = None  # this or `good`
    good: Selector | None = None
    version_label: str = "version"  # the label of the counters that names the version at fault
    min_bad_events: PositiveInt = 10  # with fewer bad events there is no alert
    fast: tuple[BurnWindow, ...] = FAST  # page
    slow: tuple[BurnWindow, ...] = SLOW  # ticket
    release: ReleaseWindow | None = RELEASE  # page and roll back; None: never

    @property
    def budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.objective, 9)

    @property
    def windows(self) -> tuple[BurnWindow, ...]:
        """The windows of all alerts."""
        return (*self.fast, *self.slow, *((self.release,) if self.release else ()))

    @model_validator(mode="after")
    def _can_be_counted(self) -> Self:
        if (self.bad is None) == (self.good is None):
            raise ValueError("give `bad` or `good`, one of the two")
        for window in self.windows:
            if window.burn_rate * self.budget >= 1:
                raise ValueError(
                    f"a burn rate of {window.burn_rate:g} cannot be reached: if all events are bad, "
                    f"this objective burns {1 / self.budget:g} times its budget; set lower burn rates"
                )
        return self


def parse_slos(text: str) -> dict[str, Slo]:
    """The objectives by name. Raises RulesError."""
    try:
        document = yaml.safe_load(text)
        if not isinstance(document, dict) or not all(isinstance(n, str) and _NAME.fullmatch(n) for n in document):
            raise RulesError(
                "slo.yaml must map names to objectives",
                saw=f"{str(document)[:80]}",
                do="name each with lower-case letters, digits and _; see docs/monitoring.md",
            )
        return {name: Slo.model_validate(slo) for name, slo in document.items()}
    except yaml.YAMLError as error:
        raise RulesError("slo.yaml is not YAML", saw=str(error), do="correct that line") from error
    except ValidationError as error:
        places = "; ".join(complaints(error, Slo, whole="an objective"))
        raise RulesError("slo.yaml is not valid", saw=places, do="see docs/monitoring.md") from error
