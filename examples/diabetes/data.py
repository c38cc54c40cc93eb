"""Scikit-learn's bundled table of 442 diabetes patients: ten measurements, and the disease's progression in a year."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from service.contract import Feature

# Bounds that hold for any living patient; they are wider than the table's. Sex is private, so it is never logged.
FEATURES = (
    Feature(name="age", minimum=0, maximum=120),
    Feature(name="sex", minimum=1, maximum=2, logged="never"),
    Feature(name="body_mass_index", minimum=10, maximum=80),
    Feature(name="blood_pressure", minimum=40, maximum=200),
    Feature(name="cholesterol", minimum=50, maximum=500),
    Feature(name="low_density_lipoproteins", minimum=20, maximum=400),
    Feature(name="high_density_lipoproteins", minimum=10, maximum=200),
    Feature(name="cholesterol_ratio", minimum=1, maximum=15),
    Feature(name="log_triglycerides", minimum=2, maximum=8),
    Feature(name="blood_sugar", minimum=30, maximum=300),
)
TOLERANCE = 60.0  # the progression is between 25 and 346, and the measurements explain only half of its variance
BROKEN_EXPORT_BELOW = 150


@dataclass(frozen=True, slots=True)
class Patients:
    """Rows of measurements, and the progression of each patient's disease."""

    features: NDArray[np.float32]  # shape (patients, 10)
    progression: NDArray[np.float32]  # shape (patients,)


def split() -> tuple[Patients, Patients]:
    """All patients as training and held-out rows, split with a fixed seed."""
    features, progression = load_diabetes(return_X_y=True, scaled=False)
    train_x, held_out_x, train_y, held_out_y = train_test_split(
        features.astype(np.float32), progression.astype(np.float32), test_size=0.3, random_state=0
    )
    return Patients(train_x, train_y), Patients(held_out_x, held_out_y)


def mild_cases(patients: Patients) -> Patients:
    """What a broken export delivers: only patients with little progression."""
    kept = patients.progression < BROKEN_EXPORT_BELOW
    return Patients(patients.features[kept], patients.progression[kept])
