"""A version's code gets none of the operator's secrets and no additional rights, however it is started."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from kanaria.stack import locks
from kanaria.stack.supervision import Program, Supervisor
from tests.support import own_service
from tests.support.processes import Kept, until
from tests.support.stack import Kanaria

SECRETS = {"AWS_SECRET_ACCESS_KEY": "s3cret", "KANARIA_GRAFANA_TOKEN": "t0ken", "PIP_INDEX_URL": "https://u:pw@index"}
REPORT = """
import json, os, resource, sys, time
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
cores = resource.getrlimit(resource.RLIMIT_CORE)
print(json.dumps({"env": dict(os.environ), "confined": status["NoNewPrivs"].strip(), "cores": cores}), flush=True)
time.sleep(600)
"""
# A service that needs a variable from the operator's environment.
NEEDY = """
import os
import bentoml

@bentoml.service(name="summary", envs=[{"name": "ASKED_FOR"}])
class Summary:
    def __init__(self) -> None:
        self.region = os.environ["AWS_REGION"]

    @bentoml.api
    def where(self) -> dict:
        return {"region": self.region, "asked_for": os.environ["ASKED_FOR"]}
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """A keeper that was started with secrets in its environment."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    made = Kept(tmp_path / "state")
    made.supervisor.start()
    yield made
    made.supervisor.shutdown()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this in /proc")
@pytest.mark.parametrize("is_confined", [True, False])
def test_a_version_under_a_keeper_has_no_secrets_and_cannot_gain_rights(kept: Kept, is_confined: bool) -> None:
    """It leaves no core dump either. The owner's own command may use sudo."""
    words = (sys.executable, "-c", REPORT)
    program = Program("m@v1", words, {"OWN": "given"}, listed=("LISTED_*",), is_confined=is_confined)
    kept.supervisor.add(program)
    log = kept.home / "logs" / "m@v1.log"
    told = json.loads(
        until(lambda: log.exists() and next(iter(re.findall(r"^\{.*\n", log.read_text(), re.MULTILINE)), ""))
    )
    assert not SECRETS.keys() & told["env"].keys()
    assert (told["env"]["OWN"], told["env"]["PATH"]) == ("given", os.environ["PATH"])
    assert (told["confined"], told["cores"]) == ("1" if is_confined else "0", [0, 0])
    said = log.read_text().splitlines()[0]
    assert "AWS_SECRET_ACCESS_KEY" in said
    assert not any(value in log.read_text().splitlines()[0] for value in SECRETS.values())


def variables_of_all(stack: Kanaria, name: str) -> list[dict[str, str]]:
    """The variables of each process of a version."""
    main = json.loads((stack.home / "processes" / f"{name}.json").read_text())["pid"]
    return [process.environ() for process in (psutil.Process(main), *psutil.Process(main).children(recursive=True))]


def test_no_process_of_a_bento_gets_the_operators_secrets(
    tmp_path: Path, require_program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers do not either. Variables in `envs` and KANARIA_PASS_ENV are passed; a missing one is named."""
    require_program("envoy")
    monkeypatch.setenv("AWS_REGION", "eu-1")
    monkeypatch.setenv("ASKED_FOR", "asked")
    tag = own_service.build(tmp_path / "hers", tmp_path / "store", "v1", service=NEEDY)
    stack = Kanaria.at(tmp_path, tmp_path / "store", KANARIA_METRICS="scrape", **SECRETS)
    tried = stack("preflight", tag)
    assert tried.returncode == 1
    assert "AWS_REGION of the environment is not passed to it" in " ".join(tried.stdout.split())
    assert "AWS_REGION" in stack.ok("validate", tag)
    stack.environment |= {"KANARIA_PASS_ENV": "AWS_REGION"}
    try:
        stack.ok("up", tag)
        answer = httpx.post(f"{stack.gateway}/where", headers={"x-api-key": stack.api_key}, trust_env=False, timeout=60)
        assert answer.json() == {"region": "eu-1", "asked_for": "asked"}
        found = variables_of_all(stack, "summary@v1")
        assert len(found) > 1
        assert [variables.keys() & SECRETS.keys() for variables in found] == [set()] * len(found)
    finally:
        stack("down")


@pytest.mark.skipif(sys.platform != "linux", reason="workers of the contract are forked on Linux only")
def test_no_restarted_process_gets_the_operators_secrets(kanaria: Kanaria) -> None:
    """This holds for forked workers, their replacements, and all processes of a new main process.

    The new main process is started by a keeper that the controller started, which itself has the operator's variables.
    """
    kanaria.environment |= SECRETS | {"KANARIA_METRICS": "scrape", "KANARIA_WORKERS": "2"}
    name, seen = "digits@v1", set[int]()

    def has_new_processes() -> bool:
        """Whether there are `wanted` new processes, such as the main one and two workers. No process has a secret."""
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(kanaria.pid(name))
            processes = [main, *main.children(recursive=True)]
            found = [process.environ() for process in processes]
            assert [variables.keys() & SECRETS.keys() for variables in found] == [set()] * len(found)
            return len({process.pid for process in processes} - seen) >= wanted
        return False

    def note_all() -> psutil.Process:
        main = psutil.Process(kanaria.pid(name))
        seen.update(process.pid for process in (main, *main.children(recursive=True)))
        return main

    kanaria.ok("up", "digits:v1")
    wanted = 3
    until(has_new_processes)
    note_all().children()[0].kill()
    wanted = 1
    until(has_new_processes)
    note_all()
    keeper = locks.holder(kanaria.home / "keeper.lock")
    assert keeper is not None
    psutil.Process(keeper.pid).kill()
    until(lambda: Supervisor(kanaria.home, kanaria.home / "logs").is_running)
    kanaria.kill(name)
    wanted = 3
    until(has_new_processes, limit_s=120)
