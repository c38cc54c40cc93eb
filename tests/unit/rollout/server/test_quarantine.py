"""What replicas share in a ConfigMap, through an API server that refuses, conflicts and goes away."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import SpecError
from rollout.server.kept import Attempt, Failure, Kept
from rollout.server.quarantine import Quarantine
from rollout.server.shared_map import SharedMap
from tests.support.kubernetes_api import KubernetesApi, kubernetes_api

pytestmark = pytest.mark.needs("serve")

RELEASE = "shop_digits"  # as the ConfigMap names it
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
    """With a ledger of its own; the same name is the same replica after a restart."""
    return quarantine(Kept(api.folder.parent / name), SharedMap(api.folder, api.environment))


def quarantine(kept: Kept, shared: SharedMap) -> Quarantine:
    """By the clock of a metric store at which nothing here is ahead."""
    return Quarantine(kept, shared, now_s=lambda: NOW_S)


def failed(attempt: Attempt, at_s: float = 100.0) -> Failure:
    return Failure(attempt, at_s, SAID)


@pytest.mark.parametrize("attempt", [BAD, BUILD], ids=["argo", "flagger"])
def test_a_failure_outlives_the_replica_that_found_it(api: KubernetesApi, attempt: Attempt) -> None:
    """It is in the ConfigMap; and another replica's lift holds for all."""
    assert replica(api, "a").keep(failed(attempt)) == []
    assert len(json.dumps(api.shared(RELEASE))) < 300
    found, notes = replica(api, "b").failure(attempt, "http://b/page")
    assert found is not None
    assert (found.answer["verdict"], found.answer["reason"], notes) == ("fail", SAID["reason"], [])
    assert found.answer["report"] == "http://b/page"
    assert replica(api, "c").lift(Attempt("shop", "digits", attempt.canary), 200.0) == (0, [])
    for name in "abc":
        assert replica(api, name).failure(attempt, "") == (None, [])
        assert replica(api, name).started_s(attempt) == 200.0  # its evidence begins anew
    replica(api, "b").keep(failed(attempt, 300.0))
    assert replica(api, "a").failure(attempt, "")[0] is not None


@pytest.mark.parametrize(
    ("status", "do"),
    [
        (401, "token is not accepted"),
        (403, "let the judge's service account get and patch the ConfigMap kanaria-judge-shared"),
        (404, "make an empty ConfigMap kanaria-judge-shared"),
        (429, "tried again with the next question"),
        (500, "tried again with the next question"),
        (503, "tried again with the next question"),
        (302, "a proxy stands between"),
    ],
)
def test_a_verdict_does_not_wait_for_rights(api: KubernetesApi, status: int, do: str) -> None:
    """It is kept by the replica, said in a note with what to do about it, and shared once the API server allows it."""
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


def test_a_release_of_a_ci_job_is_shared_as_well(api: KubernetesApi) -> None:
    """It needs no Rollout or Canary; and two of the same name in two namespaces are two."""
    job = Attempt("shop", "nightly.run", "7fd54")
    assert replica(api, "a").keep(failed(job)) == []
    assert replica(api, "b").failure(job, "")[0] is not None
    assert replica(api, "b").failure(Attempt("test", "nightly.run", "7fd54"), "") == (None, [])
    long = Attempt("shop", "n" * 253, "7fd54")
    assert replica(api, "a").keep(failed(long)) == []
    assert all(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) for key in api.data)  # as Kubernetes has it
    assert replica(api, "b").failure(long, "")[0] is not None


def test_what_answers_in_the_place_of_the_api_is_named(api: KubernetesApi) -> None:
    """A page of a proxy is no ConfigMap that a person should edit."""
    api.page = "<html>please log in</html>"
    (note,) = replica(api, "a").keep(failed(BAD))
    assert "please log in" in note
    assert "a proxy stands between" in note
    assert "kubectl" not in note


def test_only_a_lift_lifts(api: KubernetesApi) -> None:
    """A replica that hears of a build after another has failed it, while the API server is away, lifts nothing."""
    replica(api, "a").keep(failed(BUILD))
    away = SharedMap(api.folder, {**api.environment, "KUBERNETES_SERVICE_PORT": "1"})
    alone = quarantine(Kept(api.folder.parent / "b"), away)
    assert alone.failure(BUILD, "")[0] is None
    alone.start(BUILD, lambda: 200.0)
    for name in "bab":
        assert replica(api, name).failure(BUILD, "")[0] is not None
    assert "lifted_s" not in str(api.shared(RELEASE))


