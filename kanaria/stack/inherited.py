"""Which variables of whoever started the stack a version gets: those that programs run by, and those that are listed.

A version's code is somebody else's, and an operator's environment has credentials that were never meant for it.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

# Patterns of names: what a program needs to run on this machine.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")
_USUAL = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TZDIR", "TMPDIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
    *("LD_*", "DYLD_*", "MALLOC_*", "PYTHON*", "VIRTUAL_ENV"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("OMP_*", "MKL_*", "KMP_*", "GOMP_*", "OPENBLAS_*", "NUMEXPR_*", "BLIS_*", "VECLIB_*"),
    *("CUDA_*", "NVIDIA_*"),
    "BENTOML_*",
)
# What installs and builds packages besides; an index's address, or a proxy's, may hold a password.
INSTALLER = (
    *("PIP_*", "UV_*", "NETRC", "SSL_CLIENT_CERT"),
    *("CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "PKG_CONFIG_*", "CMAKE_*", "CARGO_*", "RUSTUP_*"),
    *_PROXIES,
)
_OWN = "KANARIA_"  # what a version needs of these it is given
# That a version lacks these is not worth a word.
_OF_A_SESSION = (
    *("_", "SHLVL", "PWD", "OLDPWD", "TERM", "TERM_*", "COLORTERM", "LS_COLORS", "LSCOLORS", "COLUMNS", "LINES", "PS1"),
    *("EDITOR", "VISUAL", "PAGER", "LESS*", "HIST*", "MAIL", "HOSTNAME", "DISPLAY", "WAYLAND_DISPLAY", "SSH_*"),
    *("XDG_*", "DBUS_*", "SUDO_*", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_*", "MANAGERPID", "MAKE*", "MFLAGS"),
    *(*INSTALLER, f"{_OWN}*"),
)
_SHOWN = 20
NOT_PASSED = "not passed of the environment: "  # a line of a log begins so


def inherited(variables: Mapping[str, str], listed: Sequence[str]) -> dict[str, str]:
    """Those of `variables` that programs run by, and those whose names match a pattern of `listed`.

    A proxy whose address holds a password passes only where it is listed.
    """
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith(_OWN) and (_is_in(name, (*_USUAL, *listed)) or (name in _PROXIES and "@" not in value))
    }


def withheld(variables: Mapping[str, str], listed: Sequence[str]) -> tuple[str, ...]:
    """The names of those that are not passed, without those of terminals and sessions."""
    names = variables.keys() - inherited(variables, listed).keys()
    return tuple(sorted(name for name in names if not _is_in(name, _OF_A_SESSION)))


def first_word(names: Sequence[str]) -> str:
    """What the log of a version from which `names` were withheld begins with; empty for none."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{NOT_PASSED}{', '.join(names[:_SHOWN])}{more} (see KANARIA_PASS_ENV)" if names else ""


def as_reason(names: Sequence[str], said: str) -> str:
    """What `names` that were withheld may have to do with a failure, of which a version `said` something."""
    if named := [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said)]:
        return f"{', '.join(named[:_SHOWN])} of the environment is not passed to it, unless KANARIA_PASS_ENV says so"
    return f"{len(names)} variables of the environment are not passed to it; its log names them" if names else ""


def _is_in(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
