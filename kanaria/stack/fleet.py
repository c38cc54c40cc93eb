"""Versions as local processes: Bentos served by BentoML, commands of others, on free ports, kept by the keeper.

A version is one process or several, each with its own port, its own record and its own workers.

All that run at a time count and compare their answers by one comparison schema: that of the first to start.
So a release reads stable's bins and tolerance in both versions, whatever the canary was trained with.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from contract import environment
from contract.errors import KanariaError
from contract.files import write_whole
from contract.http import METRICS_PATH
from contract.known_files import KnownFiles, Notes
from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack import guarded_ports
from kanaria.stack.bentos import (
    comparison_schema_of,
    keeps_contract,
    make_own_home,
    process_name,
    service_of,
    tag_of,
)
from kanaria.stack.identity import Identity
from kanaria.stack.listed import Listed
from kanaria.stack.log_words import last_line, last_words, what_it_lacks
from kanaria.stack.ports import free_port
from kanaria.stack.probes import Probes
from kanaria.stack.processes import KEPT_PORT
from kanaria.stack.sandbox import Sandbox
from kanaria.stack.shortage import text_of
from kanaria.stack.signing import policy_for
from kanaria.stack.supervision import ProcessInfo, Program, Supervisor, names_in
from kanaria.stack.version_process import MODULE, PORT_OPTION, SEAL_OPTION, secluded, variables_for
from kanaria.stack.versions import Versions
from kanaria.stack.workers import Workers, workers_for
from rollout.fleet import CONTRACT, Backend, Health, Service, VersionStatus
from service.signatures import SignatureError

log = structlog.get_logger()

_FRESH_S = 0.4  # the controller asks several times in one beat
_DECIDED_EVERY_S = 10.0  # whether signatures have come

_HASH_SEED = "PYTHONHASHSEED"
TASK_RESULTS = "BENTOML_RESULT_STORE"  # the file of a service's tasks, which its server deletes when it starts


class _Record(BaseModel):
    """What is kept of a running version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tag: str
    port: int
    comparison_schema: str | None = None
    service: Service | None = None  # of a version that is no Bento: as it was listed when it was started
    has_metrics: bool = True
    metrics_path: str = METRICS_PATH
    is_guarded: bool = False  # whether it asks for the secret of versions' ports; those of an earlier Kanaria do not
    was_ready: tuple[int, float] | None = None  # pid and start of the process that was ready once
    restarts: int = 0  # workers that ended by themselves since it was started


