"""Who is told of decisions: a file of addresses as Apprise writes them, one a line.

An address holds a password or a token. It is in no message, log or error: those name its line and its service.
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
_HIDDEN_IN_WORDS = 4  # letters; a shorter part of an address may be part of any word, and is hidden as a whole one
_LONGEST_S = 30.0  # for one message; a plug-in's own limits are for each part that it waits for


class NotDelivered(Exception):
    """An address did not take a message; the text says what was seen, without secrets."""


class _LastWords(logging.Handler):
    """What Apprise logs about a failure, which may hold the address: only the thread that sends there sees it."""

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
    """One that is told."""

    line: int
    service: str  # `slack`, `mailto`
    kinds: frozenset[str]  # of messages that it gets
    key: str  # tells it from others, and not what it is
    url: str
    plugin: NotifyBase
    _is_busy: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"line {self.line} ({self.service})"

    def send(self, title: str, lines: tuple[str, ...], *, limit_s: float = _LONGEST_S) -> None:
        """Deliver a message. Raises NotDelivered, also where the address takes longer than `limit_s` seconds.

        What takes longer goes on in a thread of its own; until it ends nothing else is sent there.
        """
        if not self._is_busy.acquire(blocking=False):
            raise NotDelivered("it has not ended its answer to the message before")
        try:
            said = ended_within(limit_s, partial(self._sent, title, lines))
        except TimeoutError:
            raise NotDelivered(f"it did not end its answer within {limit_s:g} s") from None
        except OSError as error:
            self._is_busy.release()
            raise NotDelivered(f"nothing was sent: {error}") from None
        if said:
            raise NotDelivered(self._without_secrets(said))

    def _sent(self, title: str, lines: tuple[str, ...]) -> str:
        """What kept a message from being taken; empty: it was taken. It is busy no more."""
        try:
            is_taken = self.plugin.notify(title=title, body="\n\n".join(lines), body_format=NotifyFormat.TEXT)
            return "" if is_taken else "; ".join(_last_words.said) or "it did not take the message"
        except Exception as error:  # noqa: BLE001 - a plug-in of another project, of which there are two hundred
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
            "nobody can be told of decisions",
            saw=f"KANARIA_NOTIFY={path}: {one_line(str(error))}",
            do="correct the path, or unset it",
        ) from error
    if rights & (stat.S_IRWXG | stat.S_IRWXO):
        raise SetupError(
            "the addresses of notifications can be read by others, and hold secrets",
            saw=f"{path} has the rights {stat.filemode(rights)}",
            do=f"chmod 600 {path}",
        )
    found: dict[str, Address] = {}
    for address in _addresses(path, text):
        if before := found.get(address.key):
            raise _wrong(path, address.line, f"it is the address of line {before.line} again", "remove one of the two")
        found[address.key] = address
    if not found:
        raise SetupError(
            "nobody is told of decisions", saw=f"{path} has no address", do="write one a line, or unset KANARIA_NOTIFY"
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
            path, number, "it is no address", "write `service://...`, or `waiting,rolled_back=service://...`; no blanks"
        )
    kinds = frozenset(kind.strip() for kind in (parts["kinds"] or ",".join(KINDS)).split(","))
    if unknown := sorted(kinds.difference(KINDS)):
        typed = [f"there are no messages `{kind}`{near}" for kind in unknown if (near := nearest(kind, KINDS))]
        saw = typed[0] if typed else "there are no such messages"  # what is unlike any kind may be a secret
        raise _wrong(path, number, saw, f"name some of {', '.join(KINDS)}")
    service, url = parts["service"].lower(), parts["url"]
    plugin = Apprise.instantiate(url)
    if not isinstance(plugin, NotifyBase):
        raise _wrong(path, number, *_what_is_wrong(service))
    key = hashlib.sha256(url.encode()).hexdigest()[:24]
    return Address(number, service, kinds, key, url, plugin)


def _what_is_wrong(service: str) -> tuple[str, str]:
    """What is wrong with an address that Apprise does not take, and what to do; never the address itself."""
    known = NotificationManager()  # type: ignore[no-untyped-call]
    if service in ("http", "https"):
        own = "jsons" if service == "https" else "json"
        return f"`{service}://` names no service", f"for a webhook that takes JSON write `{own}://` instead"
    if service not in known:
        near = nearest(service, known.schemas())  # type: ignore[no-untyped-call]
        saw = f"there is no service `{service}`{near}" if near else "there is no such service"
        return saw, "take one of Apprise's services"
    return (
        f"the service `{service}` needs more, or something else, than this address says",
        "see https://github.com/caronc/apprise/wiki for its form; blanks and other signs are written as %20",
    )


def _wrong(path: Path, number: int, saw: str, do: str) -> SetupError:
    return SetupError("an address of notifications cannot be used", saw=f"{path}, line {number}: {saw}", do=do)
