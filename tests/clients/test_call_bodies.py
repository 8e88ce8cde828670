"""What was said in requests is kept where an operator wants that, without secrets, and goes with the log."""

import base64
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import httpx
import pytest
from conftest import openai_client
from gateway import Gateway, until
from sample import user

ACCOUNT_KEY = "sk-upstream-account-0123456789"
OWN_HEADER = "a-tenant-secret-of-the-operator"
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40).decode()


def settings(gateway: Gateway, keep: str, pipeline: bool = False, **more):
    body = {"callLogBodies": {"keep": keep} | more, "callLogPipelineEnabled": pipeline}
    shown = gateway.call("PATCH", "/settings", json=body)
    assert shown["callLogBodies"]["keep"] == keep and shown["callLogPipelineEnabled"] is pipeline


def detail(gateway: Gateway, request_id: str) -> dict:
    """The row of a request with its bodies, when it and they are written."""

    def found():
        rows = gateway.call_logs(q=request_id)
        shown = gateway.call("GET", f"/usage/call-logs/{rows[0]['id']}") if rows else None
        return shown if shown and shown["bodies"]["state"] != "awaited" else None

    return until(found, f"the row of {request_id}")


def ask(gateway: Gateway, model: str, key: str | None = None, **body) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"model": model, "messages": user("hello"), "temperature": 1} | body
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def files(gateway: Gateway) -> list[Path]:
    return sorted((gateway.data / "call_logs").rglob("*.json.zst"))


def unpacked(path: Path) -> str:
    return subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout.decode()


def test_nothing_is_kept_unless_that_is_wanted(own_gateway):
    gateway = own_gateway()
    answer = ask(gateway, "sim/echo")
    shown = detail(gateway, answer.headers["x-request-id"])
    assert shown["bodies"]["state"] == "off" and "callLogBodies.keep" in shown["bodies"]["message"]
    assert (shown["requestBody"], shown["responseBody"], shown["hasRequestBody"]) == (None, None, False)
    assert set(shown["pipeline"].values()) == {None}
    assert not (gateway.data / "call_logs").exists()


def test_of_failures_alone(own_gateway, simulator):
    gateway = own_gateway()
    prefix = gateway.node("openai", f"{simulator.url}/v1")
    settings(gateway, "failures")
    gateway.call("PATCH", "/settings", json={"requestRetry": 0})
    fine = detail(gateway, ask(gateway, f"{prefix}/echo").headers["x-request-id"])
    assert fine["bodies"]["state"] == "succeeded" and fine["requestBody"] is None
    assert not files(gateway)
    for asked in (f"{prefix}/error-400", "nobody/at-all", f"{prefix}/error-500"):
        answer = ask(gateway, asked)
        assert answer.status_code >= 400
        shown = detail(gateway, answer.headers["x-request-id"])
        assert shown["bodies"]["state"] == "kept" and shown["hasRequestBody"] and shown["hasResponseBody"]
        assert shown["requestBody"]["model"] == asked
        assert shown["responseBody"] == answer.json()
        assert shown["pipeline"]["clientResponse"] == {"status": answer.status_code, "body": answer.json()}
        assert shown["pipeline"]["providerRequest"] is None
    nonsense = httpx.post(f"{gateway.url}/v1/chat/completions", content=b"{nonsense")
    shown = detail(gateway, nonsense.headers["x-request-id"])
    assert (shown["status"], shown["requestBody"]) == (400, "{nonsense")


