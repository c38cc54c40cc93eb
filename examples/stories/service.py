"""Continues a story word by word: each word is drawn from those that followed the previous words."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated

import bentoml
from pydantic import BaseModel, Field

STORY = Path(__file__).with_name("story.txt")


class Arguments(BaseModel):
    """Given to `bentoml build --arg`."""

    memory: int = 1  # previous words that decide the next one: with two the story makes more sense
    thinks_s: float = 0.0  # seconds before the first word


ARGUMENTS = bentoml.use_arguments(Arguments)


@bentoml.service(name="stories")
class Stories:
    def __init__(self) -> None:
        words = STORY.read_text(encoding="utf-8").split()
        self.next = defaultdict[tuple[str, ...], list[str]](list)
        for at in range(len(words) - ARGUMENTS.memory):
            self.next[tuple(words[at : at + ARGUMENTS.memory])].append(words[at + ARGUMENTS.memory])

    @bentoml.api
    async def tell(self, prompt: str, words: Annotated[int, Field(ge=1, le=200)] = 20) -> AsyncGenerator[str, None]:
        await asyncio.sleep(ARGUMENTS.thinks_s)
        before = tuple(prompt.split()[-ARGUMENTS.memory :])
        for _ in range(words):
            if before not in self.next:
                before = random.choice(list(self.next))  # noqa: S311 - a story is not a secret
            word = random.choice(self.next[before])  # noqa: S311 - as above
            yield f"{word} "
            before = (*before, word)[-ARGUMENTS.memory :]