class LocalFleet:
    """The `Fleet` of one machine."""

    def __init__(
        self,
        supervisor: Supervisor,
        folder: Path,
        *,
        command: Callable[[str, int], list[str]],
        environment: Callable[[str], Mapping[str, str]],
        on_change: Callable[[tuple[Backend, ...]], None],
        on_refusal: Callable[[], None],
        versions: Versions | None = None,
        replicas: int = 1,
        pass_env: Sequence[str] = (),
        secret: str = "",
        is_to_be_verified: Callable[[str], bool] = lambda _: False,
        sandbox: Callable[[str, Path], Sandbox | None] = lambda *_: None,
    ) -> None:
        """Args:
        folder: keeps the port and the comparison schema of each running process, so that a new controller finds them.
        command: the server's command line for a Bento and a port.
        environment: what the server of a Bento needs besides what it inherits.
        on_change: called with all running versions when one comes or goes.
        on_refusal: called once for a version that does not start for its signature.
        versions: what can be started; None: the Bentos of the store.
        replicas: how many processes a version gets when it is started.
        pass_env: which variables of the keeper's versions get besides the usual ones, see `inherited`.
        secret: what versions are to ask for at their ports; empty: nothing.
        is_to_be_verified: whether a Bento is, as far as is known now.
        sandbox: that of a process of a Bento, by its tag and the folder that it has for itself.
        """
        self._supervisor, self._folder = supervisor, folder
        self._command, self._environment = command, environment
        self._on_change, self._on_refusal = on_change, on_refusal
        self._folder.mkdir(parents=True, exist_ok=True)
        self._versions, self._replicas, self._pass_env = versions or Versions(None), replicas, tuple(pass_env)
        self._secret, self._sandbox = secret, sandbox
        self._is_to_be_verified = is_to_be_verified
        self._decide_at_s: dict[str, float] = {}  # by process
        self._probes, self._workers = Probes(), Workers()
        self._notes = Notes(folder)
        self._known_names, self._known_records = KnownFiles(names_in), KnownFiles(_record_in)
        self._seen: dict[str, tuple[float, VersionStatus]] = {}
        self._refused: set[str] = set()
        self._services: dict[str, Service] = {}  # a Bento never changes

    def known_tags(self) -> tuple[str, ...]:
        return self._versions.tags()

    def service(self, tag: str) -> Service:
        if tag not in self._services:
            records = (self._record(name) for name in self._names(tag))
            if (started := next((record.service for record in records if record and record.service), None)) is not None:
                return started
            if (listed := self._versions.listed(tag)) is not None:
                return listed.service
            self._services[tag] = service_of(tag)
        return self._services[tag]

    def start(self, tag: str) -> None:
        begun = [self._start(tag, process_name(tag, number)) for number in range(1, self._replicas + 1)]
        if any(begun):
            self._seen.pop(tag, None)
            self._on_change(self.backends())

    def _start(self, tag: str, name: str) -> bool:
        """Start one process of a version; False where there is nothing to do."""
        info, record = self._supervisor.info(name), self._record(name)
        if info is not None and (info.is_stopping or (record and self._supervisor.program(name))):
            return False
        listed = self._versions.listed(tag)
        if record is None or info is None:
            record = self._new_record(tag, listed, info)
            self._write(name, record)
            self._refused.discard(tag)  # another attempt
        secret = self._secret if record.is_guarded else ""
        own = program_of(listed, name, record.port, self._pass_env, secret=secret) if listed else None
        self._supervisor.add(own or self._bento(name, record))
        return True

    def _bento(self, name: str, record: _Record) -> Program:
        """The process of a Bento."""
        comparison = record.comparison_schema
        command = self._command(record.tag, record.port)  # first: a signature that comes now is seen by the next look
        self._home(name).mkdir(parents=True, exist_ok=True, mode=0o700)
        variables = {**self._environment(record.tag), TASK_RESULTS: str(self._home(name) / "tasks.db")}
        if SEAL_OPTION in command:  # its process makes that home
            variables |= {"BENTOML_HOME": str(self._home(name))}
        elif not self._known_service(record.tag).keeps_contract:  # with the contract a service sees to that itself
            make_own_home(self._home(name))
            variables |= {"BENTOML_HOME": str(self._home(name))}
        variables |= {environment.COMPARISON_SCHEMA: comparison} if comparison else {}
        if record.is_guarded:
            variables |= guarded_ports.guarding(record.port, self._secret, processes=self._replicas)
        passed = variables_for(record.tag, command, self._pass_env)
        program = Program(name, command, variables, listed=passed, is_confined=True)
        return secluded(program, self._sandbox(record.tag, self._home(name)))

    def _known_service(self, tag: str) -> Service:
        """The same as `service`; where it cannot be read, that of the contract."""
        try:
            return self.service(tag)
        except SetupError:  # its server will say what is wrong with the Bento
            return CONTRACT

    def status(self, tag: str) -> VersionStatus:
        at_s, status = self._seen.get(tag, (0.0, None))
        if status is None or time.monotonic() - at_s > _FRESH_S:
            status = self._look(tag)
            self._seen[tag] = (time.monotonic(), status)
        return status

    def stop(self, tag: str) -> None:
        ended = [self._stop(name) for name in self._names(tag)]
        if any(ended):
            self._on_change(self.backends())
        self._seen.pop(tag, None)

    def suspend(self, tag: str) -> bool:
        suspended = [self._supervisor.suspend(name) for name in self._names(tag)]
        return any(suspended)

    def _stop(self, name: str) -> bool:
        """Ask one process to end; True once it has."""
        record = self._record(name)
        if (info := self._supervisor.info(name)) is not None:
            self._workers.forget(info.pid)
        self._supervisor.stop(name)
        if self._supervisor.info(name) is not None:
            return False
        self._notes[name].unlink(missing_ok=True)
        shutil.rmtree(self._home(name), ignore_errors=True)  # it removes links, and nothing behind them
        if record is not None:
            self._probes.forget(self._backend(record))
        return True

    def running(self) -> tuple[str, ...]:
        kept = {tag for name in self._supervisor.names() if (tag := tag_of(name))}
        return tuple(sorted(kept | {record.tag for record in self._records()}))

    def process_of(self, tag: str) -> int | None:
        """The main process of a version; None when it does not run."""
        info = self._supervisor.info(process_name(tag))
        return info.pid or None if info is not None else None

    def _look(self, tag: str) -> VersionStatus:
        return of_processes([self._look_at(tag, name) for name in self._names(tag)])

    def _look_at(self, tag: str, name: str) -> VersionStatus:
        """The state of one process of a version. Raises OSError where nobody knows it."""
        info, record = self._supervisor.info(name), self._record(name)
        if info is None or record is None:
            return VersionStatus(Health.ABSENT)
        self._decide_again(name, record)
        backends = (self._backend(record),)
        if info.is_stopping:  # whatever it answers: asked for again, it is started anew once it has ended
            return VersionStatus(Health.UNREADY, backends, detail="it is being ended", restarts=record.restarts)
        if not info.is_alive:
            words = self._last_words(tag, info)
            if record.was_ready is None:
                words = "; ".join(filter(None, (words, self._lacks(name, info.log))))
            return VersionStatus(Health.DEAD, backends, info.has_crashed, words, record.restarts)
        readiness = (record.service or self._known_service(record.tag)).readiness
        trouble = self._probes.trouble(self._backend(record), readiness, info.pid)
        record = self._with_restarts(name, record, info.pid)  # a first answer was waited for, and has come from one
        was_ready = record.was_ready is not None and _is_still(*record.was_ready, of=info.pid)
        if not trouble:
            if not was_ready:
                self._remember_ready(name, record, info.pid)
                if record.is_guarded and self._probes.is_open(backends[0], readiness):
                    log.warning(
                        "port_is_open",
                        tag=tag,
                        port=record.port,
                        why="it answers whoever lacks the secret of versions' ports",
                    )
            return VersionStatus(Health.READY, backends, info.has_crashed, _killed(info), record.restarts)
        health = Health.UNREADY if was_ready else Health.STARTING
        words = self._last_words(tag, info)
        detail = "; ".join(filter(None, (trouble, words))) if record.service else words
        preparing = last_line(info.log) if health is Health.STARTING and _is_preparing(info.pid) else ""
        return VersionStatus(health, backends, info.has_crashed, detail, record.restarts, preparing)

    def _decide_again(self, name: str, record: _Record) -> None:
        """Where signatures have come since a process was started, let its next start verify them. It runs on."""
        now_s = time.monotonic()
        if record.service or now_s < self._decide_at_s.get(name, 0.0):
            return
        self._decide_at_s[name] = now_s + _DECIDED_EVERY_S
        program = self._supervisor.program(name)
        if program is None or SEAL_OPTION in program.command:
            return
        with suppress(OSError, KanariaError):  # the store cannot be read: the next look tries again
            if self._is_to_be_verified(record.tag):
                self._supervisor.replace(self._bento(name, record))
                log.info("verified_from_next_start", tag=record.tag, program=name)

    def _with_restarts(self, name: str, record: _Record, pid: int) -> _Record:
        ended = self._workers.ended(pid) if pid else 0
        if not ended:
            return record
        counted = record.model_copy(update={"restarts": record.restarts + ended})
        with suppress(OSError):  # a full disk: the next controller does not know of it
            self._write(name, counted)
        return counted

    def _remember_ready(self, name: str, record: _Record, pid: int) -> None:
        with suppress(OSError):  # a full disk, no file to open: the next look tries again
            if (process := Identity.of(pid)) is not None:
                self._write(name, record.model_copy(update={"was_ready": (process.pid, process.started_s)}))

    def _last_words(self, tag: str, info: ProcessInfo) -> str:
        words = last_words(info.log)
        if SignatureError.__name__ in words and tag not in self._refused:
            self._refused.add(tag)  # its status is read on every beat until it is gone
            self._on_refusal()
        return "; last in its log: ".join(filter(None, (_killed(info), words)))

    def _lacks(self, name: str, log: Path) -> str:
        """What it was not given of this environment, which is the keeper's too, in words."""
        program = self._supervisor.program(name)
        return what_it_lacks(program.listed, log) if program else ""

    def _names(self, tag: str) -> tuple[str, ...]:
        """The names of the processes that a version has, or is to have: more than now where fewer were wanted since."""
        wanted = {process_name(tag, number) for number in range(1, self._replicas + 1)}
        stored = {*self._known_names.at(self._folder), *self._supervisor.names()}
        return tuple(sorted(wanted | {name for name in stored if tag_of(name) == tag}))

    def backends(self) -> tuple[Backend, ...]:
        """All processes that run."""
        return tuple(map(self._backend, self._records()))

    def _backend(self, record: _Record) -> Backend:
        secret = self._secret if record.is_guarded else ""
        return Backend(record.tag, "127.0.0.1", record.port, record.has_metrics, secret, record.metrics_path)

    def _new_record(self, tag: str, listed: Listed | None, info: ProcessInfo | None) -> _Record:
        """What is to be kept of a process; `info` of one that runs without a record."""
        known = _recovered(tag, info)
        if listed is not None:
            port = known.port if known else free_port()
            is_guarded = known.is_guarded if known else listed.secret and bool(self._secret)
            return _Record(
                tag=tag, port=port, service=listed.service, has_metrics=listed.metrics, is_guarded=is_guarded
            )
        metrics_path = self._known_service(tag).metrics_path
        first = next((record.comparison_schema for record in self._records()), None)
        schema = first or comparison_schema_of(tag)
        made = known or _Record(tag=tag, port=free_port(), comparison_schema=schema, is_guarded=bool(self._secret))
        return made.model_copy(update={"has_metrics": bool(metrics_path), "metrics_path": metrics_path})

    def _records(self) -> list[_Record]:
        return [record for name in self._known_names.at(self._folder) if (record := self._record(name))]

    def _record(self, name: str) -> _Record | None:
        """What is kept of a version; None when there is nothing that can be read."""
        return self._known_records.at(self._notes[name])

    def _write(self, name: str, record: _Record) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._notes[name], record.model_dump_json())

    def _home(self, name: str) -> Path:
        """The folder of one process: BentoML's home, where it has one of its own, and the results of tasks."""
        return self._folder / f"{name}.bentoml"