@pytest.mark.skipif(not shutil.which("zstd"), reason="the files are looked at with zstd")
def test_of_all_with_the_pipeline_and_no_secret_on_disk(own_gateway, simulator):
    gateway = own_gateway()
    prefix = gateway.node("openai", f"{simulator.url}/v1", keys=[ACCOUNT_KEY])
    google = gateway.node("gemini", f"{simulator.url}/v1beta", keys=["AIza-of-an-account-0123456789"])
    [account] = [row for row in gateway.call("GET", "/providers")["connections"] if row["provider"] == gateway.nodes[prefix]]
    headers = {"extraHeaders": {"x-tenant": OWN_HEADER}}
    gateway.call("PATCH", f"/providers/{account['id']}", json={"providerSpecificData": {"allowPrivate": True} | headers})
    key, _ = gateway.key("a client")
    settings(gateway, "all", pipeline=True)

    said = f"my key is {key}, the account's is {ACCOUNT_KEY}"
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": said}, picture]}]
    answer = ask(gateway, f"{prefix}/echo", key, messages=messages)
    assert answer.status_code == 200, answer.text
    shown = detail(gateway, answer.headers["x-request-id"])
    parts = shown["requestBody"]["messages"][0]["content"]
    assert parts[0]["text"] == "my key is [key], the account's is [key]"
    assert parts[1]["image_url"]["url"].startswith("[image/png: 10248 bytes, sha256 ")
    pipeline = shown["pipeline"]
    assert pipeline["clientRequest"]["headers"]["authorization"] == "[key]"
    assert pipeline["clientRequest"]["body"] == shown["requestBody"]
    assert pipeline["providerRequest"]["url"] == f"{simulator.url}/v1/chat/completions"
    assert pipeline["providerRequest"]["headers"]["authorization"] == "[key]"
    assert pipeline["providerRequest"]["headers"]["x-tenant"] == "[key]"
    assert pipeline["providerRequest"]["body"]["model"] == "echo"
    assert pipeline["providerResponse"]["status"] == 200 and "choices" in pipeline["providerResponse"]["body"]

    client = openai_client(gateway, key)
    text = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(model=f"{google}/echo", messages=user("a b c"), stream=True)
        if chunk.choices
    )
    assert text == "a b c"
    until(lambda: len(gateway.call_logs()) == 2, "both rows")
    stream = detail(gateway, gateway.call_logs(limit=1)[0]["requestId"])
    assert stream["responseBody"].startswith("data: {") and stream["responseBody"].endswith("data: [DONE]\n\n")
    assert stream["targetFormat"] == "gemini" and "candidates" in stream["pipeline"]["providerResponse"]["body"]

    # As a reader of the disk would look.
    secrets = (key, ACCOUNT_KEY, OWN_HEADER, "AIza-of-an-account-0123456789", PICTURE[:200])
    [first, second] = files(gateway)
    assert json.loads(unpacked(first))["schemaVersion"] == 1
    for path in (first, second):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
        assert not [secret for secret in secrets if secret in unpacked(path)]
    for path in gateway.data.rglob("*"):
        if path.is_file() and "call_logs" not in path.parts:
            held = path.read_bytes()
            # Headers of an account's own are part of its row.
            hidden = [secret for secret in secrets if secret != OWN_HEADER]
            assert not [secret for secret in hidden if secret.encode() in held], path
    gateway.stop()
    assert not [secret for secret in secrets if secret in gateway.log.read_text(errors="replace")]


def test_keys_that_keep_nothing_and_clients_that_nobody_knows(own_gateway):
    gateway = own_gateway(REQUIRE_API_KEY="true")
    settings(gateway, "all")
    silent, _ = gateway.key("silent", noLog=True)
    loud, loud_id = gateway.key("loud")
    for key, state in ((silent, "noLog"), (loud, "kept"), ("sk-omni-nobodys", "unknown")):
        shown = detail(gateway, ask(gateway, "sim/echo", key).headers["x-request-id"])
        assert shown["bodies"]["state"] == state, (key, shown)
    assert len(files(gateway)) == 1
    gateway.stop()
    gateway.environment["NO_LOG_API_KEY_IDS"] = f"other, {loud_id}"
    gateway.start()
    shown = detail(gateway, ask(gateway, "sim/echo", loud).headers["x-request-id"])
    assert shown["bodies"]["state"] == "noLog"
    assert len(files(gateway)) == 1


def test_they_outlive_the_process_and_go_with_the_log(own_gateway):
    gateway = own_gateway()
    settings(gateway, "all")
    asked = [ask(gateway, "sim/echo", messages=user(f"number {number}")).headers["x-request-id"] for number in range(5)]
    gateway.stop()
    assert len(files(gateway)) == 5, "what waited is written before the end"
    gateway.start()
    shown = detail(gateway, asked[0])
    assert shown["requestBody"]["messages"] == user("number 0")
    [last] = gateway.call_logs(q=asked[-1])
    files(gateway)[-1].unlink()
    shown = gateway.call("GET", f"/usage/call-logs/{last['id']}")
    assert (shown["bodies"]["state"], shown["requestBody"]) == ("awaited", None), "it may still come"
    before = "2020-01-01T00:00:00Z"
    assert gateway.call("DELETE", "/usage/logs", params={"before": before}) == {"deleted": 0}
    gateway.call("DELETE", "/usage/logs", 400, params={"before": "yesterday"})
    metrics = httpx.get(f"{gateway.url}/metrics").text
    assert "log_body_bytes" in metrics
    assert gateway.call("GET", "/monitoring/health")["log"]["failedBodies"] == 0
    assert gateway.call("DELETE", "/usage/logs", params={"before": "2100-01-01T00:00:00Z"}) == {"deleted": 5}
    assert gateway.call_logs() == []
    assert not files(gateway)


def test_the_setting_is_checked(own_gateway):
    gateway = own_gateway()
    for wrong in ({"keep": "some"}, {"maxDiskMb": 0}):
        gateway.call("PATCH", "/settings", 400, json={"callLogBodies": wrong})
    told = gateway.api.patch("/settings", json={"callLogBodies": {"keepp": "all"}})
    assert (told.status_code, told.headers["x-ignored-fields"]) == (200, "callLogBodies.keepp")
    shown = gateway.call("PATCH", "/settings", json={"callLogBodies": {"maxDiskMb": 5}})
    assert shown["callLogBodies"] == {"keep": "off", "maxDiskMb": 5}
