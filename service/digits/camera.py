"""The digits as another camera would send them: brighter, and a little out of focus. The drift demonstration's users.

`python -m service.digits.camera SAMPLES OUT` writes such a copy of a file of samples; the truth about them stays.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.contract import Sample, read_lines, write_lines
from service.digits.data import SCHEMA

BRIGHTER = 1.0  # added to every pixel, of 16
BLUR = 0.2  # weight of the four neighbours in a pixel
_SIDE = 8


def retaken(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the other camera makes of `rows`, shape (rows, 64)."""
    images = rows.reshape(-1, _SIDE, _SIDE)
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    neighbours = (wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]) / 4
    blurred = (1 - BLUR) * images + BLUR * neighbours
    return np.clip(blurred + BRIGHTER, 0, SCHEMA.features[0].maximum).reshape(rows.shape)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m service.digits.camera", description=__doc__)
    parser.add_argument("samples", type=Path, help="rows and labels, JSON lines")
    parser.add_argument("out", type=Path, help="where the copy goes")
    arguments = parser.parse_args()
    samples = read_lines(arguments.samples, Sample)
    rows = retaken(np.array([sample.features for sample in samples])).round(3)
    changed = zip(samples, rows.tolist(), strict=True)
    write_lines(arguments.out, (sample.model_copy(update={"features": tuple(row)}) for sample, row in changed))


if __name__ == "__main__":
    main()
