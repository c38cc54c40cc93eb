"""The README and the pages under docs/ work as pasted: all shell and Python blocks that can run here succeed.

The README comes first, in a clean folder with its own Bento store; the other pages continue from there, as a reader
would.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from kanaria.stack.ports import free_port
from tests.support.markdown import PAGES, Block, blocks
from tests.support.paths import ROOT
from tests.support.waiting import eventually

README = Path("README.md")
LIMIT_S = 700


def run_of(page: Path) -> list[Block]:
    """The blocks of a page that are run."""
    return [block for block in blocks(page) if block.is_runnable and block.not_run is None]


@dataclass(frozen=True)
class Terminal:
    """A user's terminal in a clean copy of the project."""

    folder: Path
    environment: dict[str, str]
    ports: dict[str, str]  # the default port on the pages, and the free port that replaces it here

    @classmethod
    def in_a_clean_copy(cls, folder: Path) -> "Terminal":
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        (folder / ".venv").symlink_to(sys.prefix)
        ports = {"8080": str(free_port()), "8090": str(free_port())}
        own = {
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "KANARIA_GATEWAY_PORT": ports["8080"],
            "KANARIA_CONTROLLER_PORT": ports["8090"],
            "PATH": f"{folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),  # this copy, wherever `make setup` installed the project from
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("KANARIA_")}
        return cls(folder, others | own, ports)

    def paste(self, page: Path) -> str:
        """Paste a page's blocks into one shell, one after the other; return what was printed."""
        log = self.folder.parent / f"{page.name}.log"
        with log.open("w") as output:
            shell = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self._script(page)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | None = shell.wait(timeout=LIMIT_S)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with suppress(ProcessLookupError):  # processes that a page left in the background
                    os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()
                self._down()
        printed = log.read_text()
        assert code == 0, f"{page} ended with {code} in the last block of these:\n{printed}"
        eventually(self._is_quiet, within_s=120)
        return printed

    def _script(self, page: Path) -> str:
        parts = ["shopt -s expand_aliases"]
        for block in run_of(page):
            code = block.code if block.language == "sh" else f"python - <<'END_OF_BLOCK'\n{block.code}END_OF_BLOCK\n"
            if block.may_end_with_1:
                code = f"{{\n{code}}} || [ $? = 1 ]\n"
            parts += [f"echo '==== {block.place}'", block.first or "", code]
        script = "\n".join(parts)
        for default, own in self.ports.items():
            script = script.replace(f":{default}", f":{own}")
        return script

    def _is_quiet(self) -> bool:
        """Whether no process of a page is still running."""
        for process in psutil.process_iter():
            with suppress(psutil.AccessDenied, psutil.NoSuchProcess):
                if str(self.folder) in process.cwd():
                    return False
        return True

    def _down(self) -> None:
        down = [sys.executable, "-m", "kanaria", "down"]
        subprocess.run(down, cwd=self.folder, env=self.environment, check=True, capture_output=True, timeout=200)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]) -> Terminal:
    """The terminal in which the README was followed from its first block to its last."""
    for program in ("envoy", "git", "curl", "prometheus"):
        require_program(program)
    folder = tmp_path_factory.mktemp("docs") / "kanaria"
    made = Terminal.in_a_clean_copy(folder)
    (folder.parent / "readme").write_text(made.paste(README))
    return made


def test_the_readme_releases_a_version_as_pasted(terminal: Terminal) -> None:
    """A user who pastes "Use it" sees an answer, a promotion, and the reason."""
    printed = (terminal.folder.parent / "readme").read_text()
    assert '"predictions"' in printed
    assert "digits:v2 was promoted" in printed


@pytest.mark.parametrize("page", [page for page in PAGES if page != README and run_of(page)], ids=str)
def test_a_page_works_as_pasted(terminal: Terminal, page: Path) -> None:
    """No command on the page fails. What a command prints is not checked."""
    assert terminal.paste(page)
