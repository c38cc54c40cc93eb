"""Files that are written as a whole: whoever reads one meanwhile sees the old or the new one, never a part."""

import os
import threading
from pathlib import Path


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o666, is_public: bool = False) -> None:
    """Replace the file at `path` in one step, on disk when this returns. A pipe or a terminal is written to.

    A failure leaves the old file, and nothing beside it. The file that is being written begins with a dot and ends with
    a number, so that nobody who looks for `*.json` finds it.

    Args:
        mode: rights of the new file, before the umask.
        is_public: whether everybody who may enter its folder may read it, whatever the umask says.

    Raises: OSError.
    """
    path = path.resolve()  # a link stays one
    encoded = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(encoded)
        return
    incoming = path.with_name(f".{path.name}.{os.getpid()}{threading.get_native_id()}")  # no other writer has this name
    try:
        with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(encoded)
            if is_public:
                os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())  # without it a power cut may leave the new name with an empty file
        incoming.replace(path)
    except BaseException:
        incoming.unlink(missing_ok=True)
        raise
