"""Ends this process at once if another one holds its lock."""

import os
import threading

import structlog

from rollout.errors import LedgerHeld
from rollout.ledger.lock import WriterLock

log = structlog.get_logger()

_EVERY_S = 0.5


class LockGuard(threading.Thread):
    """Checks whether the file of a lock that this process holds was removed or replaced.

    A removed file is created and locked again. If another process has locked it first, this one ends without another
    tick: a controller may be killed at any time, and two must never shift the same traffic.
    """

    def __init__(self, lock: WriterLock) -> None:
        super().__init__(name="lock-guard", daemon=True)
        self._lock = lock
        self._says_so = True

    def run(self) -> None:
        wait = threading.Event()
        while not wait.wait(_EVERY_S):
            if not self._lock.is_mine:
                self._take_again()

    def _take_again(self) -> None:
        try:
            self._lock.take()
        except LedgerHeld as held:
            log.critical("lock_lost", saw=held.saw)
            os._exit(1)
        except OSError as error:  # the folder is missing or read-only: no other process can lock it either
            if self._says_so:
                log.critical("lock_file_gone", saw=str(error))
            self._says_so = False
            return
        self._says_so = True
        log.warning("lock_file_made_again", saw=f"{self._lock.path} was removed or replaced")