def _is_still(pid: int, started_s: float, *, of: int) -> bool:
    """Whether a process is the living one with the number `of`. One that this user may not look at is taken for it."""
    try:
        return Identity(pid, started_s).is_alive
    except PermissionError:
        return pid == of


def _record_in(path: Path) -> _Record | None:
    try:
        return _Record.model_validate_json(text_of(path) or b"")
    except ValidationError:
        return None


def of_processes(processes: Sequence[VersionStatus]) -> VersionStatus:
    """The state of a version from that of its processes.

    It is ready for traffic when each of them was ready once, and from then on as long as one is. It has crashed, or is
    dead, when all are; until then a process of several that ended counts as a worker.
    """
    there = [process for process in processes if process.health is not Health.ABSENT]
    if not there:
        return VersionStatus(Health.ABSENT)
    found = {process.health for process in there}
    is_new = any(process.health is Health.STARTING and not process.has_crashed for process in there)
    worst_last = (Health.READY, Health.UNREADY, Health.STARTING, Health.DEAD)
    health = Health.STARTING if is_new else next(health for health in worst_last if health in found)
    crashed = [process for process in there if process.has_crashed]
    is_told = health is not Health.READY or len(crashed) == len(there)
    ready_last = sorted(there, key=lambda process: process.health is Health.READY)
    return VersionStatus(
        health=health,
        backends=tuple(backend for process in there for backend in process.backends),
        has_crashed=len(crashed) == len(there),
        detail=next((process.detail for process in ready_last if process.detail), "") if is_told else "",
        restarts=sum(process.restarts for process in there) + (len(crashed) if len(there) > 1 else 0),
        preparing=next((process.preparing for process in there if process.preparing), ""),
    )


