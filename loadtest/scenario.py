"""A load test as data: the rate over time, the mix of tasks and the gates."""

from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.complaints import complaints
from loadtest.errors import ScenarioError

SCENARIOS = Path(__file__).parent / "scenarios"
LONGEST_S = 6 * 3600
MOST_ARRIVALS = 5_000_000


class Task(StrEnum):
    """One kind of request."""

    ONE_ROW = "one_row"
    MANY_ROWS = "many_rows"
    FEEDBACK = "feedback"
    BAD_INPUT = "bad_input"


class Strict(BaseModel):
    """Base of the files' models: unknown keys are errors, and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Segment(Strict):
    """A period in which the rate is constant or changes linearly."""

    for_s: float = Field(gt=0, le=LONGEST_S, description="length, seconds")
    rate: float = Field(ge=0, le=5000, description="requests per second at its start")
    to_rate: float | None = Field(default=None, ge=0, le=5000, description="rate at its end; default: the same")

    @property
    def end_rate(self) -> float:
        return self.rate if self.to_rate is None else self.to_rate

    @property
    def expected(self) -> float:
        """Requests expected in the whole segment."""
        return (self.rate + self.end_rate) / 2 * self.for_s


class Mix(Strict):
    """Relative weights of the tasks. Feedback has none: it follows from `labelled_ratio`."""

    one_row: float = Field(default=90, ge=0)
    many_rows: float = Field(default=8, ge=0)
    bad_input: float = Field(default=2, ge=0)


class Gates(Strict):
    """Limits that decide the exit code. Latency is measured from the scheduled time, over all requests."""

    p95_ms: float | None = Field(default=None, gt=0)
    p99_ms: float | None = Field(default=None, gt=0)
    error_ratio: float = Field(default=0.0, ge=0, le=1, description="failures / requests, at most")
    min_requests: int = Field(default=1, ge=1)
    slip_ratio: float = Field(default=0.01, ge=0, le=1, description="arrivals sent late or never, at most")


class Scenario(Strict):
    """A whole load test. The same scenario and seed give the same arrivals in the same order."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    about: str = ""
    seed: int
    arrivals: Literal["poisson", "constant"] = "poisson"
    shape: tuple[Segment, ...] = Field(min_length=1)
    users: int = Field(default=64, ge=1, le=1000, description="requests in flight at most")
    timeout_s: float = Field(default=10, gt=0, le=120, description="longest silence of the server, seconds")
    late_after_ms: float = Field(default=50, gt=0, description="an arrival sent later than this has slipped")
    rows: int = Field(default=32, ge=2, le=10_000, description="rows of a many_rows request")
    mix: Mix = Mix()
    labelled_ratio: float = Field(default=0.2, ge=0, le=1, description="share of answers that get their labels")
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _is_bounded_and_sends_something(self) -> Self:
        if self.duration_s > LONGEST_S:
            raise ValueError(f"the shape lasts {self.duration_s:g} s, at most {LONGEST_S} s are allowed")
        if not 1 <= self.expected_arrivals <= MOST_ARRIVALS:
            raise ValueError(f"the shape sends {self.expected_arrivals:g} requests, 1 to {MOST_ARRIVALS:,} are allowed")
        if not any(self.weights.values()):
            raise ValueError("every weight in `mix` is 0")
        return self

    @property
    def duration_s(self) -> float:
        return sum(segment.for_s for segment in self.shape)

    @property
    def expected_arrivals(self) -> float:
        return sum(segment.expected for segment in self.shape)

    @property
    def weights(self) -> dict[Task, float]:
        """Weight of every task, feedback included."""
        return {
            Task.ONE_ROW: self.mix.one_row,
            Task.MANY_ROWS: self.mix.many_rows,
            Task.FEEDBACK: self.labelled_ratio * (self.mix.one_row + self.mix.many_rows),
            Task.BAD_INPUT: self.mix.bad_input,
        }


def known_scenarios() -> tuple[str, ...]:
    """The names of this package's scenarios, sorted."""
    return tuple(sorted(path.stem for path in SCENARIOS.glob("*.yaml")))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Read a scenario by its name, or from a YAML or JSON file.

    Raises: ScenarioError.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml", ".json"}:
        path = SCENARIOS / f"{name_or_path}.yaml"
    try:
        return Scenario.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise ScenarioError(
            "the scenario was not found",
            saw=f"no file {path}",
            do=f"give one of {', '.join(known_scenarios())}, or the path of a .yaml file",
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScenarioError(
            "the scenario cannot be read", saw=f"{path}: {error}", do="give a readable YAML file"
        ) from error
    except ValidationError as error:
        places = "; ".join(complaints(error, Scenario, whole="the scenario"))
        raise ScenarioError(
            "the scenario is not valid",
            saw=f"{path}: {places}",
            do="correct these keys; docs/load-tests.md lists them",
        ) from error
