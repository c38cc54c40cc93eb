"""The prediction log on disk: its files, and the format of a line. docs/prediction-log.md shows it."""

from pydantic import BaseModel, ConfigDict

COLUMNS_FILE = "columns.json"  # one in the folder of each version: `Columns`
SEGMENTS = "*.jsonl"  # in the same folder
OWN_REQUESTS = "preflight-"  # the ids of golden requests, which Kanaria sends itself, begin with this

LINE = b'{"at_s":%.3f,"request":%b,"answer":%b}\n'  # Unix seconds; the request and its answer as JSON
BEFORE_TIME, _, _ = LINE.partition(b"%")  # a line's time follows this prefix; a reader need not parse the line


class Columns(BaseModel):
    """What columns.json says about the segments beside it. A newer Kanaria may write more fields."""

    model_config = ConfigDict(frozen=True)

    version: str  # tag of the Bento
    model: str  # tag of its model
    features: tuple[str, ...]  # names of the columns in `features` of each request
    words: tuple[str, ...] = ()  # the features that are texts, not numbers
    hashed: tuple[str, ...]  # names of the columns in `hashed` of each request


def version_folder(version: str) -> str:
    """The name of a version's folder: its tag, with characters that have a meaning in paths replaced."""
    return version.replace(":", "@").replace("/", "_")


def segment_name(began_s: float, process: int) -> str:
    """The name of the segment that a process started at `began_s`, Unix seconds; names sort by time."""
    return f"{1000 * began_s:.0f}-{process}.jsonl"


def began_s(segment: str) -> float | None:
    """When the segment was started, Unix seconds; None if its name does not say."""
    milliseconds, _, _ = segment.partition("-")
    return int(milliseconds) / 1000 if milliseconds.isdecimal() else None
