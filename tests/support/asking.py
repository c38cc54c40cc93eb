"""The HTTP client with which tests call servers on this machine.

All share it, because each client loads certificates, which is slow.
"""

from contract import loopback

HTTP = loopback.client(timeout_s=60.0, keeps_connections=False)
