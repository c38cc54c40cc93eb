"""What judge replicas share in a ConfigMap, with an API server that refuses, has conflicts or is away."""

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import LedgerError, SpecError
from rollout.server.kept import Attempt, Failure, Kept
from rollout.server.quarantine import Quarantine
from rollout.server.shared import Tries, change_of
from rollout.server.shared_map import SharedMap
from tests.support.kubernetes_api import KubernetesApi, kubernetes_api

pytestmark = pytest.mark.needs("serve")

RELEASE = "shop_digits"  # the key in the ConfigMap
NOW_S = 1000.0
BAD = Attempt("shop", "digits", "7fd54")
BUILD = Attempt("shop", "digits", "digits", "checksum-1")
SAID: dict[str, Any] = {
    "verdict": "fail",
    "reason": "5 of 9 requests failed",
    "since": "today",
    "signals": {},
    "next": None,
    "report": "",
    "notes": [],
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    with kubernetes_api(tmp_path / "account") as server:
        yield server


def replica(api: KubernetesApi, name: str) -> Quarantine:
    """A replica with its own ledger; the same name is the same replica after a restart."""
    return quarantine(Kept(api.folder.parent / name), SharedMap(api.folder, api.environment))


def quarantine(kept: Kept, shared: SharedMap) -> Quarantine:
    """A quarantine whose metric store has a clock that is later than every time in these tests."""
    return Quarantine(kept, shared, now_s=lambda: NOW_S)


def failed(attempt: Attempt, at_s: float = 100.0) -> Failure:
    return Failure(attempt, at_s, SAID)


@pytest.mark.parametrize("attempt", [BAD, BUILD], ids=["argo", "flagger"])
def test_a_failure_survives_the_replica_that_found_it(api: KubernetesApi, attempt: Attempt) -> None:
    """The ConfigMap has it, and a lift by another replica applies to all."""
    assert replica(api, "a").keep(failed(attempt)) == []
    assert len(json.dumps(api.shared(RELEASE))) < 300
    found, notes = replica(api, "b").failure(attempt, "http://b/page")
    assert found is not None
    assert (found.answer["verdict"], found.answer["reason"], notes) == ("fail", SAID["reason"], [])
    assert found.answer["report"] == "http://b/page"
    assert replica(api, "c").lift(Attempt("shop", "digits", attempt.canary), 200.0) == (0, [])
    for name in "abc":
        assert replica(api, name).failure(attempt, "") == (None, [])
        assert replica(api, name).started_s(attempt) == 200.0  # its evidence restarts here
    replica(api, "b").keep(failed(attempt, 300.0))
    assert replica(api, "a").failure(attempt, "")[0] is not None


@pytest.mark.parametrize(
    ("status", "do"),
    [
        (401, "token is not accepted"),
        (403, "let the judge's service account get and patch the ConfigMap kanaria-judge-shared"),
        (404, "make an empty ConfigMap kanaria-judge-shared"),
        (429, "the next question tries again"),
        (500, "the next question tries again"),
        (503, "the next question tries again"),
        (302, "there is a proxy between"),
    ],
)
def test_a_verdict_does_not_wait_for_permission_to_share_it(api: KubernetesApi, status: int, do: str) -> None:
    """The replica keeps it, a note says what to do, and it is shared once the API server allows it."""
    api.refuses = status
    notes = replica(api, "a").keep(failed(BAD))
    assert len(notes) == 1
    assert f"HTTP {status}" in notes[0]
    found, notes = replica(api, "a").failure(BAD, "")
    assert found == failed(BAD)
    assert do in notes[0]
    api.refuses = None
    assert replica(api, "a").failure(BAD, "") == (failed(BAD), [])
    assert replica(api, "b").failure(BAD, "")[0] is not None


def test_a_release_of_a_ci_job_is_shared(api: KubernetesApi) -> None:
    """It needs no Rollout or Canary. Equal names in two namespaces are different releases."""
    job = Attempt("shop", "nightly.run", "7fd54")
    assert replica(api, "a").keep(failed(job)) == []
    assert replica(api, "b").failure(job, "")[0] is not None
    assert replica(api, "b").failure(Attempt("test", "nightly.run", "7fd54"), "") == (None, [])
    long = Attempt("shop", "n" * 253, "7fd54")
    assert replica(api, "a").keep(failed(long)) == []
    assert all(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) for key in api.data)  # the keys that Kubernetes allows
    assert replica(api, "b").failure(long, "")[0] is not None


