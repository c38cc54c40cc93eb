"""Runs versions as local processes on free ports: Bentos served by BentoML, and commands from `versions.yaml`.

A version is one or more processes, each with its own port, record and workers.

All running versions count and compare their answers by one comparison schema: that of the first to start.
So a release uses stable's bins and tolerance for both versions, whatever the canary was trained with.
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

_FRESH_S = 0.4  # the controller asks several times per tick
_DECIDED_EVERY_S = 10.0  # between looks for new signatures

_HASH_SEED = "PYTHONHASHSEED"
TASK_RESULTS = "BENTOML_RESULT_STORE"  # the file of a service's tasks, which its server deletes when it starts


class _Record(BaseModel):
    """The record of one process of a running version, stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tag: str
    port: int
    comparison_schema: str | None = None
    service: Service | None = None  # of a version that is not a Bento: its entry when it was started
    has_metrics: bool = True
    metrics_path: str = METRICS_PATH
    is_guarded: bool = False  # whether it checks the secret of versions' ports; False if an earlier Kanaria started it
    was_ready: tuple[int, float] | None = None  # pid and start time of the process that was ready before
    restarts: int = 0  # workers that ended by themselves since the start


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
        folder: stores a record of each running process, by which a new controller finds it.
        command: the server's command line for a Bento and a port.
        environment: the variables of a Bento's server in addition to those it inherits.
        on_change: called with all running versions when one starts or ends.
        on_refusal: called once for a version that does not start because of its signature.
        versions: the versions that can be started; None: the Bentos of the store.
        replicas: number of processes of a version that is started.
        pass_env: patterns of the keeper's variables that versions get in addition to the usual ones, see `inherited`.
        secret: the secret that versions check at their ports; empty: none.
        is_to_be_verified: whether a Bento's signature must be verified, by what is known now.
        sandbox: returns the sandbox of a Bento's process from its tag and its own folder.
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
        """Start one process of a version. False if there is nothing to do."""
        info, record = self._supervisor.info(name), self._record(name)
        if info is not None and (info.is_stopping or (record and self._supervisor.program(name))):
            return False
        listed = self._versions.listed(tag)
        if record is None or info is None:
            record = self._new_record(tag, listed, info)
            self._write(name, record)
            self._refused.discard(tag)  # a new attempt
        secret = self._secret if record.is_guarded else ""
        own = program_of(listed, name, record.port, self._pass_env, secret=secret) if listed else None
        self._supervisor.add(own or self._bento(name, record))
        return True

    def _bento(self, name: str, record: _Record) -> Program:
        """The program that serves a Bento."""
        comparison = record.comparison_schema
        # First: a signature that arrives from now on is seen by the next look.
        command = self._command(record.tag, record.port)
        self._home(name).mkdir(parents=True, exist_ok=True, mode=0o700)
        variables = {**self._environment(record.tag), TASK_RESULTS: str(self._home(name) / "tasks.db")}
        if SEAL_OPTION in command:  # its process creates that home
            variables |= {"BENTOML_HOME": str(self._home(name))}
        elif not self._known_service(record.tag).keeps_contract:  # a service of the contract keeps its own counters
            make_own_home(self._home(name))
            variables |= {"BENTOML_HOME": str(self._home(name))}
        variables |= {environment.COMPARISON_SCHEMA: comparison} if comparison else {}
        if record.is_guarded:
            variables |= guarded_ports.guarding(record.port, self._secret, processes=self._replicas)
        passed = variables_for(record.tag, command, self._pass_env)
        program = Program(name, command, variables, listed=passed, is_confined=True)
        return secluded(program, self._sandbox(record.tag, self._home(name)))

    def _known_service(self, tag: str) -> Service:
        """The same as `service`; if it cannot be read, that of the contract."""
        try:
            return self.service(tag)
        except SetupError:  # the Bento's server will report the error
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
        """Ask one process to end. True once it has."""
        record = self._record(name)
        if (info := self._supervisor.info(name)) is not None:
            self._workers.forget(info.pid)
        self._supervisor.stop(name)
        if self._supervisor.info(name) is not None:
            return False
        self._notes[name].unlink(missing_ok=True)
        shutil.rmtree(self._home(name), ignore_errors=True)  # removes links, not their targets
        if record is not None:
            self._probes.forget(self._backend(record))
        return True

    def running(self) -> tuple[str, ...]:
        kept = {tag for name in self._supervisor.names() if (tag := tag_of(name))}
        return tuple(sorted(kept | {record.tag for record in self._records()}))

    def process_of(self, tag: str) -> int | None:
        """The pid of a version's main process; None if it does not run."""
        info = self._supervisor.info(process_name(tag))
        return info.pid or None if info is not None else None

    def _look(self, tag: str) -> VersionStatus:
        return of_processes([self._look_at(tag, name) for name in self._names(tag)])

    def _look_at(self, tag: str, name: str) -> VersionStatus:
        """The state of one process of a version. Raises OSError if it cannot be found out."""
        info, record = self._supervisor.info(name), self._record(name)
        if info is None or record is None:
            return VersionStatus(Health.ABSENT)
        self._decide_again(name, record)
        backends = (self._backend(record),)
        if info.is_stopping:  # even if it answers: if wanted again, it is started once it has ended
            return VersionStatus(Health.UNREADY, backends, detail="it is being stopped", restarts=record.restarts)
        if not info.is_alive:
            words = self._last_words(tag, info)
            if record.was_ready is None:
                words = "; ".join(filter(None, (words, self._lacks(name, info.log))))
            return VersionStatus(Health.DEAD, backends, info.has_crashed, words, record.restarts)
        readiness = (record.service or self._known_service(record.tag)).readiness
        trouble = self._probes.trouble(self._backend(record), readiness, info.pid)
        record = self._with_restarts(name, record, info.pid)  # after the probe, which a worker may have answered
        was_ready = record.was_ready is not None and _is_still(*record.was_ready, of=info.pid)
        if not trouble:
            if not was_ready:
                self._remember_ready(name, record, info.pid)
                if record.is_guarded and self._probes.is_open(backends[0], readiness):
                    log.warning(
                        "port_is_open",
                        tag=tag,
                        port=record.port,
                        why="it answers requests without the secret of versions' ports",
                    )
            return VersionStatus(Health.READY, backends, info.has_crashed, _killed(info), record.restarts)
        health = Health.UNREADY if was_ready else Health.STARTING
        words = self._last_words(tag, info)
        detail = "; ".join(filter(None, (trouble, words))) if record.service else words
        preparing = last_line(info.log) if health is Health.STARTING and _is_preparing(info.pid) else ""
        return VersionStatus(health, backends, info.has_crashed, detail, record.restarts, preparing)

    def _decide_again(self, name: str, record: _Record) -> None:
        """If signatures arrived after the start of a process, its next start verifies them. The process runs on."""
        now_s = time.monotonic()
        if record.service or now_s < self._decide_at_s.get(name, 0.0):
            return
        self._decide_at_s[name] = now_s + _DECIDED_EVERY_S
        program = self._supervisor.program(name)
        if program is None or SEAL_OPTION in program.command:
            return
        with suppress(OSError, KanariaError):  # the store cannot be read: the next call tries again
            if self._is_to_be_verified(record.tag):
                self._supervisor.replace(self._bento(name, record))
                log.info("verified_from_next_start", tag=record.tag, program=name)

    def _with_restarts(self, name: str, record: _Record, pid: int) -> _Record:
        ended = self._workers.ended(pid) if pid else 0
        if not ended:
            return record
        counted = record.model_copy(update={"restarts": record.restarts + ended})
        with suppress(OSError):  # a full disk: the next controller will not know the count
            self._write(name, counted)
        return counted

    def _remember_ready(self, name: str, record: _Record, pid: int) -> None:
        with suppress(OSError):  # a full disk or no file descriptor: the next call tries again
            if (process := Identity.of(pid)) is not None:
                self._write(name, record.model_copy(update={"was_ready": (process.pid, process.started_s)}))

    def _last_words(self, tag: str, info: ProcessInfo) -> str:
        words = last_words(info.log)
        if SignatureError.__name__ in words and tag not in self._refused:
            self._refused.add(tag)  # counts once: its status is read on every tick until it is gone
            self._on_refusal()
        return "; last in its log: ".join(filter(None, (_killed(info), words)))

    def _lacks(self, name: str, log: Path) -> str:
        """Which variables of this environment it did not get, in words. The keeper has the same environment."""
        program = self._supervisor.program(name)
        return what_it_lacks(program.listed, log) if program else ""

    def _names(self, tag: str) -> tuple[str, ...]:
        """The names of the processes that a version has or should have: more than `replicas` if that was lowered."""
        wanted = {process_name(tag, number) for number in range(1, self._replicas + 1)}
        stored = {*self._known_names.at(self._folder), *self._supervisor.names()}
        return tuple(sorted(wanted | {name for name in stored if tag_of(name) == tag}))

    def backends(self) -> tuple[Backend, ...]:
        """The addresses of all running processes."""
        return tuple(map(self._backend, self._records()))

    def _backend(self, record: _Record) -> Backend:
        secret = self._secret if record.is_guarded else ""
        return Backend(record.tag, "127.0.0.1", record.port, record.has_metrics, secret, record.metrics_path)

    def _new_record(self, tag: str, listed: Listed | None, info: ProcessInfo | None) -> _Record:
        """A new record of a process. `info` describes a process that runs without a record."""
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
        """The record of a process; None if there is none that can be read."""
        return self._known_records.at(self._notes[name])

    def _write(self, name: str, record: _Record) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._notes[name], record.model_dump_json())

    def _home(self, name: str) -> Path:
        """The folder of one process: its own BentoML home, if it has one, and the results of tasks."""
        return self._folder / f"{name}.bentoml"