def test_one_lift_holds_for_every_try_of_every_replica(api: KubernetesApi) -> None:
    """Also for those that another replica failed while it could tell nobody."""
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
    assert replica(api, "a").failure(other, "")[0] is not None  # what fails after it does


def test_a_lift_without_a_metric_store_holds_for_what_failed(api: KubernetesApi) -> None:
    """Its time is that of another clock, which may be behind."""
    replica(api, "a").keep(failed(BAD, 300.0))
    assert replica(api, "a").lift(BAD, 250.0) == (1, [])
    for name in "ab":
        assert replica(api, name).failure(BAD, "") == (None, [])


@pytest.mark.parametrize("what", ["lifted", "failed"])
def test_a_time_ahead_of_the_clock_is_not_believed(api: KubernetesApi, what: str) -> None:
    """Somebody has written it: it would hold for ever. A lift puts it right."""
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


def test_a_failure_holds_for_the_question_that_found_it(api: KubernetesApi) -> None:
    """Who asks with a looser plan, or about another stable, fails the version for nobody else."""
    loose, strict = (Attempt("shop", "digits", "7fd54", "", asked) for asked in ("digest-1", "digest-2"))
    replica(api, "a").keep(failed(loose))
    for name in "ab":
        assert replica(api, name).failure(loose, "")[0] is not None
        assert replica(api, name).failure(strict, "") == (None, [])
    assert replica(api, "a").failures() == [failed(loose)]
    assert replica(api, "b").lift(BAD, 200.0) == (1, [])
    assert replica(api, "a").failure(loose, "") == (None, [])
    api.data[RELEASE] = '{"7fd54": {"failed_s": 300}}'  # by a person: for all questions
    assert replica(api, "a").failure(strict, "")[0] is not None


def test_a_build_that_comes_back_after_another_begins_anew(api: KubernetesApi, tmp_path: Path) -> None:
    """Its workload has the same name: the requests of the build between are not its own."""
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


def test_an_api_server_that_is_away_is_said(api: KubernetesApi) -> None:
    """Nothing is waited for long, and what was lifted meanwhile is lifted for all afterwards."""
    away = SharedMap(api.folder, {**api.environment, "KUBERNETES_SERVICE_PORT": "1"})
    replica(api, "a").keep(failed(BAD))
    alone = quarantine(Kept(api.folder.parent / "a"), away)
    assert "gives no answer" in alone.failure(BAD, "")[1][0]
    lifted, notes = alone.lift(BAD, 150.0)
    assert (lifted, len(notes)) == (1, 1)
    assert replica(api, "a").failure(BAD, "") == (None, [])
    assert replica(api, "b").failure(BAD, "") == (None, [])


def test_others_may_change_the_resource_at_the_same_time(api: KubernetesApi) -> None:
    """A conflict is tried again; where they do not end, that is said, and the next question shares it."""
    api.conflicts = 2
    assert replica(api, "a").keep(failed(BAD)) == []
    replica(api, "a").lift(BAD, 150.0)
    api.conflicts = 100
    assert "5 times in a row" in replica(api, "a").keep(failed(BAD, 200.0))[0]
    api.conflicts = 0
    assert replica(api, "a").failure(BAD, "") == (failed(BAD, 200.0), [])
    assert replica(api, "b").failure(BAD, "")[0] is not None


def test_no_two_replicas_give_a_first_weight(api: KubernetesApi) -> None:
    """Not even when they are asked together."""
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
def test_what_somebody_wrote_there_is_left_and_said(api: KubernetesApi, text: str) -> None:
    """A line that the judge cannot read is a person's to delete; other releases go on."""
    api.data[RELEASE] = text
    assert "kubectl edit configmap" in replica(api, "a").keep(failed(BAD))[0]
    assert api.data[RELEASE] == text
    other = Attempt("shop", "text", "7fd54")
    assert replica(api, "a").keep(failed(other)) == []
    assert replica(api, "b").failure(other, "")[0] is not None


