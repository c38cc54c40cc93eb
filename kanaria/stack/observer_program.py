"""The program of the observer. It runs next to the gateway if a version does not count its own answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kanaria.stack.ports import free_port
from kanaria.stack.python import own_module
from kanaria.stack.sandbox import Sandbox
from kanaria.stack.supervision import Program
from rollout.routers.envoy.settings import GatewaySettings

OBSERVER = "observer"  # the name of its program
_PORT = "--port"
OBSERVER_OPTION = "--observer"  # an argument of a controller that has one


@dataclass(frozen=True, slots=True)
class ObserverProgram:
    """The observer's process and addresses."""

    gateway: GatewaySettings
    port: int
    recorded: Path  # folder of recorded requests
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # paths and key of its records
    sandbox: Sandbox | None = None  # what it cannot reach

    @classmethod
    def beside(
        cls,
        gateway: GatewaySettings,
        recorded: Path,
        environment: Mapping[str, str],
        sandbox: Sandbox | None = None,
    ) -> "ObserverProgram":
        """An observer on a free port."""
        return cls(gateway, free_port(), recorded, environment, sandbox)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def program(self) -> Program:
        """The process."""
        options = {
            "--socket": str(self.gateway.observer_socket),
            "--feedback": str(self.gateway.feedback_socket),
            _PORT: str(self.port),
            "--answers": str(self.gateway.answers_path.absolute()),
            "--recorded": str(self.recorded),
        }
        arguments = [word for pair in options.items() for word in pair]
        command = own_module("kanaria.stack.observer_process", *arguments)
        return Program(OBSERVER, command, self.environment, stop_wait_s=5.0, sandbox=self.sandbox)

    @staticmethod
    def address_of(program: Program) -> str:
        """The address of a running observer's metrics."""
        return f"127.0.0.1:{program.command[program.command.index(_PORT) + 1]}"

    def controller_arguments(self) -> Iterator[str]:
        yield from (OBSERVER_OPTION, str(self.port))
