"""The client with which tests ask servers on this machine. One for all: each reads certificates, which takes long."""

from contract import loopback

HTTP = loopback.client(timeout_s=60.0, keeps_connections=False)