def _killed(info: ProcessInfo) -> str:
    """How a process ended that can have said nothing about it; "": in another way."""
    return f"killed by signal {info.signal}" if info.has_crashed and info.signal else ""


def _is_preparing(pid: int) -> bool:
    """Whether a version's process still sees to its environment: it becomes the server after that."""
    with suppress(psutil.Error, OSError):
        return MODULE in psutil.Process(pid).cmdline()
    return False


def _recovered(tag: str, info: ProcessInfo | None) -> _Record | None:
    """The record of a process that runs without one, from the process itself; None when it does not say."""
    if info is None or not info.pid:
        return None
    try:
        process = psutil.Process(info.pid)
        words, variables = process.cmdline(), process.environ()
        port = int(variables.get(KEPT_PORT) or words[words.index(PORT_OPTION) + 1])
    except (psutil.Error, OSError, ValueError, IndexError):
        return None
    is_guarded = guarded_ports.is_guarded(variables) or environment.PORT_SECRET in variables
    schema = variables.get(environment.COMPARISON_SCHEMA)
    return _Record(tag=tag, port=port, comparison_schema=schema, is_guarded=is_guarded)


def program_of(listed: Listed, name: str, port: int, pass_env: Sequence[str], *, secret: str = "") -> Program:
    """The process of a version that is no Bento, listening on `port` and told what to ask for there.

    It may gain rights: its command may be sudo.
    """
    variables = {**listed.variables(port), KEPT_PORT: str(port)} | ({environment.PORT_SECRET: secret} if secret else {})
    return Program(name, listed.words(port), variables, str(listed.folder), listed=tuple(pass_env))


