"""The form of every error that is raised on purpose."""

import subprocess
import sys

import pytest
import typer

from contract.errors import KanariaError
from kanaria.cli import run
from kanaria.errors import SetupError, StackError
from loadtest.errors import LoadTestError
from monitoring.drift.errors import DriftError
from monitoring.errors import MonitoringError, RulesError
from rollout.errors import CommandRefused, ControllerUnreachable, RolloutError
from service.optimise.errors import OptimiseError
from service.signatures import SignatureError
from service.validation.faults import FaultFound


def test_an_error_says_what_happened_what_was_seen_and_what_to_do() -> None:
    """The error has three lines of text, and the same three as attributes."""
    error = KanariaError("the door is shut", saw="a lock", do="bring the key")
    assert str(error) == "the door is shut\n  saw: a lock\n  do:  bring the key"
    assert (error.what, error.saw, error.do) == ("the door is shut", "a lock", "bring the key")


@pytest.mark.parametrize(
    "base", [RolloutError, MonitoringError, LoadTestError, StackError, OptimiseError, SignatureError, FaultFound]
)
def test_every_package_derives_its_errors_from_kanaria_error(base: type[KanariaError]) -> None:
    """Catching the base class catches them all, and each has the same three lines."""
    assert issubclass(base, KanariaError)
    assert str(base("w", saw="s", do="d")) == "w\n  saw: s\n  do:  d"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (StackError, 3),
        (SetupError, 2),
        (MonitoringError, 3),
        (RulesError, 2),
        (DriftError, 2),
        (LoadTestError, 3),
        (CommandRefused, 2),
        (ControllerUnreachable, 3),
    ],
)
def test_an_uncaught_error_ends_the_command_with_its_message_and_exit_code(
    kind: type[KanariaError], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code is 2 if the user can correct the command, and 3 if nothing could be decided."""
    commands = typer.Typer(pretty_exceptions_enable=False)

    @commands.command()
    def fail() -> None:
        raise kind("it failed", saw="smoke", do="call for help")

    monkeypatch.setattr(sys, "argv", ["kanaria"])
    with pytest.raises(SystemExit) as ended:
        run(commands)
    assert ended.value.code == code
    assert capsys.readouterr().err == "it failed\n  saw: smoke\n  do:  call for help\n"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (KeyError("1"), 2),
        (MemoryError(), 2),
        (RecursionError("too deep"), 2),
        (AssertionError(), 2),
        (ValueError("no setting"), 2),
        (ModuleNotFoundError("No module named 'gone'"), 2),
        (EOFError(), 2),
        (BrokenPipeError(32, "Broken pipe"), 141),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_no_crash_has_the_exit_code_of_a_result(fault: BaseException, code: int) -> None:
    """Code 1 means drift, a failed gate or a rollback, and code 3 means too little data."""
    script = (
        "import sys, kanaria.lazy\n"
        "class Commands(kanaria.lazy.LazyGroup):\n"
        "    program, sources = 'kanaria', {'fail': kanaria.lazy.Source('__main__:fail', 'Fail.')}\n"
        "from builtins import *\n"
        "def fail():\n"
        f"    raise {fault!r}\n"
        "import typer, kanaria.cli\n"
        "app = typer.Typer(cls=Commands)\n"
        "app.callback()(lambda: None)\n"
        "sys.argv = ['kanaria', 'fail']\n"
        "kanaria.cli.run(app)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert ("this is a bug in Kanaria: report it" in done.stderr) == (code == 2)


def test_the_error_base_class_loads_no_other_package() -> None:
    """A new interpreter that imports it loads neither torch nor another of our packages."""
    script = (
        "import sys, contract.errors; print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'torch', 'kanaria', 'service', 'rollout', 'monitoring', 'loadtest'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
