"""The queue of commands from other threads to the controller's loop; senders wait for the loop's answer.

A command whose sender no longer waits is never carried out.
"""

import queue
from collections.abc import Callable
from concurrent.futures import Future

from contract.errors import KanariaError
from rollout.control.commands import Command, ForWhatWasSeen

Execute = Callable[[Command | ForWhatWasSeen], int | None]
_LAST_WAIT_S = 4.0  # further wait for a command that is being carried out when its timeout ends


class CommandQueue:
    """A queue with answers. `submit` may be called from any thread, `serve` only from the loop's thread."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Command | ForWhatWasSeen, Future[int | None]] | None] = queue.Queue()

    def submit(self, command: Command | ForWhatWasSeen, *, timeout_s: float) -> int | None:
        """Submit a command and wait until it is carried out.

        Returns: the result of `execute`.
        Raises: what `execute` raises; TimeoutError if the loop does not answer. Its message says whether the command
            may still be carried out, which is so only if the loop has begun it.
        """
        answer: Future[int | None] = Future()
        self._waiting.put((command, answer))
        try:
            return answer.result(timeout_s)
        except TimeoutError:
            if answer.cancel():  # exactly one of this and `set_running_or_notify_cancel` succeeds
                raise TimeoutError("the command was withdrawn: it will not be carried out") from None
        try:
            return answer.result(_LAST_WAIT_S)
        except TimeoutError:
            raise TimeoutError("the command was begun: it may still be carried out") from None

    def wake(self) -> None:
        """End the loop's wait."""
        self._waiting.put(None)

    def serve(self, execute: Execute, *, wait_s: float) -> None:
        """Carry out the waiting commands; wait up to `wait_s` for the first. A KanariaError goes only to the sender."""
        timeout: float | None = wait_s
        while True:
            try:
                waiting = self._waiting.get(block=timeout is not None, timeout=timeout)
            except queue.Empty:
                return
            timeout = None
            if waiting is None:
                continue
            command, answer = waiting
            if not answer.set_running_or_notify_cancel():
                continue  # its sender no longer waits
            try:
                answer.set_result(execute(command))
            except KanariaError as error:
                answer.set_exception(error)
            except Exception as error:
                answer.set_exception(error)
                raise