def test_an_answer_that_is_not_the_apis_is_reported(api: KubernetesApi) -> None:
    """A page of a proxy is not a ConfigMap that a person could edit."""
    api.page = "<html>please log in</html>"
    (note,) = replica(api, "a").keep(failed(BAD))
    assert "please log in" in note
    assert "there is a proxy between" in note
    assert "kubectl" not in note


def test_only_a_lift_lifts(api: KubernetesApi) -> None:
    """A replica that sees the build after another has failed it, while the API server is away, lifts nothing."""
    replica(api, "a").keep(failed(BUILD))
    away = SharedMap(api.folder, {**api.environment, "KUBERNETES_SERVICE_PORT": "1"})
    alone = quarantine(Kept(api.folder.parent / "b"), away)
    assert alone.failure(BUILD, "")[0] is None
    alone.start(BUILD, lambda: 200.0)
    for name in "bab":
        assert replica(api, name).failure(BUILD, "")[0] is not None
    assert "lifted_s" not in str(api.shared(RELEASE))


def test_one_lift_applies_to_every_try_of_every_replica(api: KubernetesApi) -> None:
    """It applies to failures that another replica found while it could not share them."""
    away = SharedMap(api.folder, {**api.environment, "KUBERNETES_SERVICE_PORT": "1"})
    other = Attempt("shop", "digits", "digits", "checksum-2", "a-digest")
    for build in (BUILD, other):
        quarantine(Kept(api.folder.parent / "b"), away).keep(failed(build))
    replica(api, "a").lift(Attempt("shop", "digits", "digits"), 200.0)
    for build in (BUILD, other):
        assert replica(api, "b").failure(build, "") == (None, [])
        assert replica(api, "b").started_s(build) == 200.0
    assert api.shared(RELEASE) == {"digits": {"lifted_s": 200.0}}
    replica(api, "b").keep(failed(other, 300.0))
    assert replica(api, "a").failure(other, "")[0] is not None  # a later failure counts


def test_a_lift_without_a_metric_store_applies_to_earlier_failures(api: KubernetesApi) -> None:
    """Its time is from another clock, which may be behind."""
    replica(api, "a").keep(failed(BAD, 300.0))
    assert replica(api, "a").lift(BAD, 250.0) == (1, [])
    for name in "ab":
        assert replica(api, name).failure(BAD, "") == (None, [])


@pytest.mark.parametrize("what", ["lifted", "failed"])
def test_a_time_ahead_of_the_clock_is_ignored(api: KubernetesApi, what: str) -> None:
    """A person wrote it, and it would never expire. A lift corrects it."""
    api.data[RELEASE] = json.dumps({"7fd54": {f"{what}_s": 4e9}})
    found, notes = replica(api, "a").failure(BAD, "")
    assert found is None
    assert "ahead of Prometheus's clock" in notes[0]
    assert replica(api, "a").started_s(BAD) is None
    replica(api, "a").keep(failed(BAD))
    assert replica(api, "a").failure(BAD, "")[0] == failed(BAD)
    assert replica(api, "a").lift(BAD, 200.0) == (1, [])
    assert replica(api, "b").failure(BAD, "") == (None, [])
    replica(api, "b").keep(failed(BAD, 300.0))
    assert replica(api, "a").failure(BAD, "")[0] is not None


