"""Pushes Kanaria's resources to a Grafana: data source, folder, boards, contact point, annotations.

Everything has a stable uid, so pushing again changes only what differs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError

from contract import loopback
from contract.deadline import ended_within
from monitoring.errors import GrafanaError
from monitoring.grafana.dashboards import TAG, Board
from monitoring.grafana.dashboards.resources import (
    CONTACT_NAME,
    CONTACT_UID,
    FOLDER_TITLE,
    FOLDER_UID,
    HEADER_NAME,
    OF_AUTHORITY,
    DataSource,
    Webhook,
)
from monitoring.grafana.dashboards.style import DATA_SOURCE_UID

OLDEST = (11, 0)  # the boards are written for this version; older versions would show some panels wrongly
_MOST_ANNOTATIONS = 10_000  # Grafana returns only 100 by default
_SECRET = "[REDACTED]"  # noqa: S105 - what Grafana shows instead of a secret
_ASK_FOR_ADMIN = (
    "in Grafana, under Administration, Users and access, Service accounts, make one with the role Admin, "
    "and give its token as KANARIA_GRAFANA_TOKEN"
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a push did to one resource."""

    thing: str
    done: Literal["created", "updated", "unchanged"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """An event to show in the graphs."""

    key: str  # identifies the event, so that it is pushed only once; it has no spaces
    at_s: float  # Unix seconds
    text: str
    tags: tuple[str, ...] = ()


class Grafana:
    """One Grafana.

    Args:
        url: the address at which people open it; may contain `user:password@`.
        token: of a service account; None: use the user and password of the URL.
        timeout_s: longest wait for one whole answer, seconds.

    Every method raises GrafanaError.
    """

    def __init__(self, url: str, token: str | None, *, timeout_s: float = 5.0) -> None:
        url = url if url.endswith("/") else f"{url}/"  # without it grafana-client appends the path to the prefix
        self._api = GrafanaApi.from_url(url, credential=token, timeout=timeout_s)
        session = self._api.client.s
        session.trust_env = not loopback.is_local(url)  # a Grafana on another machine may be behind a proxy
        self._send, self._timeout_s = session.send, timeout_s
        session.send = self._send_in_time  # the session's own timeout holds for each part of an answer
        self.url = self._api.client.url.removesuffix("api")  # without the password, so it may be shown

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.client.s.close()

    def check_version(self) -> str:
        """Return the version of this Grafana. Refuse one that is too old, and a server that is not Grafana."""
        with self._explained():
            settings = self._api.client.GET("/frontend/settings")
        version = settings.get("buildInfo", {}).get("version", "") if isinstance(settings, dict) else ""
        numbers = version.split("-")[0].split("+")[0].split(".")
        if len(numbers) < 2 or not all(number.isdecimal() for number in numbers[:2]):
            raise GrafanaError(
                "the server that answers is not Grafana",
                saw=f"no version at {self.url}api/frontend/settings",
                do="correct KANARIA_GRAFANA_URL to where you open Grafana in a browser",
            )
        if tuple(map(int, numbers[:2])) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise GrafanaError(
                f"this Grafana is too old: the boards need {wanted}",
                saw=f"version {version} at {self.url}",
                do=f"update Grafana to {wanted} or newer, or start the Grafana of compose.yaml",
            )
        return str(version)

    def push_data_source(self, source: DataSource) -> Change:
        """Create or update the data source of the boards."""
        wanted = source.document
        with self._explained("the data source"):
            known = self._found(lambda: self._api.datasource.get_datasource_by_uid(DATA_SOURCE_UID))
            if known is None:
                self._api.datasource.create_datasource(wanted | source.secrets)
                return Change("data source", "created")
            is_same = _holds(known, wanted) and _sent_and_trusted(known) == _sent_and_trusted(wanted)
            if not is_same or source.secrets:  # secrets cannot be read back, so they are written each time
                self._api.datasource.update_datasource_by_uid(DATA_SOURCE_UID, wanted | source.secrets)
            return Change("data source", "unchanged" if is_same else "updated")

    def push_folder(self) -> Change:
        """Create the folder of the boards. An existing folder keeps its title."""
        with self._explained("the folder"):
            if self._found(lambda: self._api.folder.get_folder(FOLDER_UID)) is not None:
                return Change("folder", "unchanged")
            self._api.folder.create_folder(FOLDER_TITLE, uid=FOLDER_UID)
            return Change("folder", "created")

    def push_board(self, board: Board) -> Change:
        """Create or update one board in the folder. Manual changes are overwritten; Grafana's history keeps them."""
        with self._explained(f"the board {board.title}"):
            known = self._found(lambda: self._api.dashboard.get_dashboard(board.uid))
            wanted = board.document
            if known is not None:
                before = known["dashboard"]
                is_in_place = known["meta"].get("folderUid") == FOLDER_UID
                if is_in_place and {**before, "id": None, "version": None} == {**wanted, "id": None, "version": None}:
                    return Change(board.title, "unchanged")
                # With this version number, Grafana refuses to overwrite a change that was saved meanwhile.
                wanted |= {"id": before["id"], "version": before["version"]}
            payload = {"dashboard": wanted, "folderUid": FOLDER_UID, "message": "kanaria dashboards push"}
            self._api.dashboard.update_dashboard(payload)
            return Change(board.title, "created" if known is None else "updated")

    def push_contact_point(self, webhook: Webhook) -> Change:
        """Create or update a contact point that notifies the controller, for alert rules made in Grafana."""
        settings = webhook.settings
        wanted = {"uid": CONTACT_UID, "name": CONTACT_NAME, "type": "webhook", "settings": settings}
        with self._explained("the contact point"):
            points = self._api.alertingprovisioning.get_contactpoints()
            known = next((point for point in points if point["uid"] == CONTACT_UID), None)
            if known is None:
                self._api.alertingprovisioning.create_contactpoint(wanted, disable_provenance=True)
                return Change("contact point", "created")
            # The token cannot be read back, so a contact point that differs in nothing else counts as unchanged.
            if _holds(known, {**wanted, "settings": {**settings, "authorization_credentials": _SECRET}}):
                return Change("contact point", "unchanged")
            self._api.alertingprovisioning.update_contactpoint(CONTACT_UID, wanted, disable_provenance=True)
            return Change("contact point", "updated")

    def push_annotations(self, annotations: Iterable[Annotation]) -> int:
        """Add the annotations that do not exist yet. Returns: how many."""
        wanted = sorted(annotations, key=lambda annotation: annotation.at_s)
        if not wanted:
            return 0
        with self._explained("annotations"):
            known = self._api.annotations.find_annotations(
                time_from=_ms(wanted[0].at_s), time_to=_ms(wanted[-1].at_s) + 1, tags=[TAG], limit=_MOST_ANNOTATIONS
            )
            there = {tag for annotation in known for tag in annotation["tags"]}
            missing = [annotation for annotation in wanted if _key_tag(annotation) not in there]
            for annotation in missing:
                self._api.annotations.add_annotation(
                    time_from=_ms(annotation.at_s),
                    tags=[TAG, *annotation.tags, _key_tag(annotation)],
                    text=annotation.text,
                )
        return len(missing)

    def _send_in_time(self, *request: Any, **options: Any) -> Any:
        return ended_within(self._timeout_s, partial(self._send, *request, **options))

    @staticmethod
    def _found(get: Callable[[], Any]) -> Any | None:
        """The result of `get`; None for a 404."""
        try:
            return get()
        except GrafanaClientError as error:
            if error.status_code == 404:
                return None
            raise

    @contextmanager
    def _explained(self, thing: str = "Grafana") -> Iterator[None]:
        try:
            yield
        except GrafanaUnauthorizedError as error:
            raise GrafanaError(
                "Grafana does not know this token", saw=f"401 from {self.url}: {error.response}", do=_ASK_FOR_ADMIN
            ) from error
        except GrafanaClientError as error:
            raise self._refused(thing, error) from error
        except (OSError, GrafanaException) as error:
            raise GrafanaError(
                "Grafana does not answer",
                saw=f"{error!r} from {self.url}",
                do="start it, or correct KANARIA_GRAFANA_URL to where you open it in a browser",
            ) from error

    def _refused(self, thing: str, error: GrafanaClientError) -> GrafanaError:
        saw = f"{error.message} from {self.url}"
        if "read-only" in error.message or "provisioned" in error.message:
            do = "change the files that it reads (`kanaria dashboards generate`); do not push to this Grafana"
            return GrafanaError(f"this Grafana reads {thing} from a file", saw=saw, do=do)
        match error.status_code:
            case 403:
                return GrafanaError(f"this token may not change {thing}", saw=saw, do=_ASK_FOR_ADMIN)
            case 412:
                do = "look at it in Grafana, then push again"
                return GrafanaError(f"another user saved {thing} at the same moment", saw=saw, do=do)
        return GrafanaError(f"Grafana refused {thing}", saw=saw, do="read its log, which names the reason")


def push(grafana: Grafana, boards: Sequence[Board], source: DataSource, webhook: Webhook) -> Iterator[Change]:
    """Push everything but annotations, in order of dependence."""
    grafana.check_version()
    yield grafana.push_data_source(source)
    yield grafana.push_folder()
    for board in boards:
        yield grafana.push_board(board)
    yield grafana.push_contact_point(webhook)


def _holds(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether `known` has all of `wanted`, at every depth; Grafana adds fields of its own."""
    return all(
        _holds(known.get(key) or {}, value) if isinstance(value, Mapping) else known.get(key) == value
        for key, value in wanted.items()
    )


def _sent_and_trusted(source: Mapping[str, Any]) -> set[str]:
    """The headers that a data source sends, and whether it has an authority. Unwanted ones must be removed."""
    settings = source.get("jsonData") or {}
    return {name for name, value in settings.items() if value and name.startswith((HEADER_NAME, OF_AUTHORITY))}


def _key_tag(annotation: Annotation) -> str:
    return f"event:{annotation.key}"


def _ms(at_s: float) -> int:
    return round(at_s * 1000)
