"""The systemd unit that brings a stack back after a reboot."""

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

_ENVIRONMENT_FILE = "service.env"  # secrets; a unit can be read by everybody
_STOP_WITHIN_S = 180
_AGAIN_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Service:
    """The unit of one state folder: of a user, or of the whole machine."""

    settings: Settings
    name: str
    is_system: bool

    @property
    def path(self) -> Path:
        """Where the unit lies."""
        if self.is_system:
            return Path("/etc/systemd/system", f"{self.name}.service")
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(config, "systemd", "user", f"{self.name}.service")

    def text(self) -> str:
        """The unit."""
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
        """Write the unit, and beside the state what is secret in its environment. Raises SetupError."""
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
        """Remove the unit; False when there is none. Raises SetupError while it runs."""
        self._require_systemd()
        if not self.path.exists():
            return False
        self._require_own()
        if (state := self.asked("is-active")) in ("active", "activating", "reloading"):
            raise SetupError(
                f"{self.name}.service runs", saw=state, do=f"`{self.command('disable --now')}` first: it ends the stack"
            )
        self.path.unlink()
        self._environment_file.unlink(missing_ok=True)
        return True

    def asked(self, question: str) -> str:
        """What `systemctl is-enabled` or `is-active` answers. Raises SetupError."""
        self._require_systemd()
        command = ["systemctl", *([] if self.is_system else ["--user"]), question, self.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        return done.stdout.strip() or (done.stderr.strip().splitlines() or ["unknown"])[0]

    def command(self, verb: str) -> str:
        """What to type, as `systemctl --user enable kanaria`."""
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
                do="let what starts services here run `kanaria up --foreground`: it stays, and SIGTERM ends the stack",
            )

    def _require_own(self) -> None:
        """Refuse a unit of another state folder."""
        mark = _assignment("KANARIA_HOME", str(self.settings.root))
        if self.path.exists() and mark not in self.path.read_text():
            raise SetupError(
                f"{self.name}.service is another stack's", saw=str(self.path), do="choose another name with --name"
            )


def unit(
    *,
    program: list[str],
    folder: Path,
    environment: Mapping[str, str],
    environment_file: Path | None = None,
    user: str | None = None,
) -> str:
    """A unit that runs `program`, which stays and starts again by itself what it had started.

    Args:
        folder: where it runs.
        environment_file: more variables, which only its owner may read.
        user: whose process it is, in a unit of the machine; None for a unit of a user.
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
            "# When the main process is killed, the stack serves on, and the next one takes it over.",
            "KillMode=process",
            "Restart=on-failure",
            f"RestartSec={_AGAIN_AFTER_S}",
            f"TimeoutStopSec={_STOP_WITHIN_S}",
            "# A version that is killed for its memory is started again by the stack itself.",
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
    """In quotes, with what has a meaning there escaped; `more` are characters that have one besides."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    for character in more:
        escaped = escaped.replace(character, f"\\{character}")
    return f'"{escaped}"'


def _user() -> str:
    """Who is to run it: whoever called sudo."""
    named = os.environ.get("SUDO_USER")
    if named:
        return named
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
