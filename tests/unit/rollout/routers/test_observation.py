"""Which answers the gateway sends to the observer, and when."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from contract.own_answers import OwnAnswers
from rollout.fleet import CONTRACT, Backend, Route, Service, Version
from rollout.routers.envoy.api import Resource
from rollout.routers.envoy.files import are_usable
from rollout.routers.envoy.observation import OBSERVER
from rollout.routers.envoy.resources import clusters_for
from rollout.routers.envoy.routes import clusters_used, routes_for, split_of
from rollout.routers.envoy.sampling import SHOWN as SHOWN_KEY
from rollout.routers.envoy.settings import GatewaySettings
from rollout.routers.router import Split

SETTINGS = GatewaySettings(Path("gateway"), has_observer=True)
OWN = Service((Route("/summarize"), Route("/words", is_streamed=True)), 60)
SHADOW = Split(
    Version((Backend("m:v1", "127.0.0.1", 1),), OWN), Version((Backend("m:v2", "127.0.0.1", 2),), OWN), mirror=True
)
V2_OF_CONTRACT = Version((Backend("m:v2", "127.0.0.1", 2),), CONTRACT)
SHOWN = {"observed/m:v1": "stable", "repeat/m:v1": "repeat", "observed/shadow/m:v2": "copy"}


def unrecorded(clusters: Mapping[str, Resource]) -> dict[str, Resource]:
    """The clusters of requests that are not recorded."""
    return {name: cluster for name, cluster in clusters.items() if not name.startswith("recorded/")}


def roles(split: Split, settings: GatewaySettings, key: str = "x-kanaria-role") -> dict[str, str]:
    """By cluster, what the gateway tells the observer under `key` about its answers."""
    found = {}
    for name, cluster in unrecorded(clusters_for(split, settings)).items():
        for options in cluster.get("typed_extension_protocol_options", {}).values():
            for each in options.get("http_filters", ())[:-1]:
                told = each["typed_config"].get("grpc_service", {}).get("initial_metadata", ())
                if values := [pair["value"] for pair in told if pair["key"] == key]:
                    (found[name],) = values
    return found


def test_in_the_shadow_answers_of_both_versions_are_sent() -> None:
    assert roles(SHADOW, SETTINGS) == SHOWN


@pytest.mark.parametrize(
    ("split", "settings"),
    [
        (replace(SHADOW, mirror=False, canary_percent=5), SETTINGS),
        (SHADOW, replace(SETTINGS, has_observer=False)),
        (Split(*(replace(version, service=CONTRACT) for version in SHADOW.versions), mirror=True), SETTINGS),
    ],
)
def test_nothing_is_sent_without_copies_or_observer_or_for_contract_models(
    split: Split, settings: GatewaySettings
) -> None:
    assert roles(split, settings) == {}
    assert "repeat/" not in str(routes_for(split, settings))


def test_in_the_steps_answers_to_compared_requests_of_both_versions_are_sent() -> None:
    """These are answers of the chosen versions and of the copies. Not every request is copied."""
    step = replace(SHADOW, mirror=False, canary_percent=5, compare_percent=10)
    shown = {
        "observed/m:v1>m:v2": "stable",
        "observed/m:v2>m:v1": "canary",
        "repeat/m:v1": "repeat",
        "observed/shadow/m:v1": "stable_copy",
        "observed/shadow/m:v2": "copy",
    }
    assert roles(step, SETTINGS) == shown
    assert roles(step, SETTINGS, "x-kanaria-sampled") == dict.fromkeys(shown, "yes")
    clusters, routes = clusters_for(step, SETTINGS), routes_for(step, SETTINGS)
    assert are_usable([routes], clusters)
    assert clusters_used(routes, clusters) == clusters
    seen = split_of(routes)
    assert seen is not None
    assert (seen.canary_percent, seen.compare_percent, seen.mirror) == (5, 10, False)
    of_contract = replace(step, stable=replace(step.stable, service=CONTRACT), canary=V2_OF_CONTRACT)
    assert roles(of_contract, SETTINGS) == {}
    assert "repeat/" not in str(routes_for(of_contract, SETTINGS))


def test_a_share_of_observed_requests_is_sent_to_stable_twice() -> None:
    (host,) = routes_for(SHADOW, SETTINGS)["virtual_hosts"]
    copied = [route for route in host["routes"] if "request_mirror_policies" in route.get("route", {})]
    assert {route["name"] for route in copied} == {"/summarize"}
    for route in copied:
        canary, *stable = route["route"]["request_mirror_policies"]
        is_drawn = SHOWN_KEY in str(route["match"])
        again = {"cluster": "repeat/m:v1", "runtime_fraction": {"default_value": {"numerator": 20}}}
        assert canary == {"cluster": "observed/shadow/m:v2" if is_drawn else "shadow/m:v2"}
        assert stable == ([again] if is_drawn else [])
    assert len({SHOWN_KEY in str(route["match"]) for route in copied}) == 2


def test_an_observed_split_is_read_back_and_keeps_its_clusters() -> None:
    """Requests that were just routed need the clusters after the next change."""
    clusters, routes = clusters_for(SHADOW, SETTINGS), routes_for(SHADOW, SETTINGS)
    assert are_usable([routes], clusters)
    seen = split_of(routes)
    assert seen is not None
    assert (seen.stable, seen.canary, seen.mirror) == ("m:v1", "m:v2", True)
    assert clusters_used(routes, clusters) == clusters


READ = replace(SHADOW, answers=OwnAnswers.model_validate({"/summarize": {"label": "label"}}))


def test_answers_to_users_are_sent_if_the_plan_reads_answers() -> None:
    """Copies are read when they are paired with stable's answer. In the steps the filter of the choice counts."""
    assert roles(READ, SETTINGS) == SHOWN
    assert roles(READ, SETTINGS, "x-kanaria-read")["observed/m:v1"] == "m:v1"
    assert "observed/shadow/m:v2" not in roles(READ, SETTINGS, "x-kanaria-read")
    step = replace(READ, mirror=False, canary_percent=5)
    assert roles(step, SETTINGS) == {}
    assert roles(step, SETTINGS, "x-kanaria-read") == {
        "observed/m:v1>m:v2": "m:v1",
        "observed/m:v2>m:v1": "m:v2",
    }
    assert roles(Split(READ.stable, answers=READ.answers), SETTINGS, "x-kanaria-read") == {"observed/m:v1": "m:v1"}


