"""Commands from other threads wait here for the controller's loop, and their senders for its answer.

A command whose sender no longer waits is never carried out.
"""

import queue
from collections.abc import Callable
from concurrent.futures import Future

from contract.errors import KanariaError
from rollout.control.commands import Command, ForWhatWasSeen

Execute = Callable[[Command | ForWhatWasSeen], int | None]
_LAST_WAIT_S = 4.0  # for the answer to a command that is being carried out when its time is up


class CommandQueue:
    """A queue with answers. `submit` may be called from any thread, `serve` by the loop's own."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Command | ForWhatWasSeen, Future[int | None]] | None] = queue.Queue()

    def submit(self, command: Command | ForWhatWasSeen, *, timeout_s: float) -> int | None:
        """Hand over a command and wait until it is carried out.

        Returns: what `execute` returned.
        Raises: what `execute` raised; TimeoutError when the loop does not answer. It says whether the command may still
            be carried out: only one that the loop has begun may.
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
        """Let the loop wait no longer."""
        self._waiting.put(None)

    def serve(self, execute: Execute, *, wait_s: float) -> None:
        """Answer the commands that came in; wait for the first one. A KanariaError goes to the sender alone."""
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
