"""What is said where a Prometheus asks for a login that it was not given."""

import httpx

from rollout.errors import SourceUnreachable


def check_login(response: httpx.Response) -> None:
    """Raises SourceUnreachable for an answer that says so."""
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise SourceUnreachable(
            "Prometheus does not let Kanaria read",
            saw=f"HTTP {response.status_code} from {response.url.copy_with(path='/', query=None)}",
            do="of the stack's own Prometheus: `kanaria down` and `kanaria up`; of another: give a file with its login "
            "(--prometheus-login)",
        )
