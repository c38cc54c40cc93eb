"""A client that holds all connections of a real Envoy without using them blocks others only for seconds."""

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from contract.loopback import answers
from kanaria.stack.gateway_watch import GatewayWatch
from kanaria.stack.ports import free_port
from rollout.routers.envoy.pressure import Pressure
from rollout.routers.envoy.settings import GatewaySettings
from tests.support.gateway_rig import Gateway
from tests.support.waiting import eventually

ATTACKER = "127.0.0.9"
MORE_THAN_THE_LIMIT = 4200
BACK_WITHIN_S = 20.0  # includes a margin for a busy machine; an idle connection used to be closed after 120 s
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # with empty SETTINGS


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


# SETTINGS_INITIAL_WINDOW_SIZE 0: the server may send no byte of a body. The request is GET /livez, without a key.
_NO_WINDOW = PREFACE[:-9] + _frame(4, 0, 0, (4).to_bytes(2) + bytes(4))
_LIVEZ = b"\x82\x86\x00\x05:path\x06/livez\x00\x0a:authority\x07gateway"
HELD: dict[str, bytes] = {
    "silent": b"",
    "one letter": b"G",
    "slow headers": b"GET /livez HTTP/1.1\r\nhost: gateway\r\nx-slow: ",
    "answered once": b"GET /livez HTTP/1.1\r\nhost: gateway\r\n\r\n",
    "refused once": b"POST /predict HTTP/1.1\r\nhost: gateway\r\ncontent-length: 0\r\n\r\n",
    "HTTP/2": PREFACE,
    "HTTP/2 answers that are never read": _NO_WINDOW + _frame(1, 5, 1, _LIVEZ) + _frame(1, 5, 3, _LIVEZ),
}


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Allow enough open files for the sockets of both sides."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 10_000)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def gateway(tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[Gateway]:
    """A gateway as `kanaria up` sets it up, with the controller's watch beside it."""
    require_program("envoy")
    with Gateway(GatewaySettings(tmp_path, port=free_port(), stats_port=free_port())) as gateway:
        pressure = Pressure(gateway.settings)
        watch = GatewayWatch(gateway.url, restart=lambda: None, tell=pressure.tell, is_full=lambda: pressure.is_full)
        watch.start()
        yield gateway
        watch.stop()


@contextmanager
def held(gateway: Gateway, count: int, sent: bytes) -> Iterator[None]:
    """Connections of one other user of this machine, each with the same first bytes."""
    with ExitStack() as stack:
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", gateway.settings.port), source_address=(ATTACKER, 0))
            stack.enter_context(one)
            try:
                one.sendall(sent)
            except ConnectionError:  # refused
                continue
        yield


def serves(gateway: Gateway) -> bool:
    """Whether a new client gets an answer."""
    return answers(f"{gateway.url}/livez", timeout_s=3.0)


def pressure_percent(gateway: Gateway) -> float:
    """By how much Envoy has shortened its timers."""
    name = "envoy_overload_envoy_overload_actions_reduce_timeouts_scale_percent"
    return next(value for found, _, value in gateway.samples() if found == name)


@pytest.mark.parametrize("sent", HELD.values(), ids=HELD)
def test_one_client_with_all_connections_blocks_others_only_for_seconds(gateway: Gateway, sent: bytes) -> None:
    """This holds whatever the client has sent; a new client is answered without a restart of the gateway."""
    with held(gateway, MORE_THAN_THE_LIMIT, sent):
        eventually(lambda: serves(gateway), within_s=BACK_WITHIN_S)


def test_unread_answers_do_not_keep_their_connections_open(gateway: Gateway) -> None:
    """Each connection with one kept its slot for five minutes, so new clients had only the few remaining slots."""
    with held(gateway, MORE_THAN_THE_LIMIT, HELD["HTTP/2 answers that are never read"]):
        eventually(lambda: _taken(gateway) > 4000)
        eventually(lambda: _taken(gateway) < 100)


def _taken(gateway: Gateway) -> float:
    name, prefix = "envoy_http_downstream_cx_active", "gateway"
    return sum(value for found, labels, value in gateway.samples() if found == name and prefix in labels.values())


def test_timers_of_idle_connections_are_shortened_only_under_pressure(gateway: Gateway) -> None:
    """No timer is shortened at 30 % of the connections, all are at 100 %, and none once the attack is over."""
    with held(gateway, 1200, HELD["answered once"]):
        eventually(lambda: gateway.settings.pressure_path.read_text() == "0.29")
        assert pressure_percent(gateway) == 0
        with held(gateway, MORE_THAN_THE_LIMIT - 1200, HELD["slow headers"]):
            eventually(lambda: pressure_percent(gateway) == 100)
    eventually(lambda: pressure_percent(gateway) == 0)
