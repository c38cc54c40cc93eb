"""The command line imports little, and every command says which packages it lacks."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.cli import Benchmarks
from kanaria import failures
from kanaria.cli import Commands
from kanaria.lazy import LazyCommand
from kanaria.settings import Settings
from kanaria.stack.ports import free_port
from kanaria.variables import known
from rollout.ledger.ledger import Ledger
from tests.support.extras import absent_without
from tests.support.paths import ROOT

HEAVY = {
    "torch", "bentoml", "locust", "gevent", "evidently", "pandas", "sklearn", "scipy.special", "scipy.stats", "plotly",
    "onnx", "onnxruntime", "onnxscript", "grafana_client", "grafana_foundation_sdk", "promql_parser", "uvicorn",
    "starlette", "envoy", "matplotlib", "duckdb", "model_signing", "simdjson", "jinja2",
}  # fmt: skip
UNUSED = {
    "httpx._main",
    "pydantic_settings",
    "dotenv",
    "psutil",
    "tabulate",
}  # by the commands that people type most often
OF_HTTPX = {"httpx", "httpcore", "h11", "anyio", "certifi", "contract.loopback"}  # needed only to ask the controller
MORE_THAN_A_LIST_NEEDS = {"numpy", "scipy", "httpx", "pydantic", "yaml", "packaging"}
# Each of these takes a tenth of a command's time. Commands that control or show a release need no module that builds a
# plan, commands that read the ledger need no Bentos, and a plan is validated without a ledger.
OF_A_PLAN = {
    "yaml",
    "packaging",
    "rollout.spec",
    "rollout.ledger.events",
    "kanaria.stack.bentos",
    "contract.model_files",
}
OF_A_PICTURE = {"rollout.ui.views", "rollout.ui.terminal", "rich.status", "rich.table"}
NOT_OF_THE_LEDGER = {
    "packaging",
    "yaml",
    "ssl",
    "kanaria.stack.bentos",
    "contract.model_files",
    "rollout.control.snapshot",
}
NOT_NEEDED = {
    "status": OF_A_PLAN | {"rich.status"},
    "pause": OF_A_PLAN | OF_A_PICTURE,
    "resume": OF_A_PLAN | OF_A_PICTURE,
    "why": NOT_OF_THE_LEDGER,
    "history": NOT_OF_THE_LEDGER,
    "validate rollout.yaml": {"packaging", "rollout.ledger.events", "contract.recorded"},
    "preflight --help": {"httpx", "structlog", "kanaria.settings", "rollout.spec", "kanaria.stack.preflight"},
    "judge explain --help": OF_HTTPX,
}
ALL = {(group.program, name): source for group in (Commands, Benchmarks) for name, source in group.sources.items()}
RUN = """
import runpy, sys
try:
    runpy.run_module({package!r}, run_name="__main__", alter_sys=True)
finally:
    sys.stderr.write("modules: " + " ".join(name for name, module in sys.modules.items() if module))
"""
REFUSE = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {absent!r}:
            raise ModuleNotFoundError("not installed: " + name, name=name)

sys.meta_path.insert(0, Refuse())
from kanaria.lazy import load
for target in {targets!r}:
    load(target)
"""


def run(*arguments: str, folder: Path, path: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, where no stack runs."""
    environment = os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "KANARIA_HOME": str(folder)}
    environment |= variables
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


Loaded = Callable[..., frozenset[str]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Returns a function that runs a command once and gives the modules it imported.

    The folder has a plan and counts.
    """

    @cache
    def after(command: str, package: str = "kanaria") -> frozenset[str]:
        folder = tmp_path_factory.mktemp("loaded")
        (folder / "rollout.yaml").write_text("steps: [5, 100]\n")
        (folder / "counts.jsonl").touch()
        said = run("-c", RUN.format(package=package), *command.split(), folder=folder).stderr
        return frozenset(said.rpartition("modules: ")[2].split())

    return after


def test_listing_the_commands_imports_none_of_them(loaded: Loaded) -> None:
    """`kanaria --help` imports only Typer and Rich."""
    modules = loaded("--help")
    assert "typer" in modules
    assert modules & (HEAVY | UNUSED | MORE_THAN_A_LIST_NEEDS) == set()
    assert [name for name in modules if name.startswith(("rollout", "service", "loadtest", "monitoring"))] == []


def test_listing_the_benchmarks_imports_none_of_them(loaded: Loaded) -> None:
    """`python -m benchmarks --help` works without torch and without the packages for charts and tables."""
    modules = loaded("--help", package="benchmarks")
    assert "benchmarks.cli" in modules
    assert modules & (HEAVY | MORE_THAN_A_LIST_NEEDS | {"tabulate"}) == set()


@pytest.mark.parametrize(
    "command",
    ["status", "why", "history", "pause", "validate rollout.yaml", "judge counts.jsonl", "rules generate --out ."],
)
def test_a_command_imports_no_library_of_another_command(command: str, loaded: Loaded) -> None:
    """Commands that people type often do not wait for torch, a load generator or a chart library."""
    modules = loaded(command)
    target = Commands.sources[command.split(maxsplit=1)[0]].target
    assert target.partition(":")[0] in modules, "the command did not run"
    arithmetic = set() if command.startswith("judge") else {"numpy", "scipy", "asyncio"}
    assert modules & (HEAVY | UNUSED | arithmetic) == set()
    assert modules & OF_HTTPX == set()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.needs(*Commands.sources[command.split(maxsplit=1)[0]].needs))
        for command in NOT_NEEDED
    ],
)
def test_a_command_imports_nothing_that_it_does_not_use(command: str, loaded: Loaded) -> None:
    """Imports are most of a command's run time."""
    modules = loaded(command)
    assert "kanaria.cli" in modules
    assert modules & NOT_NEEDED[command] == set()


