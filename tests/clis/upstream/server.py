"""The script behind HTTP."""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from . import chat, gemini, messages, responses
from .script import Ask, Refused, play

DIALECTS = {dialect.NAME: dialect for dialect in (chat, messages, responses, gemini)}
# Far more than any client sends.
LARGEST_BODY = 4 << 20


@dataclass
class Received:
    """A request, whether it was understood or not."""

    dialect: str
    path: str
    headers: dict[str, str]
    body: dict
    ask: Ask | None = None
    refused: str | None = None
    signed: bool = False
    """Whether the answer had a signature that must come back."""


class Upstream:
    """All dialects on one port. `received` are the requests that ask for an answer, in order; `strays` all others."""

    def __init__(self, port: int = 0):
        self.received: list[Received] = []
        self.strays: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Exchange)
        self.server.daemon_threads = True
        self.server.upstream = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def forget(self):
        self.received, self.strays = [], []

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_POST(self):
        url = urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        dialect = next((dialect for dialect in DIALECTS.values() if dialect.matches(url.path)), None)
        if dialect is None or length > LARGEST_BODY:
            self.close_connection = True
            return self.stray()
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = Received(dialect.NAME, self.path, headers, {})
        self.server.upstream.received.append(received)
        try:
            received.body = json.loads(self.rfile.read(length))
            received.ask = dialect.read(url.path, headers, received.body)
            turn = play(received.ask)
            received.signed = dialect.signs(turn)
        except (Refused, KeyError, TypeError, ValueError, AttributeError) as refused:
            received.refused = str(refused) if isinstance(refused, Refused) else repr(refused)
            return self.whole(400, dialect.refusal(received.refused))
        if received.ask.streamed:
            self.stream(dialect.stream(received.ask, turn, received.body))
        else:
            self.whole(200, dialect.whole(received.ask, turn))

    def stray(self):
        self.server.upstream.strays.append(f"{self.command} {self.path}")
        self.whole(404, {"error": {"message": f"{self.command} {self.path} is not part of this script"}})

    do_GET = do_HEAD = do_PUT = do_DELETE = do_PATCH = stray

    def whole(self, status: int, document: dict):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stream(self, events):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for name, data in events:
            text = data if isinstance(data, str) else json.dumps(data)
            event = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
            self.wfile.write(f"{len(event.encode()):x}\r\n{event}\r\n".encode())
        self.wfile.write(b"0\r\n\r\n")
