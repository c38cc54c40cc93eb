"""A command's temporary folder stays while the command lives and is removed after it was killed."""

import subprocess
import sys
from pathlib import Path

from kanaria.settings import Settings
from kanaria.stack.identity import Identity, start_of
from kanaria.stack.temporary_folders import remove_left_over, temporary_folder

_WORKS = """
import sys
from pathlib import Path
from kanaria.settings import Settings
from kanaria.stack.temporary_folders import temporary_folder
with temporary_folder(Settings(home=Path(sys.argv[1]))) as folder:
    Path(folder, "server.log").write_text("it starts")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_stays_while_its_command_works_and_goes_after_a_kill(tmp_path: Path) -> None:
    """Another process that starts the stack meanwhile removes nothing of it."""
    settings = Settings(home=tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _WORKS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        folder = Path(command.stdout.readline().strip())
        remove_left_over(settings)
        assert (folder / "server.log").read_text() == "it starts"
        command.kill()
        command.wait()
        assert folder.exists()
        remove_left_over(settings)
    assert not folder.exists()


def test_the_folder_of_this_process_stays_until_its_block_ends(tmp_path: Path) -> None:
    """`kanaria up` may have a temporary folder of its own."""
    settings = Settings(home=tmp_path)
    with temporary_folder(settings) as folder:
        remove_left_over(settings)
        assert folder.is_dir()
    assert not folder.exists()


def test_a_folder_of_no_living_process_is_removed(tmp_path: Path) -> None:
    """It belongs to an earlier version, or to a process whose pid was reused. A file is not a folder."""
    settings, living = Settings(home=tmp_path), start_of(1)
    assert living is not None
    assert Identity(1, living).is_alive
    stays = settings.temporary / f"1-{living:.2f}-x"
    for folder in ("tmpab12", f"1-{living + 7:.2f}-x", "0-0.0-x", f"{2**40}-1.0-x"):
        (settings.temporary / folder / "below").mkdir(parents=True)
    stays.mkdir()
    (settings.temporary / "file").write_text("left")
    remove_left_over(settings)
    assert list(settings.temporary.iterdir()) == [stays]
