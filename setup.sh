#!/bin/sh
# Makes the virtual environment with every dependency at the version and hash of requirements.lock; quick if nothing
# changed.
#
# EXTRAS  what to install besides the base, such as `dev` or `serve,dev`; empty: only the base. Default: the extras of the
#         existing folder, or all,dev
# PYTHON  the interpreter to use. Default: the newest one on the PATH that the project supports
# UV      the uv to install with; empty: use pip. Default: uv, if it is on the PATH
# VENV    the folder. Default: .venv
set -eu

UV="${UV-uv}"
VENV="${VENV:-.venv}"
STAMP="$VENV/.ready" # the extras and files with which the folder was made
if [ -z "${EXTRAS+given}" ]; then
    EXTRAS=all,dev
    [ ! -s "$STAMP" ] || EXTRAS=$(sed -n 's/^extras: //p' "$STAMP")
fi
LOW=$(sed -n 's/^requires-python = ">=3\.\([0-9]*\),<3\.[0-9]*".*/\1/p' pyproject.toml)
END=$(sed -n 's/^requires-python = ">=3\.[0-9]*,<3\.\([0-9]*\)".*/\1/p' pyproject.toml)
RANGE="3.$LOW to 3.$((END - 1))"

fail() {
    printf 'setup: %s\n  saw: %s\n  do:  %s\n' "$1" "$2" "$3" >&2
    exit 2
}

# The version of an interpreter, such as 3.12.1; empty if it does not run, as some pyenv shims do not.
version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true; }

serves() {
    minor=$(echo "$1" | sed -n 's/^3\.\([0-9]*\)\..*/\1/p')
    [ -n "$minor" ] && [ "$minor" -ge "$LOW" ] && [ "$minor" -lt "$END" ]
}

# Sets PYTHON and VERSION to the newest supported interpreter; PYTHON is empty if there is none, SEEN lists what was found.
find_python() {
    PYTHON='' SEEN=''
    minor=$((END - 1))
    candidates=''
    while [ "$minor" -ge "$LOW" ]; do
        candidates="$candidates python3.$minor"
        minor=$((minor - 1))
    done
    for candidate in $candidates python3 python; do
        VERSION=$(version_of "$candidate")
        [ -z "$VERSION" ] || SEEN="$SEEN${SEEN:+, }$candidate is $VERSION"
        if serves "$VERSION"; then
            PYTHON="$candidate"
            return
        fi
    done
}

how_to_install() {
    echo "install one (Debian 12 and 13, Ubuntu 24.04: apt-get install python3 python3-venv; macOS: brew install python@3.$((END - 1)))," \
        "or name one: make setup PYTHON=/path/to/python"
}

remove_environment() {
    [ ! -L "$VENV" ] || fail "$VENV cannot be used: $1" "$VENV is a link to $(readlink "$VENV")" "remove the link, and run make setup again"
    echo "setup: making $VENV again: $1"
    rm -rf "$VENV"
}

