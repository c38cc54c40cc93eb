"""The commands about releases, a module for each kind, so that a command imports only what it needs."""

from rollout.ui.cli.conventions import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_FAIL,
    EXIT_UNDECIDED,
    Access,
    Json,
    exit_code,
    explained,
)

__all__ = ["EXIT_BAD_INPUT", "EXIT_DONE", "EXIT_FAIL", "EXIT_UNDECIDED", "Access", "Json", "exit_code", "explained"]
