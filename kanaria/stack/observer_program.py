"""The observer of this stack: it runs beside the gateway where a version does not count its answers itself."""

from collections.abc import Iterator
from dataclasses import dataclass

from kanaria.stack.ports import free_port
from kanaria.stack.python import own_module
from kanaria.stack.supervision import Program
from rollout.routers.envoy.settings import GatewaySettings

OBSERVER = "observer"  # the name of its program
OBSERVER_OPTION = "--observer"  # an argument of a controller that has one


@dataclass(frozen=True, slots=True)
class ObserverProgram:
    """Where it listens."""

    gateway: GatewaySettings
    port: int

    @classmethod
    def beside(cls, gateway: GatewaySettings) -> "ObserverProgram":
        """One at a free port."""
        return cls(gateway, free_port())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def program(self) -> Program:
        """The process."""
        socket = str(self.gateway.observer_socket)
        answers = str(self.gateway.answers_path.absolute())
        command = own_module("observer.process", "--socket", socket, "--port", str(self.port), "--answers", answers)
        return Program(OBSERVER, command, stop_wait_s=5.0)

    def controller_arguments(self) -> Iterator[str]:
        yield from (OBSERVER_OPTION, str(self.port))
