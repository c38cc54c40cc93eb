"""How a controller proves to whoever commands it that it knows the token, before it is shown the token.

Whoever listens at the port of a controller that is down does not know it. The proof is made from what is kept of a
token, its hash, so a controller that keeps no more than that can give it.
"""

import hashlib
import hmac

PROOF_PATH = "/api/proof"
LONGEST_NONCE = 100


def id_of(digest: str) -> str:
    """What names a token to its controller, and helps nobody else; `digest` is the hash of the token."""
    return _keyed(digest, "id")


def proof_of(digest: str, nonce: str) -> str:
    """What only a controller that knows the token can answer to a `nonce`."""
    return _keyed(digest, f"proof {nonce}")


def _keyed(digest: str, text: str) -> str:
    return hmac.new(digest.encode(), f"kanaria controller {text}".encode(), hashlib.sha256).hexdigest()
