"""The model that is served and its requests: in a Bento for us, named by environment variables for the peers."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.peers import FOLDER, IMPLEMENTATION
from loadtest.samples import load_samples

BODIES = 64  # of each size, sent in turn, so that no answer is fast because the same request came just before


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
        """The variables that name the model for a peer."""
        return {FOLDER: str(self.model), IMPLEMENTATION: self.implementation}

    def write_bodies(self, path: Path, rows: int) -> None:
        """Write request bodies with `rows` rows each, one a line. Raises SamplesError."""
        samples = load_samples(self.samples)
        with path.open("wb") as file:
            for body in range(BODIES):
                picked = (samples[(body * rows + row) % len(samples)].row for row in range(rows))
                file.write(b'{"features": [' + b", ".join(picked) + b"]}\n")
