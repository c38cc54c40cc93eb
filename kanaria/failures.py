"""The message and the exit code of a failed command."""

import os
from pathlib import Path

from pydantic import ValidationError

from contract.complaints import advice
from contract.errors import KanariaError
from kanaria.errors import SetupError
from kanaria.settings import Settings
from monitoring.drift.errors import DriftError
from monitoring.errors import RulesError
from rollout.errors import RolloutError
from rollout.ui.cli import EXIT_BAD_INPUT, EXIT_UNDECIDED, exit_code


def is_expected(error: Exception) -> bool:
    """Whether the error is meant for the user. Any other is a bug."""
    is_ours = isinstance(error, KanariaError | OSError)
    return is_ours or (isinstance(error, ValidationError) and error.title == Settings.__name__)


def message(error: Exception) -> str:
    """What happened, what was seen, and what to do."""
    match error:
        case OSError() if _is_about_home(error):
            return (
                "the state folder cannot be used\n"
                f"  saw: {error}\n  do:  name another one with --home or KANARIA_HOME, or correct its permissions"
            )
        case OSError():
            return (
                "a file or folder could not be read or written\n"
                f"  saw: {error}\n  do:  check the path, its permissions and the free disk space"
            )
        case ValidationError():
            places = "; ".join(
                f"KANARIA_{str(e['loc'][0]).upper()}: {advice(e)}, not {e['input']!r}" for e in error.errors()
            )
            return f"a setting cannot be used\n  saw: {places}\n  do:  correct it in the environment"
    return str(error)


def code(error: Exception) -> int:
    """The exit code."""
    if isinstance(error, RolloutError):
        return exit_code(error)
    is_bad_input = isinstance(error, SetupError | RulesError | DriftError | ValidationError) or _is_about_home(error)
    return EXIT_BAD_INPUT if is_bad_input else EXIT_UNDECIDED


def _is_about_home(error: Exception) -> bool:
    """Whether the cause is a state folder that cannot be created or written."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | Path):
        return False
    home, path = Settings().root, Path(error.filename).absolute()
    is_usable = home.is_dir() and os.access(home, os.W_OK | os.X_OK)
    return not is_usable and (path.is_relative_to(home) or home.is_relative_to(path))