def test_a_failure_applies_to_the_question_that_found_it(api: KubernetesApi) -> None:
    """A question with a looser plan, or about another stable, fails the version for no other question."""
    loose, strict = (Attempt("shop", "digits", "7fd54", "", asked) for asked in ("digest-1", "digest-2"))
    replica(api, "a").keep(failed(loose))
    for name in "ab":
        assert replica(api, name).failure(loose, "")[0] is not None
        assert replica(api, name).failure(strict, "") == (None, [])
    assert replica(api, "a").failures() == [failed(loose)]
    assert replica(api, "b").lift(BAD, 200.0) == (1, [])
    assert replica(api, "a").failure(loose, "") == (None, [])
    api.data[RELEASE] = '{"7fd54": {"failed_s": 300}}'  # written by a person, for all questions
    assert replica(api, "a").failure(strict, "")[0] is not None


def test_a_build_that_returns_after_another_starts_again(api: KubernetesApi, tmp_path: Path) -> None:
    """Its workload has the same name; requests of the build in between are not its own."""
    kept, other = Kept(tmp_path / "judge.db"), Attempt("shop", "digits", "digits", "checksum-2")
    for attempt, at_s in ((BUILD, 100.0), (BUILD, 110.0), (other, 200.0)):
        kept.start(attempt, at_s)
    assert kept.started_s(BUILD) == 100.0
    kept.start(BUILD, 300.0)
    assert kept.started_s(BUILD) == 300.0
    one, two = replica(api, "a"), replica(api, "b")
    tries = ((one, BUILD, True), (two, BUILD, False), (one, other, True), (one, BUILD, True), (one, BUILD, False))
    given = [each.give_first_weight(build, 100.0 + n) for n, (each, build, _) in enumerate(tries)]
    assert given == [is_given for *_, is_given in tries]


def test_an_unreachable_api_server_is_reported(api: KubernetesApi) -> None:
    """No call waits long, and a version lifted meanwhile is later lifted for all replicas."""
    away = SharedMap(api.folder, {**api.environment, "KUBERNETES_SERVICE_PORT": "1"})
    replica(api, "a").keep(failed(BAD))
    alone = quarantine(Kept(api.folder.parent / "a"), away)
    assert "does not answer" in alone.failure(BAD, "")[1][0]
    lifted, notes = alone.lift(BAD, 150.0)
    assert (lifted, len(notes)) == (1, 1)
    assert replica(api, "a").failure(BAD, "") == (None, [])
    assert replica(api, "b").failure(BAD, "") == (None, [])


def test_others_may_change_the_config_map_at_the_same_time(api: KubernetesApi) -> None:
    """A conflict is retried. If conflicts do not end, a note says so, and the next question shares the failure."""
    api.conflicts = 2
    assert replica(api, "a").keep(failed(BAD)) == []
    replica(api, "a").lift(BAD, 150.0)
    api.conflicts = 1_000_000
    assert "changed by others for 2 s" in replica(api, "a").keep(failed(BAD, 200.0))[0]
    api.conflicts = 0
    assert replica(api, "a").failure(BAD, "") == (failed(BAD, 200.0), [])
    assert replica(api, "b").failure(BAD, "")[0] is not None


def test_only_one_replica_gives_a_first_weight(api: KubernetesApi) -> None:
    """This holds even if all are asked at the same time."""
    replicas = [replica(api, name) for name in "abcd"]
    given: list[bool] = []
    ask = [
        threading.Thread(target=lambda one=one: given.append(one.give_first_weight(BUILD, 100.0))) for one in replicas
    ]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert sorted(given) == [False, False, False, True]


@pytest.mark.parametrize("text", ["[]", "nonsense", '{"7fd54": 3}', '{"7fd54": {"failed_s": "never"}}'])
def test_unreadable_text_in_the_config_map_is_kept_and_reported(api: KubernetesApi, text: str) -> None:
    """Only a person may delete a line that the judge cannot read; other releases are not affected."""
    api.data[RELEASE] = text
    assert "kubectl edit configmap" in replica(api, "a").keep(failed(BAD))[0]
    assert api.data[RELEASE] == text
    other = Attempt("shop", "text", "7fd54")
    assert replica(api, "a").keep(failed(other)) == []
    assert replica(api, "b").failure(other, "")[0] is not None


