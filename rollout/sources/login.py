"""The error if a Prometheus requires a login that was not given."""

import httpx

from rollout.errors import SourceUnreachable


def check_login(response: httpx.Response) -> None:
    """Raise SourceUnreachable if an answer requires a login."""
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise SourceUnreachable(
            "Prometheus does not let Kanaria read",
            saw=f"HTTP {response.status_code} from {response.url.copy_with(path='/', query=None)}",
            do="for the stack's own Prometheus: `kanaria down` and `kanaria up`; for another: give a file with its "
            "login (--prometheus-login)",
        )