def _is_still(pid: int, started_s: float, *, of: int) -> bool:
    """Whether a process lives and has the pid `of`. A process that this user cannot inspect counts as it."""
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
    """Combine the states of a version's processes.

    A version becomes ready when each process was ready once, and stays ready as long as one is. It has crashed, or is
    dead, when all of them are; until then an ended process counts as a restarted worker.
    """
    there = [process for process in processes if process.health is not Health.ABSENT]
    if not there:
        return VersionStatus(Health.ABSENT)
    found = {process.health for process in there}
    is_new = any(process.health is Health.STARTING and not process.has_crashed for process in there)
    worst_last = (Health.READY, Health.UNREADY, Health.STARTING, Health.DEAD)
    health = Health.STARTING if is_new else next(health for health in worst_last if health in found)
    crashed = [process for process in there if process.has_crashed]
    shows_detail = health is not Health.READY or len(crashed) == len(there)
    ready_last = sorted(there, key=lambda process: process.health is Health.READY)
    return VersionStatus(
        health=health,
        backends=tuple(backend for process in there for backend in process.backends),
        has_crashed=len(crashed) == len(there),
        detail=next((process.detail for process in ready_last if process.detail), "") if shows_detail else "",
        restarts=sum(process.restarts for process in there) + (len(crashed) if len(there) > 1 else 0),
        preparing=next((process.preparing for process in there if process.preparing), ""),
    )


