"""Ports for processes that start at the same time."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kanaria.stack.ports import free_port, is_free, obstacle

CHOOSE = "from kanaria.stack.ports import free_port; print(*(free_port(range(15_000, 15_200)) for _ in range(40)))"


def test_two_processes_that_choose_at_once_share_no_port(tmp_path: Path) -> None:
    """Nothing listens on these ports yet, and no two processes get the same port."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    choosing = [
        subprocess.Popen([sys.executable, "-c", CHOOSE], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ports = [port for process in choosing for port in process.communicate()[0].split()]
    assert (len(ports), len(set(ports))) == (80, 80)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_not_free(host: str) -> None:
    """This holds for IPv6 and for IPv4."""
    if obstacle(host, 0):
        pytest.skip(f"this machine has no {host}")
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        assert not is_free(host, port)
    assert is_free(host, port)


def test_an_address_of_another_machine_is_not_a_port_in_use() -> None:
    """The reason is different, and so is the advice."""
    error = obstacle("192.0.2.1", free_port())
    assert error is not None
    assert error.errno == errno.EADDRNOTAVAIL


def test_a_port_below_1024_is_refused_for_lack_of_rights() -> None:
    """The error to a user without the rights says so, and not that something listens there."""
    own, first_free_to_all = os.geteuid(), Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if first_free_to_all.exists() and int(first_free_to_all.read_text()) <= 80:
        pytest.skip("this machine lets everybody listen on port 80")
    try:
        if own == 0:
            os.seteuid(65534)
        error = obstacle("127.0.0.1", 80)
    finally:
        os.seteuid(own)
    assert error is not None
    assert error.errno == errno.EACCES
