"""Asks a vulnerability service about every package of this environment: `make audit`.

Exit code: 0 no vulnerability is known, 1 a package has a known vulnerability, 2 the service did not answer for all.
"""

import subprocess
import sys

_COMMAND = [
    *(sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner", "off", "--desc", "off"),
    *("--vulnerability-service", "osv"),  # it knows versions with a local part, such as PyTorch's +cpu
]
_FOUND_SOMETHING = 1


def main() -> int:
    """Print what is known."""
    done = subprocess.run([*_COMMAND, *sys.argv[1:]], capture_output=True, text=True, check=False)
    has_result = done.returncode == 0 or (done.returncode == _FOUND_SOMETHING and done.stdout.strip())
    if has_result:
        print(done.stdout + done.stderr, end="")
        return done.returncode
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    print(
        "audit: the vulnerability service did not answer, so nothing is known\n"
        f"  saw: {last[:300]}\n"
        "  do:  try again where it can be reached, or name another service with the same API: "
        "make audit ARGS='--osv-url URL'",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