def test_a_known_failure_is_not_written_again(api: KubernetesApi) -> None:
    """Whoever watches the ConfigMap would hear of it with every question."""
    replica(api, "a").keep(failed(BAD))
    for _ in range(5):
        replica(api, "a").failure(BAD, "")
        replica(api, "b").failure(BAD, "")
    assert api.writes == 1


def test_what_is_shared_of_a_release_stays_small(api: KubernetesApi) -> None:
    """The newest tries are kept."""
    for number in range(30):
        replica(api, "a").keep(failed(Attempt("shop", "digits", f"hash-{number}"), 100.0 + number))
    assert sorted(api.shared(RELEASE)) == [f"hash-{number}" for number in range(20, 30)]


def test_a_failure_for_which_there_is_no_room_is_not_written_again(api: KubernetesApi) -> None:
    """The newest tries stay as they are, however often the older ones are asked about."""
    attempts = [Attempt("shop", "digits", f"hash-{number}") for number in range(14)]
    for attempt in attempts:
        replica(api, "a").keep(failed(attempt))
    writes = api.writes
    for attempt in attempts * 2:
        assert replica(api, "a").failure(attempt, "")[0] is not None
    assert api.writes == writes


def test_what_is_shared_of_all_releases_stays_small(api: KubernetesApi) -> None:
    """Those of which nothing was heard for longest make room, and are not written again and again."""
    said = {**SAID, "reason": "x" * 1200}
    attempts = [Attempt("shop", f"model-{number}", "7fd54") for number in range(200)]
    for number, attempt in enumerate(attempts):
        assert replica(api, "a").keep(Failure(attempt, 100.0 + number, said)) == []
    size = sum(len(key) + len(text) for key, text in api.data.items())
    assert 150_000 < size < 200_000
    assert "shop_model-199" in api.data
    assert "shop_model-0" not in api.data
    writes = api.writes
    for attempt in attempts:
        assert replica(api, "a").failure(attempt, "")[0] is not None
    assert api.writes == writes


def test_replicas_agree_on_when_a_build_began(api: KubernetesApi) -> None:
    """One that did not hear of the build between would judge a build that comes back by the requests of that one."""
    one, two, other = replica(api, "a"), replica(api, "b"), Attempt("shop", "digits", "digits", "checksum-2")
    for each, at_s in ((one, 100.0), (two, 105.0)):
        each.start(BUILD, lambda at_s=at_s: at_s)
        assert each.started_s(BUILD) == 100.0
    one.start(other, lambda: 200.0)
    two.start(BUILD, lambda: 300.0)  # which comes back, and is seen first by the replica that missed the other
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


def test_a_replica_tells_what_it_noted_while_the_cluster_was_silent(api: KubernetesApi) -> None:
    """And one that shares since today tells when its build began."""
    api.refuses = 503
    replica(api, "a").start(BUILD, lambda: 100.0)
    assert replica(api, "a").started_s(BUILD) == 100.0
    api.refuses = None
    replica(api, "a").start(BUILD, lambda: 200.0)
    replica(api, "b").start(BUILD, lambda: 210.0)
    assert [replica(api, name).started_s(BUILD) for name in "ab"] == [100.0, 100.0]


def test_a_beginning_ahead_of_the_clock_is_not_believed(api: KubernetesApi) -> None:
    """Nothing would ever be evidence."""
    api.data[RELEASE] = json.dumps({"digits@checksum-1": {"began_s": 4e9, "first_weight_s": 4e9}})
    one = replica(api, "a")
    one.start(BUILD, lambda: 900.0)
    assert one.started_s(BUILD) == 900.0
    assert one.give_first_weight(BUILD, 900.0)


def test_a_token_that_is_rotated_is_read_anew(api: KubernetesApi) -> None:
    """The kubelet does so every hour."""
    one = replica(api, "a")
    assert one.failure(BAD, "") == (None, [])
    (api.folder / "token").write_text("another-token")
    assert one.failure(BAD, "") == (None, [])


def test_outside_a_cluster_it_does_not_start(api: KubernetesApi, tmp_path: Path) -> None:
    """Rather than never share anything."""
    with pytest.raises(SpecError, match="no Kubernetes API"):
        SharedMap(api.folder, {})
    with pytest.raises(SpecError, match="service account"):
        SharedMap(tmp_path, api.environment)
