"""Reads the firing alerts from Prometheus itself: anyone who can post to an Alertmanager can fake its alerts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from contract import loopback
from contract.login import Login
from rollout.errors import SourceUnreachable
from rollout.sources.login import check_login


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert that fires now."""

    labels: Mapping[str, str]
    since_s: float  # when its condition started to hold, Unix seconds


class FiringAlerts:
    """The alerts of the Prometheus at `url`; `login` is used if it requires one."""

    def __init__(self, url: str, *, timeout_s: float = 2.0, login: Login | None = None) -> None:
        self._http = loopback.client(url, timeout_s=timeout_s, keeps_connections=False, login=login)

    def now(self) -> Sequence[Firing]:
        """The alerts that fire now. Raises SourceUnreachable."""
        try:
            answer = self._http.get("/api/v1/alerts")
            check_login(answer)
            found = _Answer.model_validate_json(answer.raise_for_status().content)
        except (httpx.HTTPError, ValidationError) as error:
            raise SourceUnreachable(
                "Prometheus does not say which alerts fire",
                saw=f"{error!r} from {self._http.base_url}",
                do="check whether it runs: `kanaria processes show`",
            ) from error
        return [Firing(one.labels, one.since.timestamp()) for one in found.data.alerts if one.state == "firing"]


class _Alert(BaseModel):
    labels: dict[str, str]
    state: str
    since: AwareDatetime = Field(alias="activeAt")


class _Alerts(BaseModel):
    alerts: tuple[_Alert, ...]


class _Answer(BaseModel):
    """An answer of `/api/v1/alerts`. Fields that are not read here may change."""

    data: _Alerts
