"""The second camera of the drift demonstration changes the images and nothing else."""

import sys
from pathlib import Path

import numpy as np
import pytest

from contract.model_files import SAMPLES_FILE, Sample
from contract.records import read_lines, write_lines
from examples.digits.camera import main, retaken
from examples.digits.data import split


def test_images_become_brighter_and_blurred_within_bounds() -> None:
    """Every image is brighter on average, and edges are softer."""
    rows = split().held_out.features.astype(np.float64)
    other = retaken(rows)
    edges = [np.abs(np.diff(side.reshape(-1, 8, 8), axis=2)).mean() for side in (rows, other)]
    assert (other.min() >= 0, other.max() <= 16, bool((other.mean(axis=1) > rows.mean(axis=1)).all())) == (True,) * 3
    assert edges[1] < edges[0]


def test_the_labels_of_the_images_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the features change."""
    write_lines(tmp_path / SAMPLES_FILE, (Sample(features=(3.0,) * 64, label=str(digit)) for digit in range(10)))
    monkeypatch.setattr(sys, "argv", ["camera", str(tmp_path / SAMPLES_FILE), str(tmp_path / "other.jsonl")])
    main()
    other = read_lines(tmp_path / "other.jsonl", Sample)
    assert [sample.label for sample in other] == [str(digit) for digit in range(10)]
    assert {sample.features for sample in other} == {(4.0,) * 64}
