"""The answers to one request are paired, in bounded memory."""

import pytest

from contract.observation import CANARY, COPY, REPEAT, STABLE, STABLE_COPY
from observer import pairing
from observer.answers import Answer
from observer.pairing import Met, Pairs, Sampler, Versions

OF = Versions("m:v1", "m:v2")


def answer(body: bytes = b"{}") -> Answer:
    return Answer(200, "application/json", "", body, b"")


class Lost:
    """Counts the answers that were not compared."""

    def __init__(self) -> None:
        self.unpaired = self.ambiguous = 0
        self.pairs = Pairs(lost=self._lost, ambiguous=self._ambiguous)

    def add(
        self, request: str, role: str, *, at_s: float = 0.0, body: bytes = b"{}", is_sampled: bool = False
    ) -> list[Met]:
        route = "/label" if role in (STABLE, CANARY) else ""
        return list(self.pairs.add(OF, request, role, answer(body), now_s=at_s, route=route, is_sampled=is_sampled))

    def _lost(self, count: int) -> None:
        self.unpaired += count

    def _ambiguous(self) -> None:
        self.ambiguous += 1


@pytest.mark.parametrize("order", [(STABLE, COPY, REPEAT), (COPY, REPEAT, STABLE), (REPEAT, STABLE, COPY)])
def test_answers_are_paired_in_any_order(order: tuple[str, ...]) -> None:
    lost = Lost()
    met = [each for role in order for each in lost.add("a", role, body=role.encode())]
    assert {(each.role, each.route) for each in met} == {(COPY, "/label"), (REPEAT, "/label")}
    assert all((each.stable.body, each.other.body) == (STABLE.encode(), each.role.encode()) for each in met)
    assert (lost.unpaired, lost.ambiguous) == (0, 0)


@pytest.mark.parametrize("order", [(CANARY, STABLE_COPY), (STABLE_COPY, CANARY)])
def test_a_canarys_answer_is_paired_with_stables_answer_to_the_copy(order: tuple[str, ...]) -> None:
    """Whichever version answered the user, the pair names stable's answer."""
    lost = Lost()
    (met,) = (each for role in order for each in lost.add("a", role, body=role.encode(), is_sampled=True))
    assert (met.role, met.route, met.is_sampled) == (STABLE_COPY, "/label", True)
    assert (met.stable.body, met.other.body) == (STABLE_COPY.encode(), CANARY.encode())


def test_a_sampled_request_without_a_copy_is_not_counted_as_lost() -> None:
    """A copy whose original was never shown is counted."""
    lost = Lost()
    lost.add("a", STABLE, is_sampled=True)
    lost.add("b", CANARY, is_sampled=True)
    lost.add("c", STABLE_COPY, is_sampled=True)
    lost.pairs.expire(pairing.LONGEST_WAIT_S + 1)
    assert (lost.unpaired, len(lost.pairs), lost.pairs.bytes) == (1, 0, 0)


def test_answers_to_different_requests_are_not_paired() -> None:
    lost = Lost()
    assert lost.add("a", STABLE) == lost.add("b", COPY) == []


def test_answers_with_an_ambiguous_id_are_not_compared() -> None:
    """It is unknown which answers belong together, also for the third and every later request with that id."""
    lost = Lost()
    lost.add("a", STABLE)
    assert len(lost.add("a", COPY, at_s=1.0)) == 1
    for second in range(2, 300, 60):
        assert lost.add("a", STABLE, at_s=second) == []
        assert lost.add("a", COPY, at_s=second + 1) == []
    assert lost.ambiguous == 10
    assert lost.add("a", STABLE, at_s=500.0) == []
    assert len(lost.add("a", COPY, at_s=500.0)) == 1


def test_an_answer_that_waits_too_long_is_counted_and_dropped() -> None:
    lost = Lost()
    lost.add("a", STABLE)
    lost.add("b", STABLE, at_s=1.0)
    lost.add("b", COPY, at_s=1.0)
    lost.pairs.expire(pairing.LONGEST_WAIT_S + 2)
    assert (lost.unpaired, len(lost.pairs), lost.pairs.bytes) == (1, 0, 0)


def test_waiting_answers_are_bounded_in_bytes_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Lost()
    for number in range(100):
        lost.add(str(number), STABLE, body=b"x" * 2_000_000)
    assert lost.pairs.bytes <= pairing.MOST_BYTES
    assert lost.unpaired == 100 - len(lost.pairs)
    monkeypatch.setattr(pairing, "MOST_REQUESTS", 50)
    small = Lost()
    for number in range(100):
        small.add(str(number), COPY)
    assert len(small.pairs) == 50


def test_either_all_answers_to_a_request_are_taken_or_none() -> None:
    """Of ten times as many requests as the limit, about a tenth are taken, each with all its answers."""
    sampler = Sampler()
    taken: dict[str, set[bool]] = {}
    for second in range(20):
        for number in range(3000):
            request = f"{second}-{number}"
            now_s = second + number / 3001
            taken[request] = {sampler.takes(request, is_users=is_users, now_s=now_s) for is_users in (True, False)}
    late = [answers for request, answers in taken.items() if int(request.split("-")[0]) > 2]
    assert sampler.share == pytest.approx(0.1, rel=0.1)
    assert sum(answers == {True} for answers in late) / len(late) == pytest.approx(0.1, rel=0.2)
    assert sum(len(answers) == 2 for answers in late) < 0.01 * len(late)


def test_a_few_requests_are_all_taken() -> None:
    sampler = Sampler()
    assert all(sampler.takes(str(number), is_users=True, now_s=number / 10) for number in range(1000))
