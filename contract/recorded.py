"""Real requests with stable's answers, kept for replay: one file each, in a folder that only the owner can read.

The first line of a file is the SHA-256 of the second, so that a damaged or edited file is not replayed. The newest
requests of each route are kept; the folder is limited in files and bytes.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_plus

from pydantic import ConfigDict, Field, ValidationError

from contract.files import write_whole
from contract.http import CALLER_HEADER
from contract.records import Record

MOST_PER_ROUTE = 8
MOST_REQUESTS = 400
MOST_BYTES = 64 * 1024 * 1024  # of all files
LARGEST_REQUEST = 2 * 1024 * 1024  # bytes of a body; a request with a larger one is not kept
LARGEST_ANSWER = 256 * 1024  # bytes; of a larger answer only the hash is kept

# The only request headers that leave the gateway. The caller header holds the name of a key, not the key.
KEPT_HEADERS = ("content-type", "content-encoding", "accept", CALLER_HEADER)

_LONGEST_PATH = 4096  # characters with the query; a longer one is not searched for secrets, and not kept
_SECRET_NAME = re.compile(r"access|code|pass|pin|ticket")  # must be the whole name: `zip_code` is not a secret
_SECRET_WORD = re.compile(
    r"(api|app|access|account|auth|client|license|private|secret|subscription|user)?keys?"
    r"|[xo]?auth[nz]?|authori[sz]ation|authentication|cookie|[cx]srf|hmac|otp|pwd|sid|sig"
)
_SECRET_STEM = re.compile(r"bearer|credential|jwt|passphrase|passw|secret|session|signature|token(?!s$|i[sz])")
_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # splits `accessToken`
_JSON_NAME = re.compile(r"""["']([^"']{1,100})["']\s{0,9}:|[{,]\s{0,9}(\w{1,100})\s{0,9}:""")  # also with loose quotes
_JSON_TEXT = re.compile(r"""["'](eyJ)""")
_JWT = "eyJ"  # how the JSON `{"` begins in base64
_FILE = re.compile(r"(\d{6,})-([0-9a-f]{8})\.json")
_RECORDING = "recording"  # the file that says for how long requests are kept


class RecordedRequest(Record):
    """A request of a user, and what stable answered."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    at_s: float  # Unix seconds
    version: str  # the stable that answered
    route: str  # as the manifest of the version names it
    method: str
    path: str = Field(pattern="^/")  # with its query
    headers: dict[str, str]  # only `KEPT_HEADERS`
    body: bytes
    status: int
    media_type: str
    encoding: str
    answer: bytes | None  # None: it was too large to be kept
    answer_digest: str  # SHA-256 of the answer, hexadecimal

    @property
    def same(self) -> bytes:
        """A digest that is equal for equal requests, whatever the answer."""
        parts = (self.method.encode(), self.path.encode(), self.body)
        return hashlib.sha256(b"\0".join(parts)).digest()


class Recording(Record):
    """A recording that a command started."""

    until_s: float  # Unix seconds; a recording ends by itself if the command is killed or forgotten
    leave_out: tuple[str, ...] = ()  # routes


class Damaged(Exception):
    """A file was damaged or edited."""


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A file, with what its name says."""

    path: Path
    number: int
    route_key: str


def route_key(route: str) -> str:
    """The short text that stands for a route in file names."""
    return hashlib.sha256(route.encode()).hexdigest()[:8]


def has_secret(path: str) -> bool:
    """Whether a path or its query seems to hold a secret, percent-encoded or not. Such a request is not kept.

    It looks for names (`?token=1`, `;sid=1`, `/token/abc`, `?q={"token":1}`) and for the beginning of a JSON Web Token.
    The time grows with the length of the path; a path longer than `_LONGEST_PATH` counts as having a secret.
    """
    if len(path) > _LONGEST_PATH:
        return True
    decoded = unquote_plus(unquote_plus(path))  # twice: a URL in a value is encoded twice
    place, *queries = re.split(r"[?&;#]", decoded)
    segments = [segment for segment in place.split("/") if segment]
    named = (*segments[:-1], *(part for part in segments[-1:] if "=" in part), *queries)  # `/token` alone is a route
    in_json = (first or second for first, second in _JSON_NAME.findall(decoded))
    if any(map(_is_secret, (*(part.partition("=")[0] for part in named), *in_json))) or _JSON_TEXT.search(decoded):
        return True
    return any(value.startswith(_JWT) for value in (*segments, *(part.rpartition("=")[2] for part in queries)))


def _is_secret(name: str) -> bool:
    words = [word for word in re.split(r"[^a-z]+", _WORD_BEGINS.sub(" ", name).lower()) if word]
    is_one = len(words) == 1 and _SECRET_NAME.fullmatch(words[0]) is not None
    return is_one or any(_SECRET_WORD.fullmatch(word) or _SECRET_STEM.search(word) for word in words)


class RecordedFolder:
    """The folder `path`, which need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self) -> tuple[RecordedFile, ...]:
        """All of them, oldest first."""
        try:
            names = [(entry, _FILE.fullmatch(entry.name)) for entry in self.path.iterdir()]
        except FileNotFoundError:
            return ()
        found = [RecordedFile(entry, int(match[1]), match[2]) for entry, match in names if match]
        return tuple(sorted(found, key=lambda file: file.number))

    def requests(self) -> Iterator[tuple[int, RecordedRequest | None]]:
        """Each request with its number, oldest first; None for a damaged file."""
        for file in self.files():
            with suppress(FileNotFoundError):  # replaced meanwhile
                request = _whole(file.path)
                yield file.number, request

    def at(self, file: RecordedFile) -> RecordedRequest | None:
        """The request of a file; None if the file is damaged or was replaced."""
        with suppress(FileNotFoundError):
            return _whole(file.path)
        return None

    def read(self, number: int) -> RecordedRequest | None:
        """The request with this number; None: there is none. Raises Damaged."""
        file = next((file for file in self.files() if file.number == number), None)
        return None if file is None else _read(file.path)

    def keep(self, request: RecordedRequest) -> None:
        """Write a request and remove the files beyond the limits. One writer at a time. Raises OSError."""
        self._close()
        files = self.files()
        number = files[-1].number + 1 if files else 1
        line = request.model_dump_json().encode()
        digest = hashlib.sha256(line).hexdigest().encode()
        name = f"{number:06}-{route_key(request.route)}.json"
        write_whole(self.path / name, digest + b"\n" + line + b"\n", mode=0o600)
        for file in _too_many(self.files()):
            file.path.unlink(missing_ok=True)

    def clear(self) -> int:
        """Remove all requests; returns how many there were. Raises OSError."""
        files = self.files()
        for file in files:
            file.path.unlink(missing_ok=True)
        return len(files)

    def begin(self, recording: Recording) -> None:
        """Start a recording. Raises OSError."""
        self._close()
        write_whole(self.path / _RECORDING, recording.model_dump_json(), mode=0o600)

    def end(self) -> None:
        """End the recording. Raises OSError."""
        (self.path / _RECORDING).unlink(missing_ok=True)

    @property
    def is_recording(self) -> bool:
        """Whether a recording was started and not ended, even if its time is over."""
        return (self.path / _RECORDING).exists()

    def recording(self, now_s: float) -> Recording | None:
        """The recording that runs at `now_s`, Unix seconds; None: none does."""
        with suppress(OSError, ValidationError):
            found = Recording.model_validate_json((self.path / _RECORDING).read_bytes())
            return found if now_s < found.until_s else None
        return None

    def _close(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)


def _whole(path: Path) -> RecordedRequest | None:
    """The request of a file; None if the file is damaged. Raises FileNotFoundError."""
    try:
        return _read(path)
    except Damaged:
        return None


def _read(path: Path) -> RecordedRequest:
    try:
        digest, _, line = path.read_bytes().strip().partition(b"\n")
        if hashlib.sha256(line).hexdigest().encode() != digest:
            raise Damaged(path.name)
        return RecordedRequest.model_validate_json(line)
    except FileNotFoundError:
        raise
    except (OSError, ValidationError) as error:
        raise Damaged(path.name) from error


def _too_many(files: tuple[RecordedFile, ...]) -> Iterator[RecordedFile]:
    """The files to remove: the oldest of each route that has too many, then the oldest of the routes that have most."""
    of_route = Counter(file.route_key for file in files)
    sizes = {file: _size(file.path) for file in files}
    left = list(files)
    while left:
        victim = _first_of(left, {key: count for key, count in of_route.items() if count > MOST_PER_ROUTE})
        if victim is None and (len(left) > MOST_REQUESTS or sum(sizes[file] for file in left) > MOST_BYTES):
            most = max(of_route.values())
            victim = _first_of(left, {key: count for key, count in of_route.items() if count == most})
        if victim is None:
            return
        left.remove(victim)
        of_route[victim.route_key] -= 1
        yield victim


def _first_of(files: list[RecordedFile], routes: Mapping[str, int]) -> RecordedFile | None:
    return next((file for file in files if file.route_key in routes), None)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
