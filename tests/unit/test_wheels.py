"""`make constraints` reports every pin that some supported machine cannot install."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.running_server import running_server

X86, ARM, MAC = "manylinux_2_28_x86_64", "manylinux_2_28_aarch64", "macosx_11_0_arm64"
FILES = {
    "everywhere": ["everywhere-1.0-py3-none-any.whl"],
    "older": ["older-0.9-py3-none-any.whl", "older-1.0.tar.gz"],
    "no-arm": [f"no_arm-1.0-cp3{minor}-cp3{minor}-{system}.whl" for minor in (11, 12, 13) for system in (X86, MAC)],
    "too-new": [
        f"too_new-1.0-py3-none-{system}.whl" for system in (MAC, X86.replace("28", "39"), ARM.replace("28", "39"))
    ],
    "hdrhistogram": [f"hdrhistogram-1.0-py3-none-{system}.whl" for system in (MAC, X86)],
}


@pytest.fixture(params=["json", "html"])
def index(request: pytest.FixtureRequest) -> Iterator[str]:
    """A package index that speaks one of the two formats; yields its address."""

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            files = FILES[name]
            if request.param == "json":
                kind, page = (
                    "application/vnd.pypi.simple.v1+json",
                    json.dumps({"files": [{"filename": file} for file in files]}),
                )
            else:
                kind, page = "text/html", "".join(f'<a href="../files/{file}#sha256=0">{file}</a>' for file in files)
            self.send_response(200)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Index)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def check(folder: Path, index: str, *pins: str) -> subprocess.CompletedProcess[str]:
    """Run the check on a project with these pins."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "check_wheels.py", folder / ".ci")
    (folder / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.11,<3.14" # as ours\n')
    (folder / "constraints.txt").write_text("".join(f"{pin}\n" for pin in pins))
    environment = os.environ | {"PIP_INDEX_URL": index, "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, folder / ".ci" / "check_wheels.py"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_pins_with_wheels_for_all_machines_pass(index: str, tmp_path: Path) -> None:
    """This includes a pin that is left out where it has no wheel, and one that is known to be built from source."""
    done = check(
        tmp_path, index, "everywhere==1.0", 'no-arm==1.0; platform_machine != "aarch64"  # why', "hdrhistogram==1.0"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "  hdrhistogram==1.0: Python 3.11 on Linux arm64\n" in done.stdout
    assert done.stdout.endswith("neither wheel nor plan:\n  nothing\n")


def test_a_pin_without_a_wheel_is_reported_with_the_machine(index: str, tmp_path: Path) -> None:
    """Examples are a source archive alone, another architecture, and a C library that Debian 12 lacks."""
    done = check(tmp_path, index, "older==1.0", "no-arm==1.0", "too-new==1.0")
    assert done.returncode == 1
    missing = done.stdout.partition("neither wheel nor plan:\n")[2].splitlines()
    where = {name: [line.partition(": ")[2] for line in missing if f" {name}==" in line] for name in FILES}
    pythons = ("Python 3.11", "Python 3.12", "Python 3.13")
    assert where["no-arm"] == [f"{python} on Linux arm64" for python in pythons]
    assert where["too-new"] == [
        f"{python} on {system}" for python in pythons for system in ("Linux x86_64", "Linux arm64")
    ]
    assert len(where["older"]) == 9
