"""The local processes, kept by supervisord: added and removed while it runs, restarted when they die.

They are its children, not the controller's, so a killed controller leaves the versions serving and is
itself brought back. Knows nothing of what the processes are.
"""

import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.states import ProcessStates
from supervisor.xmlrpc import Faults, SupervisorTransport

from kanaria.errors import StackError

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 60.0
_LIVE = (ProcessStates.STARTING, ProcessStates.RUNNING, ProcessStates.STOPPING)


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_wait_s: int = 30  # time to finish its work after SIGTERM
    priority: int = 999  # lower starts first and stops last
    stop_group: bool = True  # SIGTERM goes to its children too


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What supervisord knows of one process."""

    pid: int
    is_alive: bool
    is_stopping: bool
    is_stopped: bool  # ended because it was asked to
    has_crashed: bool  # ended by itself at least once
    log: Path


class Supervisor:
    """One supervisord, reached over its socket."""

    def __init__(self, home: Path, socket: Path, logs: Path) -> None:
        self._home, self._socket, self._logs = home, socket, logs
        self._programs = home / "programs"
        self._config = home / "supervisord.conf"
        self._pidfile = home / "supervisord.pid"

    @property
    def is_running(self) -> bool:
        """Whether supervisord answers."""
        try:
            self._call("getState")
        except OSError:
            return False
        return True

    def start(self) -> None:
        """Start supervisord with no programs; it stays when this process ends. Raises StackError."""
        self._programs.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        for left_over in self._programs.glob("*.conf"):
            left_over.unlink()
        self._socket.unlink(missing_ok=True)
        self._config.write_text(
            _section("unix_http_server", file=self._socket, chmod="0700")
            + _section(
                "supervisord",
                logfile=self._logs / "supervisord.log",
                pidfile=self._pidfile,
                childlogdir=self._logs,
                silent="true",
            )
            + _section(
                "rpcinterface:supervisor",
                **{"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
            )
            + _section("include", files=self._programs / "*.conf")
        )
        done = subprocess.run(
            [str(Path(sys.executable).with_name("supervisord")), "-c", str(self._config)],
            capture_output=True,
            text=True,
            check=False,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.is_running:
            if done.returncode or time.monotonic() > deadline:
                saw = (done.stderr or done.stdout).strip() or "it does not answer"
                raise StackError(
                    "the process supervisor did not start", saw=saw, do=f"read {self._logs}/supervisord.log"
                )
            time.sleep(0.05)

    def add(self, program: Program) -> None:
        """Start `program` and keep it running. Does nothing when it is kept already. Raises StackError."""
        environment = ",".join(f"{name}={shlex.quote(value)}" for name, value in program.environment.items())
        (self._programs / f"{program.name}.conf").write_text(
            _section(
                f"program:{program.name}",
                command=shlex.join(map(str, program.command)),
                environment=environment,
                directory=Path.cwd(),
                priority=program.priority,
                autorestart="true",
                startsecs=1,
                startretries=1000,  # a supervisor that gives up at night helps nobody
                stopwaitsecs=program.stop_wait_s,
                stopasgroup=str(program.stop_group).lower(),
                killasgroup="true",
                redirect_stderr="true",
                stdout_logfile=self._logs / f"{program.name}.log",
                stdout_logfile_maxbytes="20MB",
                stdout_logfile_backups=2,
            )
        )
        try:
            self._call("reloadConfig")
            self._call("addProcessGroup", program.name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_ADDED:
                raise StackError(
                    f"{program.name} was not accepted by the process supervisor",
                    saw=fault.faultString,
                    do=f"read {self._programs / program.name}.conf",
                ) from fault

    def info(self, name: str) -> ProcessInfo | None:
        """What is known of `name`; None when it is not kept. Raises StackError when supervisord is gone."""
        try:
            answer = self._call("getProcessInfo", name)
        except xmlrpc.client.Fault:
            return None
        except OSError as error:
            raise StackError("the stack is not running", saw=str(error), do="start it with `kanaria up`") from error
        state = answer["state"]
        return ProcessInfo(
            pid=answer["pid"],
            is_alive=state in _LIVE,
            is_stopping=state == ProcessStates.STOPPING,
            is_stopped=state == ProcessStates.STOPPED,
            has_crashed=answer["stop"] > 0 and state not in (ProcessStates.STOPPING, ProcessStates.STOPPED),
            log=Path(answer["stdout_logfile"]),
        )

    def stop(self, name: str) -> None:
        """Ask `name` to end, and forget it once it has. Call again until `info` gives None."""
        info = self.info(name)
        if info is None:
            return
        try:
            if info.is_alive and not info.is_stopping:
                self._call("stopProcess", name, False)
            elif not info.is_alive:
                if not info.is_stopped:
                    self._call("stopProcess", name, False)  # ends the restarting of one that keeps dying
                self._call("removeProcessGroup", name)
                (self._programs / f"{name}.conf").unlink(missing_ok=True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in (Faults.NOT_RUNNING, Faults.STILL_RUNNING, Faults.BAD_NAME):
                raise

    def names(self) -> tuple[str, ...]:
        """Every program that is kept."""
        return tuple(process["name"] for process in self._call("getAllProcessInfo"))

    def shutdown(self) -> None:
        """End every program and supervisord itself, and wait for it. Raises StackError when it stays."""
        pid = int(self._call("getPID"))
        self._call("shutdown")
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while Path(f"/proc/{pid}").exists() if sys.platform == "linux" else self.is_running:
            if time.monotonic() > deadline:
                raise StackError("the stack does not stop", saw=f"supervisord runs, pid {pid}", do=f"kill {pid}")
            time.sleep(0.05)

    def _call(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)


def _section(title: str, **values: object) -> str:
    # supervisord expands %(...)s in values, so a literal percent sign is doubled
    lines = (f"{key} = {str(value).replace('%', '%%')}" for key, value in values.items() if value != "")
    return f"[{title}]\n" + "\n".join(lines) + "\n\n"
