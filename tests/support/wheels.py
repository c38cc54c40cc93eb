"""Small packages made by the tests: each version is a file, so no test needs a package index."""

import zipfile
from pathlib import Path

# Replaces BentoML: answers its probe and, at any other path, with the version of the package `tiny` that it imports.
_SERVER = """
import http.server, sys
import tiny
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = tiny.VERSION.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
def main():
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


def write_wheel(folder: Path, name: str, version: str, code: str, *, scripts: str = "", needs: str = "") -> Path:
    """Write a wheel of one module into `folder`. `scripts`: lines `name = module:function`."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if scripts:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}\n"
    record = f"{info}/RECORD"
    files[record] = "".join(f"{path},,\n" for path in (*files, record))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in files.items():
            wheel.writestr(member, content)
    return path


def write_index(folder: Path) -> Path:
    """Make a folder with `tiny` in two versions, and a small server in place of BentoML."""
    for version in ("1.0", "2.0"):
        write_wheel(folder, "tiny", version, f"VERSION = {version!r}\n")
    write_wheel(folder, "bentoml", "0.1", _SERVER, scripts="bentoml = bentoml:main")
    return folder


def write_bento(home: Path, tag: str, *requirements: str, python: str = "", lock: tuple[str, ...] = ()) -> Path:
    """Write the parts of a Bento that its environment needs.

    `python`: the version that it was built with, if another.
    """
    name, version = tag.split(":")
    folder = home / "bentos" / name / version
    described = folder / "env" / "python"
    described.mkdir(parents=True)
    (folder / "src").mkdir()
    image = f"image: {{python_version: '{python}'}}\n" if python else ""
    (folder / "bento.yaml").write_text(f"name: {name}\nversion: {version}\n{image}")
    (described / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
    if lock:
        (described / "requirements.lock.txt").write_text("".join(f"{line}\n" for line in lock))
    return folder