PLUGIN = """
class Plugin:
    def new_schema_validator(self, *_, **__):
        print("asked")
        return None, None, None
plugin = Plugin()
"""
MODEL = "from kanaria.lazy import load; import os; load('kanaria.settings:Settings')(); print(os.environ.get({name!r}))"


@pytest.mark.parametrize(("given", "said"), [({}, "None\n"), ({"PYDANTIC_DISABLE_PLUGINS": "another"}, "asked\n")])
def test_a_command_does_not_search_for_pydantic_plugins(given: dict[str, str], said: str, tmp_path: Path) -> None:
    """Pydantic would search every installed package.

    A person may still ask for plugins, and no version inherits the variable.
    """
    (tmp_path / "plugged.py").write_text(PLUGIN)
    (installed := tmp_path / "plugged-1.dist-info").mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[pydantic]\nplugged = plugged:plugin\n")
    done = run("-c", MODEL.format(name="PYDANTIC_DISABLE_PLUGINS"), folder=tmp_path, path=tmp_path, **given)
    assert done.stdout.startswith(said), done.stderr
    assert done.stdout.endswith(f"{given.get('PYDANTIC_DISABLE_PLUGINS')}\n")


@pytest.mark.parametrize(
    ("program", "name"),
    [pytest.param(*named, marks=pytest.mark.needs(*source.needs)) for named, source in ALL.items()],
)
def test_the_command_list_shows_the_summary_of_each_command(program: str, name: str) -> None:
    """The list contains the first paragraph of each command's help."""
    source = ALL[program, name]
    command = LazyCommand(name, source, program).load()
    assert (command.name, " ".join(command.help.split("\n\n")[0].split())) == (name, source.help)


@pytest.mark.parametrize(
    "needs",
    [
        pytest.param(needs, marks=pytest.mark.needs(*needs), id=",".join(needs))
        for needs in sorted({source.needs for source in ALL.values()})
    ],
)
def test_a_command_imports_with_the_packages_that_it_declares(needs: tuple[str, ...], tmp_path: Path) -> None:
    """With only the base packages and the declared extras installed, no module is missing."""
    targets = [source.target for source in ALL.values() if source.needs == needs]
    absent = sorted(absent_without(*needs))
    done = run("-c", REFUSE.format(absent=absent, targets=targets), folder=tmp_path)
    assert done.returncode == 0, done.stderr


def install_without(folder: Path, extra: str) -> None:
    """Put an installation into `folder` that lacks every package of an extra."""
    installed = folder / "kanaria-1.dist-info"
    installed.mkdir()
    needs = "".join(f'Requires-Dist: absent-{number}; extra == "{extra}"\n' for number in range(6))
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kanaria\nVersion: 1\n{needs}")


@pytest.mark.parametrize("command", ["up", "validate digits:v1"])
def test_a_command_whose_packages_are_missing_says_how_to_install_them(command: str, tmp_path: Path) -> None:
    """Without the extra, the error has what, saw and do with pip's command, and the exit code is 2."""
    install_without(tmp_path, "serve")
    done = run("-m", "kanaria", *command.split(), folder=tmp_path, path=tmp_path)
    assert done.returncode == 2
    typed = {"up": "kanaria up", "validate digits:v1": "kanaria validate MODEL"}[command]
    assert done.stderr == (
        f"`{typed}` needs packages that are not installed\n"
        "  saw: no absent-0, absent-1, absent-2, absent-3 and 2 more\n"
        "  do:  in the project's folder, `pip install '.[serve]'` or `make setup EXTRAS=all,dev`\n"
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        pytest.param("validate a:b:c", "there is no model a:b:c", marks=pytest.mark.needs("serve")),
        ("why :heart:", "there is no release :heart:"),
        pytest.param("loadtest :heart:", ":heart:", marks=pytest.mark.needs("loadtest")),
    ],
)
def test_an_error_shows_what_was_typed(command: str, message: str, tmp_path: Path) -> None:
    """A tag contains colons, and Rich would turn `:heart:` into an emoji."""
    Ledger(tmp_path / "ledger.db").close()
    done = run("-m", "kanaria", *command.split(), folder=tmp_path)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [("kanaria", "up", "serve"), ("kanaria", "drift report", "monitoring"), ("benchmarks", "judge", "charts")],
)
def test_the_help_of_a_command_needs_no_extra(module: str, command: str, extra: str, tmp_path: Path) -> None:
    """The help says what the command does and how to install missing packages.

    Running the command says only how to install them.
    """
    install_without(tmp_path, extra)
    shown = run("-m", module, *command.split(), "--help", folder=tmp_path, path=tmp_path)
    source = {"kanaria": Commands, "benchmarks": Benchmarks}[module].sources[command.partition(" ")[0]]
    text = " ".join(shown.stdout.split())
    assert (shown.returncode, source.help in text, f"pip install '.[{extra}]'" in text) == (0, True, True), shown
    refused = run("-m", module, *command.split(), folder=tmp_path, path=tmp_path)
    assert (refused.returncode, f"pip install '.[{extra}]'" in refused.stderr) == (2, True), refused


