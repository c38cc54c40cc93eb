"""Drift in the real log of served models is reported and shown; it rolls back only if the plan says so."""

import json
import time
from pathlib import Path

import httpx
import numpy as np

from examples.digits.camera import retaken
from monitoring.drift.prediction_log import read_predictions
from monitoring.drift.result import DriftResult
from tests.support.asking import HTTP
from tests.support.stack import Kanaria
from tests.support.waiting import eventually


def send(kanaria: Kanaria, rows: list[list[float]], labels: list[str], *, per_request: int = 10) -> None:
    """Send every row through the gateway, and its label as feedback."""
    headers = {"x-api-key": kanaria.api_key}
    with httpx.Client(base_url=kanaria.gateway, headers=headers, trust_env=False, timeout=60) as client:
        for first in range(0, len(rows), per_request):
            some = slice(first, first + per_request)
            answer = client.post("/predict", json={"features": rows[some]}).raise_for_status().json()
            truth = {"request_id": answer["request_id"], "labels": labels[some]}
            client.post("/feedback", json=truth).raise_for_status()


def until_logged(kanaria: Kanaria, rows: int) -> None:
    """Wait for the log: the service writes it a moment after it has answered."""
    eventually(lambda: len(read_predictions(kanaria.home / "predictions", 0)) >= rows)


def drift_metrics(kanaria: Kanaria) -> list[str]:
    page = HTTP.get(f"{kanaria.controller}/metrics").raise_for_status().text
    return [line for line in page.splitlines() if line.startswith("kanaria_drift")]


def until_shown(kanaria: Kanaria, line: str) -> None:
    deadline = time.monotonic() + 180
    while line not in (shown := drift_metrics(kanaria)):
        assert time.monotonic() < deadline, "\n".join(shown)
        time.sleep(0.5)


def until_page_says(kanaria: Kanaria, words: str) -> None:
    """Wait: a scheduled report that started before may be written after the one that was requested."""
    deadline = time.monotonic() + 180
    while words not in (page := HTTP.get(f"{kanaria.controller}/drift/data").text):
        assert time.monotonic() < deadline, page
        time.sleep(0.5)


def test_drifting_traffic_is_reported_shown_and_kept(kanaria: Kanaria, samples: Path) -> None:
    """Exit code 2 without a log, 0 for the model's digits, 1 with columns for another camera, 3 for too few rows."""
    kanaria.environment |= {"KANARIA_DRIFT_EVERY_S": "3", "KANARIA_DRIFT_LAST_S": "300"}
    kanaria.ok("up", "digits:v1")
    before = kanaria("drift", "report")
    assert (before.returncode, "there is no prediction log" in before.stderr) == (2, True)
    assert 'kanaria_drift_state{kind="data",state="not_run",version="digits:v1"} 1.0' in drift_metrics(kanaria)

    known = [json.loads(line) for line in samples.read_text().splitlines()]
    rows, labels = [sample["features"] for sample in known], [sample["label"] for sample in known]
    send(kanaria, rows, labels)
    until_logged(kanaria, len(rows))
    same = kanaria("drift", "report", "--quick", "--json")
    assert (same.returncode, DriftResult.model_validate_json(same.stdout).labelled_rows) == (0, len(rows))

    send(kanaria, retaken(np.array(rows)).tolist(), labels)
    until_logged(kanaria, 2 * len(rows))
    drifted = kanaria("drift", "report", "--last", "5m")
    assert drifted.returncode == 1, drifted.stdout + drifted.stderr
    assert "columns from the data that digits:v1 was tested on (" in " ".join(drifted.stdout.split())
    assert "`pixel_" in drifted.stdout
    until_page_says(kanaria, "columns from the data that digits:v1 was tested on (")
    assert list((kanaria.home / "drift" / "workspace").glob("*/snapshots/*.json"))
    until_shown(kanaria, 'kanaria_drift_state{kind="data",state="drift",version="digits:v1"} 1.0')

    both = kanaria("drift", "report", "--version", "digits:v1", "--release", "1")
    assert (both.returncode, "leave one of them out" in both.stderr) == (2, True)
    few = kanaria("drift", "report", "--last", "0.01s")
    assert (few.returncode, "Too few rows" in " ".join(few.stdout.split())) == (3, True)


def test_a_canary_that_differs_from_stable_is_rolled_back_if_the_plan_says_so(kanaria: Kanaria, samples: Path) -> None:
    """The scheduled report runs during the release; v2 is more confident than v1, and this plan forbids such drift.

    A step lasts long enough for a report on a busy machine, where reports have the lowest priority.
    """
    kanaria.environment |= {"KANARIA_DRIFT_EVERY_S": "3"}
    kanaria.ok("up", "digits:v1")
    with kanaria.users(samples):
        plan = kanaria.plan(steps=[50, 100], soak="5m", step_deadline="10m", on_drift="rollback")
        released = kanaria("release", "digits:v2", "--spec", plan, "--wait")
    assert released.returncode == 1, released.stdout + released.stderr
    release = json.loads(kanaria.ok("history", "--json"))[-1]
    assert (release["outcome"], release["signal"]) == ("rolled_back", "drift")
    assert "`confidence` mean" in release["reason"]
