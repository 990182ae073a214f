"""An https webhook on this machine that takes, refuses, redirects, hangs or drips, as a test asks."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from support.local_server import Handler, LocalServer

CERTIFICATE = Path(__file__).resolve().parents[1] / "fixtures" / "tls" / "cert.pem"  # of hooks.test, self-signed, for tests alone
NAME = "hooks.test"


class Hook(LocalServer):
    """`script` has an answer for each request, the last for all further ones: a status, (status, headers, body), "hang", "drip" or "reset"."""

    def __init__(self, *script: Any):
        self.script = list(script) or [204]
        self.heard: list[tuple[str, dict[str, str], Any]] = []  # path, headers, body
        self.over = threading.Event()
        hook = self

        class Taking(Handler):
            def do_POST(self) -> None:
                body = self.asked()
                hook.heard.append((self.path, dict(self.headers), body))
                hook.answer(self, hook.script[min(len(hook.heard), len(hook.script)) - 1])

        super().__init__(Taking)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://{NAME}:{self.server.server_port}/services/T0/SECRET"

    def answer(self, handler: BaseHTTPRequestHandler, what: Any) -> None:
        if what == "hang":
            self.over.wait(30)
        elif what == "reset":
            handler.connection.close()
        elif what == "drip":
            for piece in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 600:
                handler.connection.sendall(bytes([piece]))
                if self.over.wait(0.05):
                    return
        else:
            status, headers, body = (what, {}, b"") if isinstance(what, int) else what
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

    def __exit__(self, *_: object) -> None:
        self.over.set()
        super().__exit__()