def test_the_version_option_prints_the_installed_version(tmp_path: Path) -> None:
    """It is the version of the installed package."""
    done = run("-m", "kanaria", "--version", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"kanaria {version('kanaria')}\n")


def test_a_misspelt_setting_is_reported(tmp_path: Path) -> None:
    """It was silently ignored. The variables of the stack's own processes and of load tests are known."""
    variables = {"KANARIA_REPLICA": "3", "KANARIA_SAMPLES": "x", "KANARIA_VERSION": "m:1", "KANARIA_QQ": "1"}
    noted = [
        line for line in run("-m", "kanaria", "why", folder=tmp_path, **variables).stderr.splitlines() if "note" in line
    ]
    assert noted == [
        "note: KANARIA_QQ is ignored: there is no such setting",
        "note: KANARIA_REPLICA is ignored: there is no such setting; did you mean `KANARIA_REPLICAS`?",
    ]


def test_every_variable_that_the_code_names_is_known() -> None:
    """Otherwise a command would call it unknown while other code reads it."""
    folders = (
        "contract",
        "kanaria",
        "loadtest",
        "monitoring",
        "observer",
        "rollout",
        "service",
        "benchmarks",
        "examples",
    )
    sources = [path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"KANARIA_[A-Z]+(?:_[A-Z]+)*(?![A-Z_{])", text)}
    assert named - known() == set()


def test_a_home_that_is_a_file_is_bad_input(tmp_path: Path) -> None:
    """This holds also for a command that only reads."""
    done = run("-m", "kanaria", "--home", "/dev/null", "status", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "the state folder cannot be used\n"
        "  saw: /dev/null is not a folder\n"
        "  do:  name another one with --home or KANARIA_HOME\n"
    )


def test_a_home_that_cannot_be_created_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other file that cannot be written is not bad input: the same command may succeed later."""
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "state"
    monkeypatch.setenv("KANARIA_HOME", str(home))
    with pytest.raises(OSError, match="file") as refused:
        _ = Settings().token
    assert failures.code(refused.value) == 2
    assert failures.message(refused.value).startswith("the state folder cannot be used\n  saw: ")
    other = OSError(28, "No space left on device", str(tmp_path / "other"))
    assert failures.code(other) == 3
    assert "check the path, its permissions and the free disk space" in failures.message(other)


def test_a_status_without_a_stack_writes_nothing(tmp_path: Path) -> None:
    """It reports that nothing listens, with the same advice as `kanaria why`."""
    home = tmp_path / "state"
    environment = {"KANARIA_CONTROLLER_PORT": str(free_port())}
    done = run("-m", "kanaria", "--home", str(home), "status", folder=tmp_path, **environment)
    assert (done.returncode, home.exists()) == (3, False)
    url = f"http://127.0.0.1:{environment['KANARIA_CONTROLLER_PORT']}"
    assert done.stderr == (
        f"the controller at {url} does not answer\n"
        f"  saw: nothing listens at {url}\n"
        "  do:  start the stack with `kanaria up TAG`\n"
    )


def test_a_folder_in_place_of_the_ledger_is_reported(tmp_path: Path) -> None:
    """SQLite would call it a disk I/O error."""
    (tmp_path / "ledger.db").mkdir()
    done = run("-m", "kanaria", "why", folder=tmp_path)
    assert (done.returncode, f"saw: {tmp_path / 'ledger.db'} is a folder" in done.stderr) == (3, True), done.stderr


@pytest.mark.needs(*Commands.sources["processes"].needs)
@pytest.mark.parametrize("what", ["restart", "stop"])
def test_without_a_stack_a_process_name_is_not_called_wrong(tmp_path: Path, what: str) -> None:
    """The advice was to correct the name, although no name would have worked."""
    done = run("-m", "kanaria", "processes", what, "controller", folder=tmp_path)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [
            "there is no process controller",
            "  saw: nothing runs here",
            "  do:  start the stack with `kanaria up TAG`",
        ],
    )
