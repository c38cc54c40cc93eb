"""`kanaria loadtest`: by default it uses the address, the API key and the samples of the running stack."""

import os
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import typer

from contract.errors import KanariaError
from contract.model_files import SAMPLES_FILE
from contract.terminal import print_error
from kanaria.errors import SetupError
from kanaria.settings import API_KEY_FILE, Settings
from kanaria.stack.bentos import model_folder, model_of
from loadtest.cli import loadtest as send
from loadtest.errors import ScenarioError
from loadtest.scenario import load_scenario
from loadtest.target import API_KEY_VARIABLE
from rollout.ui.cli.reading import stable_version


@wraps(send)
def loadtest(**given: Any) -> None:
    """See `loadtest.cli`."""
    settings = Settings()
    if given["host"] is None:
        if not settings.is_up and _is_known(given["scenario"]):
            print_error(
                SetupError(
                    "there is no stack to send requests to",
                    saw=f"none was started for {settings.root}",
                    do="start one with `kanaria up TAG`, or name an address with --host",
                )
            )
            raise typer.Exit(2)
        given["host"] = settings.gateway_url
        key = settings.root / API_KEY_FILE  # only for that address: no other host gets the stack's key
        if given["api_key_file"] is None and not os.environ.get(API_KEY_VARIABLE) and key.exists():
            given["api_key_file"] = key
    if given["samples"] is None and not os.environ.get("KANARIA_SAMPLES") and not settings.samples.exists():
        given["samples"] = samples_of_stable(settings)
    send(**given)


def _is_known(scenario: str) -> bool:
    """Whether there is such a valid scenario. Errors in it are reported when it is used."""
    with suppress(ScenarioError):
        load_scenario(scenario)
        return True
    return False


def samples_of_stable(settings: Settings) -> Path | None:
    """The samples that training saved with stable's model; None if there is no stable version or no samples."""
    with suppress(KanariaError):
        if (stable := stable_version(settings.ledger)) is not None:
            path = model_folder(model_of(stable)) / SAMPLES_FILE
            return path if path.exists() else None
    return None