[ -n "$LOW" ] && [ -n "$END" ] || fail "pyproject.toml does not say which Pythons are supported" "no line requires-python = \">=3.x,<3.y\"" "restore it"
case "$(command -v "${UV:-no-uv}" || true)" in
'' | "$PWD/$VENV"/*) UV='' ;; # BentoML installs its own uv, which disappears with the folder
esac
GIVEN="${PYTHON:-}" SEEN=''
if [ -n "$GIVEN" ]; then
    VERSION=$(version_of "$GIVEN")
    [ -n "$VERSION" ] || fail "the named Python does not run" "PYTHON=$GIVEN" "give the path of a Python $RANGE, or leave PYTHON out"
    serves "$VERSION" || fail "the named Python is not supported: use $RANGE" "$GIVEN is Python $VERSION" "name another, or leave PYTHON out"
fi

# An existing environment is kept, unless its Python no longer runs or is not supported, or another one was asked for.
if [ -e "$VENV/pyvenv.cfg" ]; then
    present=$(version_of "$VENV/bin/python")
    why=''
    if [ -z "$present" ]; then
        why="its Python no longer runs"
    elif ! serves "$present"; then
        why="it has Python $present; $RANGE are supported"
    elif [ -n "$GIVEN" ] && [ "${present%.*}" != "${VERSION%.*}" ]; then
        why="it has Python $present; $VERSION was asked for"
    fi
    if [ -n "$why" ]; then
        remove_environment "$why"
    fi
elif [ -e "$VENV" ]; then
    fail "$VENV is in the way" "something that is not a virtual environment" "move it elsewhere, or make setup VENV=other-folder"
fi

WANTED="extras: $EXTRAS
files: $(cat pyproject.toml requirements.lock setup.sh | cksum)"
[ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ] || exit 0

if [ -e "$VENV/pyvenv.cfg" ] && ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    remove_environment "it has no pip, because its creation was interrupted"
fi
if [ ! -e "$VENV/pyvenv.cfg" ]; then
    [ -n "$GIVEN" ] || find_python
    if [ -n "$UV" ]; then
        echo "setup: using $("$UV" --version | cut -d' ' -f1,2) with ${PYTHON:-its own Python}${PYTHON:+ ($VERSION)}"
        "$UV" venv --quiet --seed --python "${PYTHON:->=3.$LOW,<3.$END}" "$VENV" ||
            fail "uv could not make $VENV" "its message above${SEEN:+; $SEEN}" \
                "$([ -n "$PYTHON" ] && echo "correct that, or use pip: make setup UV=" || how_to_install)"
    else
        [ -n "$PYTHON" ] || fail "no supported Python was found: use $RANGE" "${SEEN:-no python3 on the PATH}" "$(how_to_install)"
        "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
            fail "Python cannot make a virtual environment" "$PYTHON ($VERSION) has no module venv or ensurepip" \
                "install it (Debian, Ubuntu: apt-get install python3-venv), or another Python: make setup PYTHON=/path/to/python"
        echo "setup: using $PYTHON ($VERSION)"
        "$PYTHON" -m venv "$VENV" || fail "$PYTHON could not make $VENV" "its message above" "remove $VENV, correct that, and run make setup again"
    fi
fi

install() {
    if [ -n "$UV" ]; then
        "$UV" pip install --quiet --python "$VENV/bin/python" "$@"
    else
        "$VENV/bin/python" -m pip --quiet --disable-pip-version-check install "$@"
    fi
}

# Writes to file $2 the pins of the lock, with their hashes, that belong to any of the extras in $1 (a,b).
locked() {
    awk -v extras=",$1," '/^# for: / { wanted = 0
        for (i = 3; i <= NF; i++) if (index(extras, "," $i ",")) wanted = 1
        next
    }
    wanted { print }' requirements.lock >"$VENV/$2"
}

# Only pinned packages with a matching hash are installed, whatever the index offers.
install_locked() { install --require-hashes --no-deps -r "$@"; }

# PyTorch's default Linux wheel needs gigabytes of CUDA; the wheel of its own CPU index does not. If that index cannot be
# reached, the wheel of the configured package index also works.
CPU_INDEX=https://download.pytorch.org/whl/cpu
TORCH=$(sed -n 's/^\(torch==[^ +]*\) .*/\1/p' requirements.lock)
has_torch() { "$VENV/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '${TORCH#torch==}')" 2>/dev/null; }
has_cpu_torch() { "$VENV/bin/python" -c "import importlib.metadata as m, sys; sys.exit(not m.version('torch').endswith('+cpu'))"; }
cpu_index_answers() {
    [ "$(uname -s)" = Linux ] &&
        "$VENV/bin/python" -c "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)" "$CPU_INDEX/torch/" >/dev/null 2>&1
}
case ",$EXTRAS," in *,all,* | *,loadtest,* | *,bench,*)
    if [ "$(uname -s)" = Linux ] && [ "$(uname -m)" = aarch64 ] && ! command -v cc >/dev/null; then
        fail "a C compiler is missing" "no cc on the PATH; hdrhistogram has no wheel for Linux on arm64" \
            "install one (Debian, Ubuntu: apt-get install gcc python3-dev), or leave the load generator out: make setup EXTRAS=serve,dev"
    fi
    ;;
esac
case ",$EXTRAS," in *,all,* | *,serve,* | *,bench,*)
    if ! has_torch; then
        echo "setup: installing PyTorch (CPU)"
        locked torch torch.txt
        locked torch-cpu torch-cpu.txt
        if cpu_index_answers; then
            if ! install_locked "$VENV/torch-cpu.txt" --index-url "$CPU_INDEX" 2>/dev/null; then
                echo "setup: the lock has no hash of the wheel of PyTorch's own index: it is installed unverified"
                install --no-deps "$TORCH" --index-url "$CPU_INDEX"
            fi
        elif [ "$(uname -s)" != Linux ] || ! install_locked "$VENV/torch-cpu.txt" 2>/dev/null; then
            install_locked "$VENV/torch.txt"
        fi
    fi
    ;;
esac
echo "setup: installing the other dependencies (about a minute the first time)"
MORE=''
case ",$EXTRAS," in *,all,* | *,serve,* | *,bench,*)
    has_cpu_torch || MORE=,cuda # packages that PyTorch's default wheel needs and its CPU wheel does not
    ;;
esac
locked "base,$EXTRAS$MORE" requirements.txt
install_locked "$VENV/requirements.txt"
install --no-deps --no-build-isolation --editable . # setuptools, which builds it, is also locked
echo "$WANTED" >"$STAMP"
echo "setup: ready"
