"""Turns sentences into vectors: the pieces of a sentence are hashed into a fixed number of places."""

import asyncio
import zlib

import bentoml
import numpy as np
from pydantic import BaseModel

PLACES = 64


class Arguments(BaseModel):
    """Given to `bentoml build --arg`."""

    letters: int = 0  # letters in a row that are one piece; 0: a piece is a word, so `cat` and `cats` share nothing
    thinks_s: float = 0.0  # extra seconds per request, like a model that is too large for its machine


ARGUMENTS = bentoml.use_arguments(Arguments)


@bentoml.service(name="sentences")
class Sentences:
    @bentoml.api
    async def encode(self, sentences: list[str]) -> np.ndarray:
        await asyncio.sleep(ARGUMENTS.thinks_s)
        return np.stack([vector(sentence) for sentence in sentences])


def vector(sentence: str) -> np.ndarray:
    """A vector of length 1, or of length 0 if the sentence is empty."""
    counts = np.zeros(PLACES)
    for piece in pieces(sentence.lower()):
        counts[zlib.crc32(piece.encode()) % PLACES] += 1
    return counts / max(float(np.linalg.norm(counts)), 1e-9)


def pieces(sentence: str) -> list[str]:
    if ARGUMENTS.letters == 0:
        return sentence.split()
    return [sentence[at : at + ARGUMENTS.letters] for at in range(len(sentence) - ARGUMENTS.letters + 1)]
