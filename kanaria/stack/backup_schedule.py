"""Copies the ledger on a schedule. The controller's process starts it.

Each copy is `kanaria ledger backup` in its own process with lower priority, so the control loop does not wait for it.
A copy that fails, for example on a full disk, is logged and counted, and the next one is tried on schedule.
"""

import subprocess
import threading
import time
from contextlib import suppress

import structlog

from kanaria.stack.python import own_module
from rollout.control.metrics import ControllerMetrics

log = structlog.get_logger()

_FIRST_AFTER_S = 60.0  # at most, so that a stack that runs only for an hour has a copy
_LONGEST_S = 600.0
_POLL_S = 0.5
_NICE = "15"


class BackupSchedule(threading.Thread):
    """A thread that copies the ledger at intervals until `stop`."""

    def __init__(self, metrics: ControllerMetrics, *, every_s: float) -> None:
        """
        Args:
            metrics: record the time of the last copy and the number of failures.
            every_s: seconds between two copies; 0: there are none.
        """
        super().__init__(name="backups", daemon=True)
        self._metrics, self._every_s = metrics, every_s
        self._stopped = threading.Event()

    def run(self) -> None:
        wait_s = min(self._every_s, _FIRST_AFTER_S)
        while self._every_s and not self._stopped.wait(wait_s):
            try:
                self._copy()
            except Exception as error:  # noqa: BLE001 - the next copy is tried on schedule
                self._failed(str(error))
            wait_s = self._every_s

    def stop(self) -> None:
        """End the thread and a running copy."""
        self._stopped.set()
        if self.is_alive():
            self.join()

    def _copy(self) -> None:
        command = ["nice", "-n", _NICE, *own_module("kanaria", "ledger", "backup")]
        began_s, output = time.monotonic(), ""
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    output, _ = process.communicate(timeout=_POLL_S)
                if self._stopped.is_set() or time.monotonic() - began_s > _LONGEST_S:
                    process.terminate()
        if process.returncode:
            self._failed(output.strip()[-500:])
        else:
            self._metrics.ledger_copied.set_to_current_time()
            self._metrics.ledger_copy_failures.set(0)
            log.info("ledger_copied", output=output.strip()[-500:])

    def _failed(self, why: str) -> None:
        self._metrics.ledger_copy_failures.inc()
        log.warning("ledger_not_copied", output=why)
