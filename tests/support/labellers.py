"""Clients that know the truth about every answer and report it at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import orjson

_SOON_S = 20.0


@dataclass(slots=True)
class Labelled:
    """What the clients of one `labelling` have seen so far."""

    requests: int = 0  # predictions that were answered and labelled
    failures: list[str] = field(default_factory=list)  # of either request


@contextmanager
def labelling(gateway: str, api_key: str, samples: Path, *, clients: int = 4) -> Iterator[Labelled]:
    """Run clients that send one prediction after another, each followed by its feedback, while the block runs."""
    seen, stop = Labelled(), threading.Event()
    known = [orjson.loads(line) for line in samples.read_bytes().splitlines()]

    def one_client(number: int) -> None:
        with httpx.Client(base_url=gateway, headers={"x-api-key": api_key}, timeout=_SOON_S, trust_env=False) as client:
            while not stop.is_set():
                sample = known[(number + seen.requests) % len(known)]
                try:
                    answer = client.post("/predict", json={"features": [sample["features"]]}).raise_for_status().json()
                    said = client.post(
                        "/feedback", json={"request_id": answer["request_id"], "labels": [sample["label"]]}
                    )
                    if not said.is_success:
                        seen.failures.append(said.text)
                except httpx.HTTPError as error:
                    seen.failures.append(repr(error))
                seen.requests += 1

    threads = [threading.Thread(target=one_client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
