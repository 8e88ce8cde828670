"""The processes under test: the real binary as gateway and as simulator, and an upstream that watches its peer."""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

TOKEN = "a-token-for-the-management-api-in-tests"
STARTED_WITHIN = 30.0


def binary() -> str:
    path = os.environ.get("OMNIROUTE_BIN", "")
    if not path or not os.access(path, os.X_OK):
        sys.exit("OMNIROUTE_BIN must name the gateway's binary; `make test-clients` builds it and sets it")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what: str, seconds: float = 10.0, pause: float = 0.02):
    """Waits for a condition and returns its value; says what did not happen."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(pause)


def clean_environment(extra: dict | None = None) -> dict:
    """The environment without anything that would configure the gateway."""
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "RUST_BACKTRACE")
    return {name: os.environ[name] for name in keep if name in os.environ} | (extra or {})


class Simulator:
    """`omniroute sim`: the provider's side over HTTP."""

    def __init__(self):
        self.process = subprocess.Popen(
            [binary(), "sim", "--port", "0"], stdout=subprocess.PIPE, text=True, env=clean_environment()
        )
        line = self.process.stdout.readline()
        assert "http://" in line, f"the simulator did not start: {line!r}"
        self.url = line[line.index("http://") :].strip()

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()


class Gateway:
    """A gateway in a data directory of its own, and its management API."""

    def __init__(self, folder: Path, **environment: str):
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = environment
        # Ids of nodes by their prefixes.
        self.nodes: dict[str, str] = {}
        self.process: subprocess.Popen | None = None
        self.log = folder / "gateway.log"
        self.api = httpx.Client(
            base_url=f"{self.url}/api", headers={"authorization": f"Bearer {TOKEN}"}, timeout=30
        )

    def start(self) -> "Gateway":
        environment = {"MANAGEMENT_TOKEN": TOKEN, "LOG_LEVEL": "info", "SHUTDOWN_TIMEOUT_MS": "5000"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [binary(), "serve", "--port", str(self.port), "--data-dir", str(self.data)],
                stdout=log,
                stderr=log,
                env=clean_environment(environment | self.environment),
            )
        self.wait_until_ready()
        return self

    def is_ready(self) -> bool:
        assert self.process is None or self.process.poll() is None, f"the gateway ended:\n{self.tail()}"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_until_ready(self):
        until(self.is_ready, f"the gateway answers /readyz\n{self.tail()}", STARTED_WITHIN)

    def stop(self):
        """An orderly end, as a supervisor asks for it."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
                raise AssertionError(f"the gateway did not stop:\n{self.tail()}") from None

    def kill(self):
        """The end that nothing can be done about."""
        self.process.kill()
        self.process.wait(5)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    # Management.

    def call(self, method: str, path: str, expect: int | None = None, **arguments):
        response = self.api.request(method, path, **arguments)
        fine = response.status_code == expect if expect else response.status_code < 300
        assert fine, f"{method} /api{path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def node(self, kind: str, url: str, keys=(), prefix: str | None = None, **fields) -> str:
        """Adds a compatible node with a connection per key, else with one; returns its prefix."""
        # The simulator refuses keys that begin with `sk-bad`, which hexadecimal digits can spell.
        keys = keys or [f"sk-node-{secrets.token_hex(8)}"]
        prefix = prefix or f"up-{secrets.token_hex(4)}"
        body = {"name": prefix, "prefix": prefix, "type": f"{kind}-compatible", "baseUrl": url, "allowPrivate": True}
        node = self.call("POST", "/provider-nodes", 201, json=body | fields)["node"]
        self.nodes[prefix] = node["id"]
        for at, key in enumerate(keys):
            self.connection(node["id"], f"account {at + 1}", key)
        return prefix

    def remove_node(self, prefix: str):
        self.call("DELETE", f"/provider-nodes/{self.nodes.pop(prefix)}")

    def connection(self, provider: str, name: str, key: str, **fields) -> dict:
        body = {"provider": provider, "name": name, "apiKey": key} | fields
        return self.call("POST", "/providers", 201, json=body)["connection"]

    def key(self, name: str | None = None, **limits) -> tuple[str, str]:
        """A new key for clients: its text and its id."""
        made = self.call("POST", "/keys", 201, json={"name": name or f"key {secrets.token_hex(3)}"} | limits)
        return made["key"], made["id"]

    def history(self) -> dict:
        return self.call("GET", "/usage/history")

    def call_logs(self, **query) -> list[dict]:
        rows = self.call("GET", "/usage/call-logs", params=query)
        return rows if isinstance(rows, list) else next(value for value in rows.values() if isinstance(value, list))


class WatchedUpstream:
    """An upstream that speaks as much HTTP as a script says, then holds the connection and notes when it is closed."""

    HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    def __init__(self, stream_begins: bool):
        self.stream_begins = stream_begins
        self.asked = threading.Event()
        self.closed = threading.Event()
        self.closed_at = 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._hold, args=(peer,), daemon=True).start()

    def _hold(self, peer: socket.socket):
        with peer:
            text = b""
            while b"\r\n\r\n" not in text:
                got = peer.recv(65536)
                if not got:
                    return
                text += got
            head, body = text.split(b"\r\n\r\n", 1)
            lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            while len(body) < int(lengths[0] if lengths else 0):
                body += peer.recv(65536)
            self.asked.set()
            if self.stream_begins:
                peer.sendall(self.HEAD + self._piece("so far"))
            try:
                while peer.recv(65536):
                    pass
            except OSError:
                pass
            self.closed_at = time.monotonic()
            self.closed.set()

    @staticmethod
    def _piece(text: str) -> bytes:
        choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
        chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        event = f"data: {json.dumps(chunk)}\n\n".encode()
        return f"{len(event):x}\r\n".encode() + event + b"\r\n"

    def stop(self):
        self.listener.close()
