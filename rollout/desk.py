"""Where commands from other threads wait for the controller's loop, and their senders for its answer."""

import queue
from collections.abc import Callable
from concurrent.futures import Future

from rollout.commands import Command
from rollout.errors import RolloutError

Execute = Callable[[Command], int | None]


class CommandDesk:
    """A queue with answers. `submit` may be called from any thread, `serve` by the loop's own."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Command, Future[int | None]]] = queue.Queue()

    def submit(self, command: Command, *, timeout_s: float) -> int | None:
        """Hand over a command and wait until it was carried out.

        Returns: what `execute` returned. Raises: what it raised; TimeoutError when the loop does not answer.
        """
        answer: Future[int | None] = Future()
        self._waiting.put((command, answer))
        return answer.result(timeout_s)

    def serve(self, execute: Execute, *, wait_s: float) -> None:
        """Answer the commands that came in; wait for the first one."""
        timeout: float | None = wait_s
        while True:
            try:
                command, answer = self._waiting.get(block=timeout is not None, timeout=timeout)
            except queue.Empty:
                return
            timeout = None
            try:
                answer.set_result(execute(command))
            except RolloutError as error:
                answer.set_exception(error)
