"""What is served and what is asked: one model, packed in a Bento for us, named to the peers by the environment."""

from dataclasses import dataclass
from pathlib import Path

from loadtest.benchmarks.peers import FOLDER, IMPLEMENTATION
from loadtest.samples import load_samples

BODIES = 64  # of each size, sent in turn, so that nothing is fast because it was just asked


@dataclass(frozen=True, slots=True)
class Subject:
    """A Bento and the model in it."""

    tag: str  # of the Bento
    code: Path  # folder that holds the package of the model's class
    implementation: str  # that class, as `package.module:Class`
    model: Path  # folder of the model's files
    samples: Path  # rows to ask about, JSON lines

    @property
    def environment(self) -> dict[str, str]:
        """What tells a peer which model to load."""
        return {FOLDER: str(self.model), IMPLEMENTATION: self.implementation}

    def write_bodies(self, path: Path, rows: int) -> None:
        """Write request bodies with `rows` rows each, one a line. Raises SamplesError."""
        samples = load_samples(self.samples)
        with path.open("wb") as file:
            for body in range(BODIES):
                picked = (samples[(body * rows + row) % len(samples)].row for row in range(rows))
                file.write(b'{"features": [' + b", ".join(picked) + b"]}\n")