def _killed(info: ProcessInfo) -> str:
    """The signal that killed a process, in words: it could not log that itself. "": none did."""
    return f"killed by signal {info.signal}" if info.has_crashed and info.signal else ""


def _is_preparing(pid: int) -> bool:
    """Whether a version's process still prepares its environment. It becomes the server after that."""
    with suppress(psutil.Error, OSError):
        return MODULE in psutil.Process(pid).cmdline()
    return False


def _recovered(tag: str, info: ProcessInfo | None) -> _Record | None:
    """Rebuild the record of a running process from its command line and variables; None if they lack the port."""
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
    """The process of a version that is not a Bento, on `port`. It gets the `secret` that it must check there.

    It may gain rights: its command may be sudo.
    """
    variables = {**listed.variables(port), KEPT_PORT: str(port)} | ({environment.PORT_SECRET: secret} if secret else {})
    return Program(name, listed.words(port), variables, str(listed.folder), listed=tuple(pass_env))


def record_environment(settings: Settings, records: Path) -> dict[str, str]:
    """The variables that tell a process to record answers under `records`."""
    return {
        environment.ANSWERS_DIR: str(records / "answers"),
        environment.ANSWERS_KEY: settings.answers_key,
        environment.PREDICTIONS_DIR: str(records / "predictions"),
        environment.PREDICTION_LOG_MB: str(settings.prediction_log_mb),
    }


def server_environment(settings: Settings, tag: str, *, records: Path) -> dict[str, str]:
    """The variables of a tag's server in addition to those it inherits. It writes its records under `records`."""
    given = {
        environment.VERSION: tag,
        **record_environment(settings, records),
        environment.DEADLINE_S: str(settings.deadline_s),
        "BENTOML_DO_NOT_TRACK": "True",
        **policy_for(settings, tag),
    }
    if keeps_contract(tag):  # another service sets its own number of workers, and may have the same name
        # `bentoml serve --api-workers` does not reach a service class; its configuration does.
        workers = {"services": {"predictor": {"workers": workers_for(settings, tag)}}}
        given["BENTOML_CONFIG_OVERRIDES"] = json.dumps(workers)
    elif _HASH_SEED not in os.environ:
        # Each Python process orders sets of strings differently, so two versions with equal code would differ.
        seed = hashlib.blake2b(settings.version_secret.encode(), person=b"order of sets", digest_size=4).digest()
        given[_HASH_SEED] = str(int.from_bytes(seed))  # hard to guess: callers could otherwise make keys collide
    return given
