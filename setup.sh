#!/bin/sh
# Makes the virtual environment with every dependency at the version of constraints.txt.
set -eu

PYTHON="${PYTHON:-python3.11}"
VENV="${VENV:-.venv}"

command -v "$PYTHON" >/dev/null || {
    echo "setup: Python 3.11 was not found" >&2
    echo "  saw: no '$PYTHON' on the PATH" >&2
    echo "  do:  install it (Debian: apt-get install python3.11 python3.11-venv), or run make PYTHON=/path/to/python3.11" >&2
    exit 2
}
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

# PyTorch's default Linux wheel carries gigabytes of CUDA; its own CPU index does not. Where that
# cannot be reached, the wheel that the configured package index offers serves as well.
TORCH=$(grep '^torch==' constraints.txt)
if ! "$VENV/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '${TORCH#torch==}')" 2>/dev/null; then
    echo "setup: installing PyTorch (CPU)"
    if [ "$(uname -s)" = Linux ] && curl --silent --fail --head --max-time 5 https://download.pytorch.org/whl/cpu/torch/ >/dev/null 2>&1; then
        pip install "$TORCH" --index-url https://download.pytorch.org/whl/cpu
    else
        pip install "$TORCH"
    fi
fi
echo "setup: installing the other dependencies (about a minute the first time)"
pip install --constraint constraints.txt --editable '.[dev]'
echo "setup: ready"