def test_a_known_failure_is_not_written_again(api: KubernetesApi) -> None:
    """Each write would notify everyone who watches the ConfigMap."""
    replica(api, "a").keep(failed(BAD))
    for _ in range(5):
        replica(api, "a").failure(BAD, "")
        replica(api, "b").failure(BAD, "")
    assert api.writes == 1


def test_the_shared_data_of_one_release_stays_small(api: KubernetesApi) -> None:
    """It keeps the newest tries."""
    for number in range(30):
        replica(api, "a").keep(failed(Attempt("shop", "digits", f"hash-{number}"), 100.0 + number))
    assert sorted(api.shared(RELEASE)) == [f"hash-{number}" for number in range(20, 30)]


def test_a_failure_without_room_is_not_written_again(api: KubernetesApi) -> None:
    """The newest tries stay, however often older ones are asked about."""
    attempts = [Attempt("shop", "digits", f"hash-{number}") for number in range(14)]
    for attempt in attempts:
        replica(api, "a").keep(failed(attempt))
    writes = api.writes
    for attempt in attempts * 2:
        assert replica(api, "a").failure(attempt, "")[0] is not None
    assert api.writes == writes


def test_the_shared_data_of_all_releases_stays_small(api: KubernetesApi) -> None:
    """The releases without news for longest are dropped, and are not written again and again."""
    said = {**SAID, "reason": "x" * 1200}
    attempts = [Attempt("shop", f"model-{number}", "7fd54") for number in range(200)]
    one = replica(api, "a")
    for number, attempt in enumerate(attempts):
        assert one.keep(Failure(attempt, 100.0 + number, said)) == []
    size = sum(len(key) + len(text) for key, text in api.data.items())
    assert 150_000 < size < 200_000
    assert "shop_model-199" in api.data
    assert "shop_model-0" not in api.data
    writes, again = api.writes, replica(api, "a")
    for attempt in attempts[::4]:
        assert again.failure(attempt, "")[0] is not None
    assert api.writes == writes


def test_replicas_agree_when_a_build_began(api: KubernetesApi) -> None:
    """Else a replica that missed the build in between would judge a returning build by that build's requests."""
    one, two, other = replica(api, "a"), replica(api, "b"), Attempt("shop", "digits", "digits", "checksum-2")
    for each, at_s in ((one, 100.0), (two, 105.0)):
        each.start(BUILD, lambda at_s=at_s: at_s)
        assert each.started_s(BUILD) == 100.0
    one.start(other, lambda: 200.0)
    two.start(BUILD, lambda: 300.0)  # it returns, and the replica that missed the other build sees it first
    one.start(BUILD, lambda: 310.0)
    assert [each.started_s(BUILD) for each in (one, two)] == [300.0, 300.0]
    assert replica(api, "c").started_s(BUILD) is None
    third = replica(api, "c")
    third.start(BUILD, lambda: 320.0)
    assert third.started_s(BUILD) == 300.0
    writes = api.writes
    for each in (one, two, third):
        each.start(BUILD, lambda: 330.0)
    assert api.writes == writes
    third.lift(BUILD, 400.0)
    for each in (one, two):
        each.failure(BUILD, "")
        each.start(BUILD, lambda: 410.0)
        assert each.started_s(BUILD) == 400.0


def test_a_replica_shares_later_what_it_stored_during_an_outage(api: KubernetesApi) -> None:
    """A replica that has only now begun to share also reports when its build began."""
    api.refuses = 503
    replica(api, "a").start(BUILD, lambda: 100.0)
    assert replica(api, "a").started_s(BUILD) == 100.0
    api.refuses = None
    replica(api, "a").start(BUILD, lambda: 200.0)
    replica(api, "b").start(BUILD, lambda: 210.0)
    assert [replica(api, name).started_s(BUILD) for name in "ab"] == [100.0, 100.0]


def test_a_start_time_ahead_of_the_clock_is_ignored(api: KubernetesApi) -> None:
    """With it, no request would ever be evidence."""
    api.data[RELEASE] = json.dumps({"digits@checksum-1": {"began_s": 4e9, "first_weight_s": 4e9}})
    one = replica(api, "a")
    one.start(BUILD, lambda: 900.0)
    assert one.started_s(BUILD) == 900.0
    assert one.give_first_weight(BUILD, 900.0)


