"""Webhooks against a receiver that checks signatures by the specification alone."""

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import openai_client
from gateway import until
from sample import user


class Receiver:
    """Takes messages, and keeps those whose signature is good."""

    def __init__(self):
        self.secrets: list[str] = []
        self.taken: list[dict] = []
        self.refused = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                good = receiver.is_genuine(self.headers, body)
                if good:
                    receiver.taken.append(json.loads(body) | {"header": self.headers["webhook-id"]})
                else:
                    receiver.refused += 1
                self.send_response(204 if good else 401)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def is_genuine(self, headers, body: bytes) -> bool:
        if abs(time.time() - int(headers["webhook-timestamp"])) > 60:
            return False
        text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        for secret in self.secrets:
            key = base64.b64decode(secret.removeprefix("whsec_"))
            wanted = "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
            if any(hmac.compare_digest(wanted, given) for given in headers["webhook-signature"].split(" ")):
                return True
        return False

    def types(self) -> list[str]:
        return sorted(message["type"] for message in self.taken)


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()


def test_a_budget_and_an_account_are_told_of(own_gateway, simulator, receiver):
    gateway = own_gateway()
    gateway.call("POST", "/webhooks", 400, json={"url": receiver.url})
    made = gateway.call("POST", "/webhooks", 201, json={"url": receiver.url, "allowPrivate": True})
    hook = made["webhook"]["id"]

    # A secret that is not this webhook's: the receiver refuses it.
    receiver.secrets = ["whsec_" + base64.b64encode(b"another secret").decode()]
    answer = gateway.call("POST", f"/webhooks/{hook}/test")
    assert answer == {"success": False, "status": 401, "error": "it answered 401"}
    receiver.secrets = [made["secret"]]
    assert gateway.call("POST", f"/webhooks/{hook}/test")["success"]

    prefix = gateway.node("openai", f"{simulator.url}/v1")
    gateway.call("PATCH", "/pricing", json={prefix: {"echo": {"input": 1000, "output": 1000}}})
    key, key_id = gateway.key("spender")
    gateway.call("POST", "/usage/budget", json={"apiKeyId": key_id, "dailyLimitUsd": 0.05, "warningThreshold": 0.01})
    client = openai_client(gateway, key)
    for _ in range(12):
        try:
            client.chat.completions.create(model=f"{prefix}/echo", messages=user("spend"), max_tokens=5)
        except Exception as error:
            assert "budget" in str(error)
            break
    until(lambda: receiver.types() == ["budget.exceeded", "budget.warning", "webhook.test"], "both are told")
    for message in receiver.taken:
        assert message["id"] == message["header"] and message["createdAt"].endswith("Z")
        if message["type"].startswith("budget."):
            data = message["data"]
            assert (data["apiKeyId"], data["apiKeyName"]) == (key_id, "spender")
            assert (data["scope"], data["window"], data["limitUsd"]) == ("key", "daily", 0.05)

    # The old secret is good for a day beside the new one.
    rotated = gateway.call("POST", f"/webhooks/{hook}/rotate")
    assert gateway.call("POST", f"/webhooks/{hook}/test")["success"]
    receiver.secrets = [rotated["secret"]]
    assert gateway.call("POST", f"/webhooks/{hook}/test")["success"]

    listed = gateway.call("GET", "/webhooks")
    assert listed["delivery"] == {"waiting": 0, "delivered": 2, "failed": 0, "dropped": 0}
    [shown] = listed["webhooks"]
    assert (shown["lastStatus"], shown["lastError"]) == (204, None) and shown["lastDeliveredAt"]
    assert made["secret"] not in str(listed) and made["secret"] not in gateway.tail()
    # Over a restart the secret is the same.
    gateway.stop()
    gateway.start()
    assert gateway.call("POST", f"/webhooks/{hook}/test")["success"]
    gateway.call("DELETE", f"/webhooks/{hook}")
    assert gateway.call("GET", "/webhooks")["webhooks"] == []
