"""Types a `kanaria` command in this process. A separate process would behave the same but starts slowly."""

import os
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from subprocess import CompletedProcess
from unittest import mock

from kanaria import cli
from tests.support.paths import ROOT


def typed(environment: Mapping[str, str], *arguments: str) -> CompletedProcess[str]:
    """Run a command in the project's folder; returns its exit code and output."""
    output, errors = StringIO(), StringIO()
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", ["kanaria", *arguments]),
        chdir(ROOT),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return CompletedProcess(["kanaria", *arguments], code, output.getvalue(), errors.getvalue())