def record_environment(settings: Settings, records: Path) -> dict[str, str]:
    """Where a process keeps what was answered, under `records`."""
    return {
        environment.ANSWERS_DIR: str(records / "answers"),
        environment.ANSWERS_KEY: settings.answers_key,
        environment.PREDICTIONS_DIR: str(records / "predictions"),
        environment.PREDICTION_LOG_MB: str(settings.prediction_log_mb),
    }


def server_environment(settings: Settings, tag: str, *, records: Path) -> dict[str, str]:
    """What the server of a tag needs besides what it inherits; it keeps its records under `records`."""
    given = {
        environment.VERSION: tag,
        **record_environment(settings, records),
        environment.DEADLINE_S: str(settings.deadline_s),
        "BENTOML_DO_NOT_TRACK": "True",
        **policy_for(settings, tag),
    }
    if keeps_contract(tag):  # another service says itself how many workers it has, and may have the same name
        # `bentoml serve --api-workers` does not reach a service class; its configuration does.
        workers = {"services": {"predictor": {"workers": workers_for(settings, tag)}}}
        given["BENTOML_CONFIG_OVERRIDES"] = json.dumps(workers)
    elif _HASH_SEED not in os.environ:
        # A set of texts has another order in each Python, so that two versions with the same code would differ in it.
        seed = hashlib.blake2b(settings.version_secret.encode(), person=b"order of sets", digest_size=4).digest()
        given[_HASH_SEED] = str(int.from_bytes(seed))  # hard to guess for a caller who would fill a table's one place
    return given
