"""Real receivers of messages on this machine: a web server for webhooks, and a mail server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from kanaria.stack.ports import free_port
from tests.support.running_server import running_server


@dataclass
class Webhook:
    """The messages that a webhook received; `status` is its answer."""

    url: str = ""
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    tries: int = 0
    arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def titles(self) -> list[str]:
        return [body["title"] for body in self.bodies]

    def wait_for_tries(self, tries: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.tries >= tries, 120), self.tries

    def wait_for(self, messages: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.bodies) >= messages, 120), self.titles


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A running webhook, with its address as Apprise writes it."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with hook.arrived:
                hook.tries += 1
                if hook.status == 200:
                    hook.bodies.append(json.loads(body))
                hook.arrived.notify_all()
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with running_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        hook.url = f"json://127.0.0.1:{server.server_address[1]}/hook/s3cr3t-part"
        yield hook


@dataclass
class Mailbox:
    """The mails that a mail server accepted."""

    port: int
    mails: list[Message] = field(default_factory=list)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        """Accept one mail."""
        self.mails.append(message_from_bytes(bytes(envelope.content or b""), policy=default))
        return "250 taken"


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A running mail server."""
    box = Mailbox(free_port())
    server = Controller(box, hostname="127.0.0.1", port=box.port)
    server.start()
    yield box
    server.stop()
