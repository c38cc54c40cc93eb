"""How a controller proves to a client that it knows the client's token, before the client sends the token.

A foreign process at the port of a stopped controller does not know the token. The proof is computed from the token's
hash, which is all that the controller stores.
"""

import hashlib
import hmac

PROOF_PATH = "/api/proof"
LONGEST_NONCE = 100


def id_of(digest: str) -> str:
    """An id for a token that only its controller can recognise; `digest` is the hash of the token."""
    return _keyed(digest, "id")


def proof_of(digest: str, nonce: str) -> str:
    """The answer to a `nonce` that only a controller with the token's hash can give."""
    return _keyed(digest, f"proof {nonce}")


def _keyed(digest: str, text: str) -> str:
    return hmac.new(digest.encode(), f"kanaria controller {text}".encode(), hashlib.sha256).hexdigest()