def test_a_rotated_token_is_read_again(api: KubernetesApi) -> None:
    """The kubelet rotates it every hour."""
    one = replica(api, "a")
    assert one.failure(BAD, "") == (None, [])
    (api.folder / "token").write_text("another-token")
    assert one.failure(BAD, "") == (None, [])


def test_the_judge_does_not_start_outside_a_cluster(api: KubernetesApi, tmp_path: Path) -> None:
    """Otherwise it would never share anything."""
    with pytest.raises(SpecError, match="no Kubernetes API"):
        SharedMap(api.folder, {})
    with pytest.raises(SpecError, match="service account"):
        SharedMap(tmp_path, api.environment)


def results_of_parallel(*calls: Callable[[], Any]) -> list[Any]:
    """The results of calls that start at the same time."""
    begin, given = threading.Barrier(len(calls)), [None] * len(calls)

    def one(place: int) -> None:
        begin.wait()
        given[place] = calls[place]()

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


def test_releases_that_are_shared_in_parallel_are_all_shared(api: KubernetesApi) -> None:
    """They share one ConfigMap. Without a pause between retries, most replicas conflicted again, five times."""
    api.answers_after_s = 0.02  # like a network
    replicas = [replica(api, name) for name in "ab"]
    builds = [Attempt("shop", f"model-{number}", f"model-{number}", "checksum-1") for number in range(10)]
    starts = [
        lambda one=one, build=build: one.start(build, lambda: 100.0)  # type: ignore[misc] - as mypy reads defaults
        for build in builds
        for one in replicas
    ]
    results_of_parallel(*starts)
    fails = [lambda one=one, build=build: one.keep(failed(build)) for build in builds for one in replicas]  # type: ignore[misc]
    assert results_of_parallel(*fails) == [[]] * 20
    for build in builds:
        known = Tries.model_validate(api.shared(f"shop_{build.rollout}"))
        assert known.began_s(build, now_s=NOW_S) == 100.0
        assert replica(api, "c").failure(build, "")[0] is not None


def test_entries_of_others_do_not_reduce_the_judges_room(api: KubernetesApi) -> None:
    """This covers plain text and a line like the judge's own, as long as the ConfigMap is not full."""
    long = "x" * 201_000
    api.data |= {"notes.txt": long, "shop_text": json.dumps({"7fd54": {"failed_s": 999, "reason": long}})}
    one, two = replica(api, "a"), replica(api, "b")
    assert one.keep(failed(BAD)) == []
    assert two.failure(BAD, "")[0] is not None
    assert [each.give_first_weight(BUILD, 100.0) for each in (one, two)] == [True, False]
    assert {"notes.txt", "shop_text"} < api.data.keys()


def test_a_full_config_map_does_not_prevent_a_first_weight(api: KubernetesApi) -> None:
    """Each replica continues alone, and a note says why."""
    api.data["notes.txt"] = "x" * 1_040_000
    one = replica(api, "a")
    (note,) = one.keep(failed(BAD))
    assert "has no room" in note
    assert one.failure(BAD, "") == (failed(BAD), [note])
    assert one.lift(BAD, 200.0) == (1, [note])
    assert [one.give_first_weight(BUILD, 100.0) for _ in range(2)] == [True, False]
    assert api.writes == 0


def test_newer_tries_do_not_prevent_a_first_weight(api: KubernetesApi) -> None:
    """The judge has no room for it among them, and answered as if another replica had given it."""
    api.data[RELEASE] = json.dumps({f"hash-{number}": {"failed_s": 990.0} for number in range(10)})
    assert replica(api, "a").give_first_weight(BUILD, 100.0)


