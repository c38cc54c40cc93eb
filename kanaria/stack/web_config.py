"""Who may use the pages and the API of Prometheus and Alertmanager: one user, with a password."""

import bcrypt
import yaml

from monitoring.prometheus.user import USER

# Of 2^4 rounds: the password is long and drawn at random, so there is nothing to guess, and each request costs them.
_COST = 4


def web_config(password: str) -> str:
    """The text of a file for `--web.config.file`: it holds a hash of the password."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(_COST)).decode()
    return yaml.safe_dump({"basic_auth_users": {USER: hashed}})
