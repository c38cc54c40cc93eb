"""Who is notified about decisions: a file of Apprise addresses, one per line.

An address contains a password or a token. It never appears in a message, log or error: these name its line and service.
"""

import hashlib
import logging
import re
import stat
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from apprise import Apprise, NotifyBase, NotifyFormat
from apprise.manager_plugins import NotificationManager

from contract.complaints import nearest
from contract.deadline import ended_within
from contract.plain_text import one_line
from kanaria.errors import SetupError
from rollout.explain.notices import KINDS

# `waiting, rolled_back = slack://...`: only messages of these kinds.
_LINE = re.compile(r"(?:(?P<kinds>[^=:/]+)=)?\s*(?P<url>(?P<service>[^:/=\s]+)://\S+)")
_HIDDEN_IN_WORDS = 4  # characters; a shorter part of an address is hidden only where it is a whole word
_LONGEST_S = 30.0  # for one message; a plug-in's own timeouts are per step


class NotDelivered(Exception):
    """An address did not accept a message. The text says what was seen, without secrets."""


class _LastWords(logging.Handler):
    """Collects what Apprise logs about a failure, per sending thread. It may contain secrets, so it is not logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._of_thread = threading.local()

    @property
    def said(self) -> deque[str]:
        if not hasattr(self._of_thread, "said"):
            self._of_thread.said = deque(maxlen=3)
        said: deque[str] = self._of_thread.said
        return said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


_last_words = _LastWords()
_logger = logging.getLogger("apprise")
_logger.handlers, _logger.propagate = [_last_words], False


@dataclass(frozen=True, slots=True)
class Address:
    """One address that gets messages."""

    line: int
    service: str  # such as `slack` or `mailto`
    kinds: frozenset[str]  # kinds of messages that it gets
    key: str  # identifies it without revealing it
    url: str
    plugin: NotifyBase
    _is_busy: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"line {self.line} ({self.service})"

    def send(self, title: str, lines: tuple[str, ...], *, limit_s: float = _LONGEST_S) -> None:
        """Deliver a message. Raises NotDelivered, also if it takes longer than `limit_s` seconds.

        A delivery that takes longer goes on in its own thread. Until it ends, nothing else is sent to this address.
        """
        if not self._is_busy.acquire(blocking=False):
            raise NotDelivered("it is still handling the previous message")
        try:
            said = ended_within(limit_s, partial(self._sent, title, lines))
        except TimeoutError:
            raise NotDelivered(f"it did not finish its answer within {limit_s:g} s") from None
        except OSError as error:
            self._is_busy.release()
            raise NotDelivered(f"nothing was sent: {error}") from None
        if said:
            raise NotDelivered(self._without_secrets(said))

    def _sent(self, title: str, lines: tuple[str, ...]) -> str:
        """Send a message. Returns why it was not accepted; empty if it was. The address is then free again."""
        try:
            is_taken = self.plugin.notify(title=title, body="\n\n".join(lines), body_format=NotifyFormat.TEXT)
            return "" if is_taken else "; ".join(_last_words.said) or "it did not accept the message"
        except Exception as error:  # noqa: BLE001 - one of two hundred plug-ins of another project
            return f"{type(error).__name__}: {error}"
        finally:
            self._is_busy.release()

    def _without_secrets(self, text: str) -> str:
        parts = {part for raw in re.split(r"[/?&=:@,]+", self.url) for part in (raw, unquote(raw))}
        for part in sorted(parts, key=len, reverse=True):
            if not part or part == self.service:
                continue
            pattern = re.escape(part)
            text = re.sub(pattern if len(part) >= _HIDDEN_IN_WORDS else rf"(?<!\w){pattern}(?!\w)", "***", text)
        return one_line(text)


def read_addresses(path: Path) -> tuple[Address, ...]:
    """The addresses of the file `path`. Raises SetupError."""
    try:
        text, rights = path.read_text(encoding="utf-8-sig"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(
            "the addresses of notifications cannot be read, so nobody is notified",
            saw=f"KANARIA_NOTIFY={path}: {one_line(str(error))}",
            do="correct the path, or unset KANARIA_NOTIFY",
        ) from error
    if rights & (stat.S_IRWXG | stat.S_IRWXO):
        raise SetupError(
            "other users can read the addresses of notifications, which contain secrets",
            saw=f"{path} has the mode {stat.filemode(rights)}",
            do=f"chmod 600 {path}",
        )
    found: dict[str, Address] = {}
    for address in _addresses(path, text):
        if before := found.get(address.key):
            raise _wrong(path, address.line, f"the same address as in line {before.line}", "remove one of the two")
        found[address.key] = address
    if not found:
        raise SetupError(
            "nobody is notified about decisions",
            saw=f"{path} has no address",
            do="write one per line, or unset KANARIA_NOTIFY",
        )
    return tuple(found.values())


def _addresses(path: Path, text: str) -> Iterator[Address]:
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line and not line.startswith("#"):
            yield _address(path, number, line)


def _address(path: Path, number: int, line: str) -> Address:
    parts = _LINE.fullmatch(line)
    if parts is None:
        raise _wrong(
            path,
            number,
            "it is not an address",
            "write `service://...`, or `waiting,rolled_back=service://...`; no blanks",
        )
    kinds = frozenset(kind.strip() for kind in (parts["kinds"] or ",".join(KINDS)).split(","))
    if unknown := sorted(kinds.difference(KINDS)):
        typed = [f"there are no messages `{kind}`{near}" for kind in unknown if (near := nearest(kind, KINDS))]
        saw = typed[0] if typed else "there are no such messages"  # a word unlike any kind may be a secret
        raise _wrong(path, number, saw, f"name some of {', '.join(KINDS)}")
    service, url = parts["service"].lower(), parts["url"]
    plugin = Apprise.instantiate(url)
    if not isinstance(plugin, NotifyBase):
        raise _wrong(path, number, *_what_is_wrong(service))
    key = hashlib.sha256(url.encode()).hexdigest()[:24]
    return Address(number, service, kinds, key, url, plugin)


def _what_is_wrong(service: str) -> tuple[str, str]:
    """What is wrong with an address that Apprise refuses, and what to do. Never shows the address itself."""
    known = NotificationManager()  # type: ignore[no-untyped-call]
    if service in ("http", "https"):
        own = "jsons" if service == "https" else "json"
        return f"`{service}://` names no service", f"for a webhook that accepts JSON write `{own}://` instead"
    if service not in known:
        near = nearest(service, known.schemas())  # type: ignore[no-untyped-call]
        saw = f"there is no service `{service}`{near}" if near else "there is no such service"
        return saw, "use one of Apprise's services"
    return (
        f"the address is incomplete or has the wrong form for the service `{service}`",
        "see https://github.com/caronc/apprise/wiki for its form; write blanks and special characters as %20 and so on",
    )


def _wrong(path: Path, number: int, saw: str, do: str) -> SetupError:
    return SetupError("an address of notifications cannot be used", saw=f"{path}, line {number}: {saw}", do=do)
