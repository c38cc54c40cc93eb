"""Ends this process at once when another one may act in its place."""

import os
import threading

import structlog

from rollout.errors import LedgerHeld
from rollout.ledger.lock import WriterLock

log = structlog.get_logger()

_EVERY_S = 0.5


class LockGuard(threading.Thread):
    """Sees whether somebody removed or replaced the file of a lock that this process holds.

    A removed file is made and locked again. Where another process was quicker, this one ends without another beat: a
    controller may be killed at any time, and two must never shift the same traffic.
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
        except OSError as error:  # the folder is gone, or cannot be written: nobody else can lock it either
            if self._says_so:
                log.critical("lock_file_gone", saw=str(error))
            self._says_so = False
            return
        self._says_so = True
        log.warning("lock_file_made_again", saw=f"{self._lock.path} was removed or replaced")
