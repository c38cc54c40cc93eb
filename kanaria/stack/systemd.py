"""The systemd unit that restarts a stack after a reboot."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.files import write_whole
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.installation import given_environment, secret_names
from kanaria.stack.python import own_module

_ENVIRONMENT_FILE = "service.env"  # for secrets: every user can read a unit
_STOP_WITHIN_S = 180
_AGAIN_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Service:
    """The unit of one state folder: a user's unit, or one of the machine."""

    settings: Settings
    name: str
    is_system: bool

    @property
    def path(self) -> Path:
        """The path of the unit."""
        if self.is_system:
            return Path("/etc/systemd/system", f"{self.name}.service")
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(config, "systemd", "user", f"{self.name}.service")

    def text(self) -> str:
        """The text of the unit."""
        given = {"PATH": os.environ.get("PATH", os.defpath), **given_environment(self.settings)}
        secrets = secret_names()
        return unit(
            program=own_module("kanaria", "up", "--foreground"),
            folder=Path.cwd(),
            environment={name: value for name, value in given.items() if name not in secrets},
            environment_file=self._environment_file if secrets & given.keys() else None,
            user=_user() if self.is_system else None,
        )

    def install(self) -> None:
        """Write the unit, and the secrets of its environment into the state folder. Raises SetupError."""
        self._require_systemd()
        self._require_own()
        given, secrets = given_environment(self.settings), secret_names()
        secret = {name: value for name, value in given.items() if name in secrets}
        try:
            if secret:
                lines = "".join(f"{name}={_quoted(value, '$')}\n" for name, value in secret.items())
                write_whole(self._environment_file, lines, mode=0o600)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, self.text(), mode=0o644)
        except PermissionError as error:
            raise SetupError(
                "the unit cannot be written", saw=str(error), do="run it with sudo, or leave out --system"
            ) from error

    def uninstall(self) -> bool:
        """Remove the unit. False if there is none. Raises SetupError while it runs."""
        self._require_systemd()
        if not self.path.exists():
            return False
        self._require_own()
        if (state := self.asked("is-active")) in ("active", "activating", "reloading"):
            raise SetupError(
                f"{self.name}.service runs",
                saw=state,
                do=f"run `{self.command('disable --now')}` first, which stops the stack",
            )
        self.path.unlink()
        self._environment_file.unlink(missing_ok=True)
        return True

    def asked(self, question: str) -> str:
        """The answer of `systemctl is-enabled` or `is-active`. Raises SetupError."""
        self._require_systemd()
        command = ["systemctl", *([] if self.is_system else ["--user"]), question, self.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        return done.stdout.strip() or (done.stderr.strip().splitlines() or ["unknown"])[0]

    def command(self, verb: str) -> str:
        """The command to type, such as `systemctl --user enable kanaria`."""
        sudo = "sudo systemctl" if self.is_system else "systemctl --user"
        return f"{sudo} {verb}" if verb == "daemon-reload" else f"{sudo} {verb} {self.name}"

    @property
    def _environment_file(self) -> Path:
        return self.settings.root / _ENVIRONMENT_FILE

    def _require_systemd(self) -> None:
        if shutil.which("systemctl") is None:
            raise SetupError(
                "this machine has no systemd",
                saw="no `systemctl` on the PATH",
                do="let this machine's service manager run `kanaria up --foreground`: SIGTERM stops the stack",
            )

    def _require_own(self) -> None:
        """Refuse a unit of another state folder."""
        mark = _assignment("KANARIA_HOME", str(self.settings.root))
        if self.path.exists() and mark not in self.path.read_text():
            raise SetupError(
                f"{self.name}.service belongs to another stack",
                saw=str(self.path),
                do="choose another name with --name",
            )


def unit(
    *,
    program: list[str],
    folder: Path,
    environment: Mapping[str, str],
    environment_file: Path | None = None,
    user: str | None = None,
) -> str:
    """The text of a unit that runs `program`, which restarts its own child processes.

    Args:
        folder: working directory.
        environment_file: file with more variables, which only its owner may read.
        user: user of the process in a unit of the machine; None for a user's unit.
    """
    return "\n".join(
        [
            "[Unit]",
            f"Description=Kanaria, the stack in {_specifiers(environment['KANARIA_HOME'])}",
            *(["Wants=network-online.target", "After=network-online.target"] if user else []),
            "",
            "[Service]",
            "Type=exec",
            *([f"User={user}"] if user else []),
            f"WorkingDirectory={_specifiers(str(folder))}",
            *(f"Environment={_assignment(name, value)}" for name, value in sorted(environment.items())),
            *([f"EnvironmentFile={_specifiers(str(environment_file))}"] if environment_file else []),
            f"ExecStart={_quoted(_specifiers(program[0]))} " + " ".join(map(_argument, program[1:])),
            "# If the main process is killed, the stack still serves, and the next main process takes it over.",
            "KillMode=process",
            "Restart=on-failure",
            f"RestartSec={_AGAIN_AFTER_S}",
            f"TimeoutStopSec={_STOP_WITHIN_S}",
            "# The stack itself restarts a version that was killed because of its memory.",
            "OOMPolicy=continue",
            "",
            "[Install]",
            f"WantedBy={'multi-user.target' if user else 'default.target'}",
            "",
        ]
    )


def _assignment(name: str, value: str) -> str:
    return _quoted(_specifiers(f"{name}={value}"))


def _argument(word: str) -> str:
    return _quoted(_specifiers(word).replace("$", "$$"))


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str, more: str = "") -> str:
    """`text` in quotes with special characters escaped; `more` are further special characters."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    for character in more:
        escaped = escaped.replace(character, f"\\{character}")
    return f'"{escaped}"'


def _user() -> str:
    """The user that runs the unit: the caller of sudo, or this one."""
    named = os.environ.get("SUDO_USER")
    if named:
        return named
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
