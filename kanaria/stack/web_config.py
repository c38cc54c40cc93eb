"""The access to Prometheus and Alertmanager: one user with a password."""

import bcrypt
import yaml

from monitoring.prometheus.user import USER

# 2^4 rounds, which each request costs. They suffice: the password is long and random, so it cannot be guessed.
_COST = 4


def web_config(password: str) -> str:
    """The text of a file for `--web.config.file`, with a hash of the password."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(_COST)).decode()
    return yaml.safe_dump({"basic_auth_users": {USER: hashed}})
