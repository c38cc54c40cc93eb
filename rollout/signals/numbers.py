"""The user's own signals whose events are numbers: the file that describes them, and the judge's rule for each."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator
from pydantic import field_validator as validator

from rollout.errors import SpecError
from rollout.judge.types import NumberRule, SignalRule, SignalWords
from rollout.mistakes import Place, Section, contradiction, mistakes, read_yaml, shown

_LARGEST = 1e100  # the judge's limit
_WEIGHT = 0.15  # the same as latency's

_Number = Annotated[float, Field(gt=-_LARGEST, lt=_LARGEST, allow_inf_nan=False)]


class NumberOptions(BaseModel):
    """The options of one signal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    between: tuple[_Number, _Number]
    worse: Literal["higher", "lower"] = "higher"
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    unit: str = ""

    @validator("between", "tolerance", "budget", mode="before")
    @classmethod
    def _numbers(cls, given: Any) -> Any:
        for each in given if isinstance(given, list | tuple) else [given]:
            if isinstance(each, bool | str):
                raise ValueError("write a number such as 0.5")
        return given

    @model_validator(mode="after")
    def _agree(self) -> "NumberOptions":
        low, high = self.between
        if low >= high:
            raise contradiction(f"`between` is [{low:g}, {high:g}]", "write the smaller number first: `[0, 10]`")
        if self.tolerance >= high - low:
            saw = f"`tolerance` is {self.tolerance:g}, with `between` [{low:g}, {high:g}]"
            raise contradiction(saw, f"write less than {high - low:g}: means cannot be further apart")
        return self

    def rule(self, name: str) -> SignalRule:
        """The judge's rule."""
        numbers = NumberRule(self.between, self.worse, self.tolerance, self.budget, self.unit)
        words = SignalWords(name, "numbers", "are")
        return SignalRule("means", _WEIGHT, budgeted=self.budget is not None, words=words, numbers=numbers)


class _File(RootModel[dict[str, NumberOptions]]):
    model_config = ConfigDict(frozen=True)


def parse_numbers(text: str, *, name: str, taken: tuple[str, ...]) -> dict[str, SignalRule]:
    """The judge's rules from a file that describes the numbers of each signal.

    Args:
        text: the file's content, YAML.
        name: of the file, for errors.
        taken: names of other signals, which the file must not use.

    Raises: SpecError.
    """
    data = read_yaml(text, name=name)
    example = "cost: {between: [0, 10], worse: higher, tolerance: 0.1}"
    if not isinstance(data, dict) or not data:
        raise SpecError(f"{name} must name signals", saw=shown(data), do=f"write for example `{example}`")
    for each in data:
        if not isinstance(each, str) or not each or ":" in each or each in taken:
            do = "choose another name" if each in taken else "write a name without a colon, such as `cost`"
            raise SpecError(f"{name}: a signal cannot have this name", saw=shown(each), do=do)
    try:
        parsed = _File.model_validate(data)
    except ValidationError as error:
        sections: dict[Place, Section] = {
            (each,): Section(tuple(NumberOptions.model_fields), "{between: [0, 10]}", "or delete the line")
            for each in data
        }
        found = mistakes(error, sections, {})
        raise SpecError(
            f"{name} does not describe the numbers correctly",
            saw="; ".join(each.saw for each in found),
            do="; ".join(each.do if len(found) == 1 else f"`{each.place}`: {each.do}" for each in found),
        ) from error
    return {signal: options.rule(signal) for signal, options in parsed.root.items()}
