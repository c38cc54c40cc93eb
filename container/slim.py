"""Removes files that serving never reads from a folder of installed packages, and compiles the rest.

Dockerfile.j2 and deploy/Containerfile run it after everything is installed: `python slim.py SITE_PACKAGES`.
"""

import compileall
import re
import shutil
import struct
import sys
from pathlib import Path

UNREAD = (
    "torch/include",
    "torch/share",
    "torch/test",
    "torch/bin/[!t]*",
    "torch/bin/test_*",  # torch_shm_manager stays: PyTorch looks for it on import
    "numpy/**/tests",
    "scipy/**/tests",
    "sympy/**/tests",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "onnxruntime/capi/libonnxruntime.so.*",  # for C programs; Python has its own copy
)
# Not loaded when serving. They stay as source, so that they can still be imported.
UNCOMPILED = re.compile(
    r"/(sympy|networkx|setuptools|pygments/lexers|torch/(_dynamo|_inductor|onnx|testing/_internal))/"
)
WORTH_CUTTING_BYTES = 1_000_000


def slim(packages: Path) -> None:
    """Make `packages` small and compile it: on a read-only root, Python cannot store compiled files."""
    for pattern in UNREAD:
        for path in list(packages.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for library in packages.glob("torch/lib/*.so"):
        cut_symbols(library)
    # Not every file compiles: some packages carry files for a newer Python.
    compileall.compile_dir(packages, quiet=2, rx=UNCOMPILED, workers=0)


def cut_symbols(library: Path) -> None:
    """Cut off everything after the last loadable segment: symbol tables for debuggers, 90 MB in PyTorch.

    It does what `strip` does, without compiler tools in the build. A file that is not 64-bit ELF is left unchanged.
    """
    with library.open("r+b") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            return
        (first_segment,) = struct.unpack_from("<Q", header, 32)
        segment_bytes, segments = struct.unpack_from("<HH", header, 54)
        end = 0
        for index in range(segments):
            file.seek(first_segment + index * segment_bytes)
            _, _, offset, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            end = max(end, offset + length)
        if library.stat().st_size - end < WORTH_CUTTING_BYTES:
            return
        file.seek(40)
        file.write(bytes(8))  # offset of the section headers: none
        file.seek(60)
        file.write(bytes(4))  # their number and the index of their names: 0
        file.truncate(end)


if __name__ == "__main__":
    slim(Path(sys.argv[1]))
