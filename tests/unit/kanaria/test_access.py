"""How the name of the person who types a command is found."""

import os
import subprocess
import sys

from tests.support.absence import leave_out
from tests.support.paths import ROOT

AS_USER = """
import os, getpass, pwd
from kanaria.access import person
from kanaria.errors import SetupError
from kanaria.stack.bentos import bento_tags
os.setuid({number})
print({asked})
"""
SAYING_WHY = """
try:
    bento_tags()
except SetupError as error:
    print(error)
"""
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "BENTOML_HOME")


def person(number: int, *, then: str = "", **environment: str) -> str:
    """What `person` returns for the user with this number, and what the code `then` prints after it."""
    if number != os.getuid() != 0:
        leave_out("only root can switch to another user")
    unnamed = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", AS_USER.format(number=number, asked="person()") + then],
        env=unnamed | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_user_without_a_name_is_called_by_the_user_number() -> None:
    """Containers run under arbitrary user numbers, which the machine's user list does not contain."""
    assert person(12345) == "user 12345"


def test_a_user_without_a_home_folder_must_name_the_store() -> None:
    """BentoML keeps its store in the home folder unless a variable names another place."""
    assert "set BENTOML_HOME or HOME" in person(12345, then=SAYING_WHY)


def test_a_user_is_called_by_the_name_in_the_environment() -> None:
    """A name in the environment counts; `sudo`, for example, sets one."""
    assert person(os.getuid(), LOGNAME="ann") == "ann"