def test_a_first_weight_given_during_an_outage_is_shared_later(api: KubernetesApi) -> None:
    """Failures are too. Otherwise another replica would give it again."""
    api.refuses = 503
    assert replica(api, "a").give_first_weight(BUILD, 100.0)
    api.refuses = None
    for _ in range(2):
        assert replica(api, "a").failure(BUILD, "") == (None, [])
    assert api.writes == 1
    assert not replica(api, "b").give_first_weight(BUILD, 110.0)
    other = Attempt("shop", "digits", "digits", "checksum-2")
    assert replica(api, "b").give_first_weight(other, 120.0)
    assert replica(api, "a").failure(BUILD, "") == (None, [])
    assert not replica(api, "a").give_first_weight(other, 130.0)


def test_a_first_weight_whose_answer_was_not_delivered_is_given_again(api: KubernetesApi) -> None:
    """Any replica may give it, once, including one that was asked meanwhile."""
    one, two = replica(api, "a"), replica(api, "b")
    assert [each.give_first_weight(BUILD, 100.0) for each in (one, two)] == [True, False]
    one.take_first_weight_back(BUILD)
    for each in (one, two):
        assert each.failure(BUILD, "") == (None, [])
    assert [each.give_first_weight(BUILD, 110.0) for each in (two, one, two)] == [True, False, False]
    one.take_first_weight_back(Attempt("shop", "another", "another", "checksum-1"))
    assert sorted(api.data) == [RELEASE]


def test_a_long_reason_is_shortened(api: KubernetesApi) -> None:
    """An answer has less than 4 kB, whatever text is in the ConfigMap."""
    api.data[RELEASE] = json.dumps({"7fd54": {"failed_s": 300, "reason": "\U0001f600" * 4_000, "since": "s" * 30_000}})
    found, notes = replica(api, "a").failure(BAD, "http://a/page")
    assert found is not None
    assert (len(json.dumps(found.answer)) < 2_000, notes) == (True, [])
    assert replica(api, "a").failures() == [found]


def test_a_lift_during_a_judgement_by_another_replica_stays(api: KubernetesApi) -> None:
    """The evidence is from before the lift, whether the replica sees the lift before or after it keeps the failure."""
    one = replica(api, "a")
    assert one.started_anew_s(BAD) is None
    replica(api, "b").lift(BAD, 200.0)
    assert one.keep(failed(BAD, 201.0)) == []
    assert api.shared(RELEASE) == {"7fd54": {"lifted_s": 200.0}}
    assert replica(api, "c").failure(BAD, "") == (None, [])
    two = replica(api, "d")
    assert two.started_s(BAD) is None
    assert two.started_anew_s(BAD) == 200.0
    api.refuses = 503
    assert replica(api, "e").started_anew_s(BAD) is None


def test_the_page_shows_no_failure_that_another_replica_lifted(api: KubernetesApi) -> None:
    """One read covers all releases. While the API server is away it shows what this replica knows."""
    one, other = replica(api, "a"), Attempt("shop", "text", "9ab")
    for attempt in (BAD, other):
        one.keep(failed(attempt))
    replica(api, "b").lift(BAD, 200.0)
    api.data["shop_text"] = "nonsense"
    reads = api.reads
    assert one.failures() == [failed(other)]
    assert api.reads == reads + 1
    api.refuses = 503
    assert len(one.failures()) == 2
    assert replica(api, "c").failures() == []


def test_a_replica_that_cannot_write_still_answers_a_shared_failure(api: KubernetesApi) -> None:
    """A full volume must not pass a failed version, nor judge a lifted one by old evidence."""
    replica(api, "a").keep(failed(BAD))
    one = replica(api, "b")
    with closing(sqlite3.connect(api.folder.parent / "b")) as db, db:
        for table in ("failures", "lifts"):
            full = f"BEFORE INSERT ON {table} BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
            db.execute(f"CREATE TRIGGER no_{table} {full}")
    found, _ = one.failure(BAD, "")
    assert found is not None
    assert found.answer["reason"] == SAID["reason"]
    replica(api, "a").lift(BAD, 200.0)
    with pytest.raises(LedgerError, match="disk is full"):
        one.failure(BAD, "")
    replica(api, "a").keep(failed(BAD, 300.0))
    assert one.failure(BAD, "")[0] is not None


