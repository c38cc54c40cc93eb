"""Commands between threads: the loop answers each one, or never executes it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollout.control.command_queue import CommandQueue
from rollout.control.commands import Command, PromoteNow
from rollout.errors import CommandRefused

PROMOTE = PromoteNow("ann")


def recorder(done: list[Command]) -> Callable[[Command], int | None]:
    def execute(command: Command) -> int:
        done.append(command)
        return len(done)

    return execute


def test_a_command_whose_sender_gave_up_is_never_executed() -> None:
    """The loop hung while the sender waited. A command that was reported as failed must not be executed later."""
    commands, done = CommandQueue(), list[Command]()
    with pytest.raises(TimeoutError, match="will not be carried out"):
        commands.submit(PROMOTE, timeout_s=0.01)
    commands.serve(recorder(done), wait_s=0)
    assert done == []


def test_commands_after_a_withdrawn_one_are_executed() -> None:
    """Only the withdrawn command is skipped."""
    commands, done = CommandQueue(), list[Command]()
    with pytest.raises(TimeoutError):
        commands.submit(PROMOTE, timeout_s=0.01)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(commands.submit, PROMOTE, timeout_s=30)
        while not answer.done():
            commands.serve(recorder(done), wait_s=0.01)
    assert (answer.result(), done) == (1, [PROMOTE])


def test_a_command_that_is_running_when_its_time_is_up_is_answered() -> None:
    """Its sender gets the result, not a timeout."""
    commands, timeout_s = CommandQueue(), 0.5

    def slowly(_: Command) -> int:
        is_up_s = time.monotonic() + timeout_s  # the loop took the command after it was sent
        while time.monotonic() <= is_up_s:
            threading.Event().wait(0.01)
        return 7

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(commands.submit, PROMOTE, timeout_s=timeout_s)
        while not answer.done():
            commands.serve(slowly, wait_s=0.01)
        assert answer.result() == 7


def test_every_command_of_many_senders_is_either_executed_or_refused() -> None:
    """Whoever wins the race: a sender gets an answer exactly if its command was executed."""
    commands, done, stopped = CommandQueue(), list[Command](), threading.Event()

    def loop() -> None:
        while not stopped.is_set():
            commands.serve(recorder(done), wait_s=0.0005)

    def send(number: int) -> bool:
        try:
            commands.submit(PromoteNow(str(number)), timeout_s=0.0005)
        except TimeoutError:
            return False
        return True

    worker = threading.Thread(target=loop)
    worker.start()
    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(send, range(2000)))
    stopped.set()
    worker.join()
    commands.serve(recorder(done), wait_s=0)
    assert sorted(int(command.by) for command in done) == [number for number, was in enumerate(answered) if was]


@pytest.mark.parametrize("error", [CommandRefused("no", saw="", do=""), ZeroDivisionError()])
def test_the_sender_gets_the_error_of_its_command(error: Exception) -> None:
    """This includes an error that ends the loop: no sender waits for an answer that cannot come."""
    commands = CommandQueue()

    def fail(_: Command) -> int:
        raise error

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(commands.submit, PROMOTE, timeout_s=30)
        while not answer.done():
            try:
                commands.serve(fail, wait_s=0.01)
            except ZeroDivisionError:
                assert isinstance(error, ZeroDivisionError)
        assert answer.exception() is error


def test_a_stopping_loop_does_not_wait_for_commands() -> None:
    """An idle controller waits for seconds for a command; `kanaria down` must not wait as long."""
    commands, done = CommandQueue(), list[Command]()
    commands.wake()
    commands.serve(recorder(done), wait_s=3600)
    assert done == []
