"""Makes traffic with drift: the digits as another camera would send them, brighter and a little out of focus.

`python -m examples.digits.camera SAMPLES OUT` writes such a copy of a samples file; the labels stay the same.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.digits.data import SCHEMA
from service.contract import Sample, read_lines, write_lines

BRIGHTER = 1.0  # added to every pixel, of 16
BLUR = 0.2  # weight of the four neighbours in a pixel
_SIDE = 8


def retaken(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The images in `rows`, shape (rows, 64), as the other camera would take them."""
    images = rows.reshape(-1, _SIDE, _SIDE)
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    neighbours = (wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]) / 4
    blurred = (1 - BLUR) * images + BLUR * neighbours
    return np.clip(blurred + BRIGHTER, 0, SCHEMA.features[0].maximum).reshape(rows.shape)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.digits.camera", description=__doc__)
    parser.add_argument("samples", type=Path, help="rows and labels, JSON lines")
    parser.add_argument("out", type=Path, help="path of the copy")
    arguments = parser.parse_args()
    samples = read_lines(arguments.samples, Sample)
    rows = retaken(np.array([sample.features for sample in samples])).round(3)
    changed = zip(samples, rows.tolist(), strict=True)
    write_lines(arguments.out, (sample.model_copy(update={"features": tuple(row)}) for sample, row in changed))


if __name__ == "__main__":
    main()
