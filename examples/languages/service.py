"""Says which language a text is in: a small naive Bayes classifier over letters."""

import math
from collections import Counter
from pathlib import Path
from typing import Annotated

import bentoml
from pydantic import BaseModel, Field

PHRASES = Path(__file__).with_name("phrases.tsv")


class Arguments(BaseModel):
    """Given to `bentoml build --arg`."""

    letters: int = 1  # letters in a row that count as one piece: three say more than one
    longest: int = 10_000  # the most letters that a text may have


ARGUMENTS = bentoml.use_arguments(Arguments)


class Guess(BaseModel):
    label: str
    confidence: float


def parts(text: str) -> list[str]:
    """All pieces of `letters` letters in a row."""
    padded = f" {text.lower()} "
    return [padded[at : at + ARGUMENTS.letters] for at in range(len(padded) - ARGUMENTS.letters + 1)]


@bentoml.service(name="languages")
class Languages:
    def __init__(self) -> None:
        lines = PHRASES.read_text(encoding="utf-8").splitlines()
        self.counts: dict[str, Counter[str]] = {}
        for language, phrase in (line.split("\t") for line in lines):
            self.counts.setdefault(language, Counter()).update(parts(phrase))
        self.known = len(set().union(*self.counts.values()))

    @bentoml.api
    def detect(self, text: Annotated[str, Field(min_length=1, max_length=ARGUMENTS.longest)]) -> Guess:
        scores = {language: self.score(text, counts) for language, counts in self.counts.items()}
        label = max(scores, key=scores.__getitem__)
        return Guess(label=label, confidence=1 / sum(math.exp(score - scores[label]) for score in scores.values()))

    def score(self, text: str, counts: Counter[str]) -> float:
        """The log likelihood of a text, with add-one smoothing."""
        total = counts.total() + self.known
        return sum(math.log((counts[part] + 1) / total) for part in parts(text))