def test_answers_are_not_read_without_an_observer_or_for_contract_models() -> None:
    contract = (replace(version, service=CONTRACT) for version in SHADOW.versions)
    assert roles(READ, replace(SETTINGS, has_observer=False), "x-kanaria-read") == {}
    assert roles(Split(*contract, canary_percent=5, answers=READ.answers), SETTINGS, "x-kanaria-read") == {}


def test_a_split_whose_answers_are_read_keeps_the_observer_cluster() -> None:
    step = replace(READ, mirror=False, canary_percent=5)
    clusters, routes = clusters_for(step, SETTINGS), routes_for(step, SETTINGS)
    assert are_usable([routes], clusters)
    assert clusters_used(routes, clusters) == clusters


@pytest.mark.parametrize(
    ("split", "settings", "of"),
    [
        (SHADOW, SETTINGS, ["observed/m:v1", "recorded/m:v1"]),
        (replace(SHADOW, mirror=False, canary_percent=5), SETTINGS, []),
        (Split(SHADOW.stable, fallback=SHADOW.canary), SETTINGS, []),
        (Split(SHADOW.stable), SETTINGS, ["recorded/m:v1"]),
        (Split(SHADOW.stable), replace(SETTINGS, has_observer=False), []),
        (Split(replace(SHADOW.stable, service=CONTRACT)), SETTINGS, []),
    ],
)
def test_requests_to_stable_can_be_recorded_if_there_is_an_observer(
    split: Split, settings: GatewaySettings, of: list[str]
) -> None:
    """Headers that may hold a key are not sent. Only requests that no other version may answer can be recorded."""
    clusters, routes = clusters_for(split, settings), routes_for(split, settings)
    found = {name: str(cluster) for name, cluster in clusters.items() if "'value': 'record'" in str(cluster)}
    assert sorted(found) == of
    assert (OBSERVER in clusters) is (settings.has_observer and not split.keeps_contract)
    for name, text in found.items():
        is_skipped = "'numerator': 100}, 'runtime_key': 'kanaria.not_recorded_percent'" in text
        assert is_skipped is name.startswith("observed/")  # in other clusters the route is drawn
        assert not {"cookie", "authorization", "x-api-key"} & set(re.findall(r"[\w-]+", text))
    assert are_usable([routes], clusters)
    assert clusters_used(routes, clusters) == {
        name: cluster for name, cluster in clusters.items() if name != OBSERVER or is_needed(clusters)
    }


def is_needed(clusters: dict[str, Resource]) -> bool:
    """Whether any cluster sends the observer something."""
    return any("ExternalProcessor" in str(cluster) for cluster in clusters.values())


@pytest.mark.parametrize("split", [SHADOW, Split(SHADOW.stable)])
def test_requests_that_are_neither_observed_nor_recorded_pass_no_filter(split: Split) -> None:
    """A filter that skips a request still took 7 % of the gateway's time for every request of any service."""
    clusters = clusters_for(split, SETTINGS)
    (host,) = routes_for(split, SETTINGS)["virtual_hosts"]
    for route in host["routes"]:
        is_recorded = "kanaria.not_recorded_percent" not in str(route["match"]) and route.get("name") == "/summarize"
        if "weighted_clusters" not in route.get("route", {}) or SHOWN_KEY in str(route["match"]) or is_recorded:
            continue
        action = route["route"]
        used = [each["name"] for each in action["weighted_clusters"]["clusters"]]
        used += [each["cluster"] for each in action.get("request_mirror_policies", ())]
        assert [name for name in used if "http_filters" in str(clusters[name])] == []


