"""Which environment variables a version inherits: those that programs need to run, and those that are listed.

A version runs foreign code, and an operator's environment may hold credentials that are not meant for it.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

# Patterns of the names that a program needs to run on this machine.
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
# What an installer needs in addition. The address of an index or a proxy may contain a password.
INSTALLER = (
    *("PIP_*", "UV_*", "NETRC", "SSL_CLIENT_CERT"),
    *("CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "PKG_CONFIG_*", "CMAKE_*", "CARGO_*", "RUSTUP_*"),
    *_PROXIES,
)
_OWN = "KANARIA_"  # a version gets the ones it needs from the keeper's program, not by inheritance
# Variables whose absence is not reported.
_OF_A_SESSION = (
    *("_", "SHLVL", "PWD", "OLDPWD", "TERM", "TERM_*", "COLORTERM", "LS_COLORS", "LSCOLORS", "COLUMNS", "LINES", "PS1"),
    *("EDITOR", "VISUAL", "PAGER", "LESS*", "HIST*", "MAIL", "HOSTNAME", "DISPLAY", "WAYLAND_DISPLAY", "SSH_*"),
    *("XDG_*", "DBUS_*", "SUDO_*", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_*", "MANAGERPID", "MAKE*", "MFLAGS"),
    *(*INSTALLER, f"{_OWN}*"),
)
_SHOWN = 20
NOT_PASSED = "not passed of the environment: "  # the start of a line in a version's log


def inherited(variables: Mapping[str, str], listed: Sequence[str]) -> dict[str, str]:
    """The `variables` that programs need to run, and those whose names match a pattern of `listed`.

    A proxy whose address contains a password is inherited only if it is listed.
    """
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith(_OWN) and (_is_in(name, (*_USUAL, *listed)) or (name in _PROXIES and "@" not in value))
    }


def withheld(variables: Mapping[str, str], listed: Sequence[str]) -> tuple[str, ...]:
    """The names of the variables that are not passed, without those of terminals and sessions."""
    names = variables.keys() - inherited(variables, listed).keys()
    return tuple(sorted(name for name in names if not _is_in(name, _OF_A_SESSION)))


def first_word(names: Sequence[str]) -> str:
    """The first line of the log of a version that did not get `names`; empty if there are none."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{NOT_PASSED}{', '.join(names[:_SHOWN])}{more} (see KANARIA_PASS_ENV)" if names else ""


def as_reason(names: Sequence[str], said: str) -> str:
    """How the withheld `names` may explain a failure; `said` is the version's output about it."""
    if named := [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said)]:
        return f"{', '.join(named[:_SHOWN])} of the environment is not passed to it unless KANARIA_PASS_ENV lists it"
    return f"{len(names)} variables of the environment are not passed to it; its log names them" if names else ""


def _is_in(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