def test_a_lift_applies_whatever_fails_after_it(api: KubernetesApi) -> None:
    """Ten newer failures replaced the lift, and a replica that had been offline kept refusing the version."""
    replica(api, "b").keep(failed(BAD))
    replica(api, "a").lift(BAD, 200.0)
    for number in range(30):
        replica(api, "a").keep(failed(Attempt("shop", "digits", f"hash-{number}"), 300.0 + number))
    assert replica(api, "b").failure(BAD, "") == (None, [])
    for number in range(30):
        replica(api, "a").lift(Attempt("shop", "digits", f"hash-{number}"), 400.0 + number)
    assert sorted(api.shared(RELEASE)) == [f"hash-{number}" for number in range(20, 30)]


@pytest.mark.parametrize("what", ["lifted", "failed"])
@pytest.mark.parametrize(("at_s", "far"), [(1e308, "far ahead"), (4e9, "far ahead"), (4600.0, "60 min ahead")])
def test_a_time_ahead_is_reported_briefly(api: KubernetesApi, what: str, at_s: float, far: str) -> None:
    """As a number it may have 309 digits."""
    api.data[RELEASE] = json.dumps({"7fd54": {f"{what}_s": at_s}})
    (note,) = replica(api, "a").failure(BAD, "")[1]
    assert len(note) < 200
    assert far in note
    verb = {"lifted": "was lifted", "failed": "failed"}[what]
    assert f"says that the version {verb} at {at_s:.10g}," in note


def test_a_build_whose_time_is_ahead_does_not_cause_a_write_per_question(api: KubernetesApi) -> None:
    """The other build stayed the newest for a minute, and each hook restarted the present one."""
    api.data[RELEASE] = json.dumps({"digits@checksum-0": {"began_s": 1050.0, "first_weight_s": 1050.0}})
    one, two = replica(api, "a"), replica(api, "b")
    given = []
    for number in range(5):
        for each in (one, two):
            each.start(BUILD, lambda number=number: 1000.0 + number)  # type: ignore[misc]
            given.append(each.give_first_weight(BUILD, 1000.0 + number))
    assert (api.writes, given) == (2, [True] + [False] * 9)
    assert one.started_s(BUILD) == two.started_s(BUILD) == pytest.approx(1050.0)


def test_an_api_server_that_hangs_delays_no_verdict(api: KubernetesApi) -> None:
    """It accepts connections and never answers: many questions at once wait no longer than one."""
    api.goes_on.clear()
    one = replica(api, "a")
    attempts = [Attempt("shop", f"model-{number}", "7fd54") for number in range(6)]
    notes = results_of_parallel(*(lambda each=each: one.keep(failed(each)) for each in attempts))  # type: ignore[misc]
    assert all(len(said) == 1 for said in notes)
    assert any("does not answer" in said[0] for said in notes)
    assert one.give_first_weight(BUILD, 100.0)
    found, (note,) = one.failure(attempts[0], "")
    assert (found, "does not answer" in note) == (failed(attempts[0]), True)
    assert len(one.failures()) == 6
    api.goes_on.set()
    for each in attempts:
        assert one.failure(each, "") == (failed(each), [])
        assert replica(api, "b").failure(each, "")[0] is not None


def test_the_longest_line_of_the_judge_is_recognised_as_its_own() -> None:
    """The longest that it can write has twenty complete entries."""
    times = dict.fromkeys(("failed_s", "began_s", "first_weight_s"), 1000.123456789)
    one = {**times, "reason": "x" * 1190, "since": "x" * 40}
    keys = [f"{'c' * 253}{number}@{'s' * 200}#{'d' * 12}" for number in range(20)]
    tries = Tries.model_validate({key: one | ({"lifted_s": 1.5} if key in keys[:10] else {}) for key in keys})
    assert tries.newest() == tries
    data: dict[str, str] = {}
    for number in range(20):
        changed = change_of(data, f"shop_{number}", Tries({}), tries)
        data = {key: text for key, text in (data | changed).items() if text is not None}
    assert 100_000 < sum(map(len, data.values())) < 200_000  # otherwise all would fit