def test_a_recorded_route_follows_the_plain_one_and_differs_only_in_stables_cluster() -> None:
    """Unless a command says otherwise, the plain route takes all requests. Streams are never recorded."""
    (host,) = routes_for(SHADOW, SETTINGS)["virtual_hosts"]
    *_, others, recorded = [
        host["routes"][start : start + 2]
        for start, route in enumerate(host["routes"])
        if route.get("name") == "/summarize" and host["routes"][start - 1].get("route") != route["route"]
    ]
    for one, other in zip(others, recorded, strict=True):
        drawn = {"default_value": {"numerator": 100}, "runtime_key": "kanaria.not_recorded_percent"}
        assert one["match"].pop("runtime_fraction") == drawn
        assert one | {"route": {}} == other | {"route": {}}
        assert str(one["route"]).replace("'m:v1'", "'recorded/m:v1'") == str(other["route"])
    for route in host["routes"]:
        assert route.get("name") == "/summarize" or "recorded" not in str(route)


def modes(split: Split) -> dict[str, str]:
    """By cluster, whether request bodies are sent together with answers."""
    found = {}
    for name, cluster in unrecorded(clusters_for(split, SETTINGS)).items():
        for options in cluster.get("typed_extension_protocol_options", {}).values():
            for each in options.get("http_filters", ())[:-1]:
                if "processing_mode" in each["typed_config"]:  # otherwise it is a filter for recording
                    found[name] = each["typed_config"]["processing_mode"]["request_body_mode"]
    return found


def test_request_bodies_are_sent_only_if_something_of_them_is_kept() -> None:
    assert set(modes(READ).values()) == {"NONE"}
    kept = OwnAnswers.model_validate({"/summarize": {"label": "label", "features": {"letters": "length(text)"}}})
    assert modes(replace(READ, answers=kept)) == {
        "observed/m:v1": "STREAMED",
        "repeat/m:v1": "NONE",
        "observed/shadow/m:v2": "NONE",
    }


def to_feedback(split: Split) -> list[str]:
    """Where POST /feedback may be routed."""
    (host,) = routes_for(split, SETTINGS)["virtual_hosts"]
    found = (each for each in host["routes"] if each["match"].get("path") == "/feedback")
    return ["observer" if each["route"].get("cluster") == "observer-feedback" else "version" for each in found]


def test_a_drawn_route_precedes_the_plain_one_and_differs_only_in_its_observation() -> None:
    """Streams are never drawn, and without an observer no route is."""
    (host,) = routes_for(replace(READ, mirror=False, canary_percent=5), SETTINGS)["virtual_hosts"]
    of_route = [route for route in host["routes"] if route.get("name") == "/summarize"]
    drawn, others = of_route[:2], of_route[2:]
    for one, other in zip(drawn, others, strict=True):
        assert one["match"].pop("runtime_fraction") == {"default_value": {"numerator": 100}, "runtime_key": SHOWN_KEY}
        assert "x-kanaria-request" in str(one.pop("request_headers_to_add"))
        assert one | {"route": {}} == other | {"route": {}}
        assert str(one["route"]).replace("observed/", "") == str(other["route"])
    words = [route for route in host["routes"] if route["match"].get("path") == "/words"]
    assert not any("runtime_fraction" in route["match"] for route in words)
    alone = replace(SETTINGS, has_observer=False)
    assert SHOWN_KEY not in str(routes_for(READ, alone)) + str(clusters_for(READ, alone))


def test_labels_go_to_the_observer_unless_a_version_accepts_them() -> None:
    assert to_feedback(READ) == ["observer"]
    assert are_usable([routes_for(READ, SETTINGS)], clusters_for(READ, SETTINGS))
    assert "observer" not in to_feedback(SHADOW)
    confidence = OwnAnswers.model_validate({"/summarize": {"confidence": "score"}})
    assert "observer" not in to_feedback(replace(READ, answers=confidence))
    own = replace(OWN, routes=(*OWN.routes, Route("/feedback")))
    assert "observer" not in to_feedback(replace(READ, canary=replace(READ.stable, service=own)))


def test_a_body_is_buffered_unless_its_length_says_that_it_is_large() -> None:
    """This includes a body without a length. The limit is 64 KiB; larger ones are streamed."""
    (host,) = routes_for(Split(SHADOW.stable), replace(SETTINGS, has_observer=False))["virtual_hosts"]
    flows, is_read = (route for route in host["routes"] if route.get("name") == "/summarize")
    (length,) = flows["match"].pop("headers")
    assert (length["name"], length["range_match"]["start"]) == ("content-length", 64 * 1024 + 1)
    assert flows["match"] == is_read["match"] == {"path": "/summarize"}
    limits = [route["typed_per_filter_config"]["body_limit"] for route in (flows, is_read)]
    assert [limit.get("disabled", False) for limit in limits] == [True, False]
