"""What survives the end of the process, and what ends with the client."""

import sqlite3
import threading
import time

import httpx
import pytest
from conftest import anthropic_client, openai_client
from gateway import WatchedUpstream, until
from sample import user


def database(gateway):
    [path] = gateway.data.glob("*.sqlite")
    return path


def test_usage_and_configuration_survive_a_stop(own_gateway, simulator):
    gateway = own_gateway()
    prefix = gateway.node("openai", f"{simulator.url}/v1")
    key, key_id = gateway.key("kept")
    for _ in range(5):
        openai_client(gateway, key).chat.completions.create(model=f"{prefix}/echo", messages=user("remember"))
    gateway.stop()
    gateway.start()
    history = gateway.history()
    assert history["totalRequests"] == 5 and history["totalPromptTokens"] > 0
    assert any(row["apiKeyId"] == key_id and row["requests"] == 5 for row in history["byApiKey"].values())
    answer = openai_client(gateway, key).chat.completions.create(model=f"{prefix}/echo", messages=user("again"))
    assert answer.choices[0].message.content == "again"


def test_restart_over_the_management_api(own_gateway, simulator):
    gateway = own_gateway()
    prefix = gateway.node("openai", f"{simulator.url}/v1")
    client = openai_client(gateway)
    client.chat.completions.create(model=f"{prefix}/echo", messages=user("before"))
    before = gateway.call("GET", "/monitoring/health")["uptime"]
    # A stream that is running then is brought to its end.
    stream = client.chat.completions.create(model=f"{prefix}/echo-slow-100ms", messages=user("a b c d e f g h"), stream=True)
    first = next(iter(stream))
    assert first.choices
    gateway.call("POST", "/restart", 202)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices).endswith("h")

    def is_new():
        try:
            return gateway.call("GET", "/monitoring/health")["uptime"] < before + 0.5
        except httpx.HTTPError:
            return False

    until(is_new, "the gateway is back", 20)
    assert gateway.process.poll() is None, "it is still the same process"
    answer = client.chat.completions.create(model=f"{prefix}/echo", messages=user("after"))
    assert answer.choices[0].message.content == "after"
    until(lambda: gateway.history()["totalRequests"] == 3, "all requests are counted, before and after")


def test_shutdown_over_the_management_api(own_gateway):
    gateway = own_gateway()
    gateway.call("POST", "/shutdown", 202)
    assert gateway.process.wait(10) == 0


def test_kill_under_load(own_gateway, simulator):
    gateway = own_gateway()
    prefix = gateway.node("openai", f"{simulator.url}/v1")
    key, key_id = gateway.key("kept")
    done = threading.Event()
    served = [0] * 8

    def load(at):
        with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=10) as client:
            while not done.is_set():
                try:
                    body = {"model": f"{prefix}/lorem", "messages": user("load"), "stream": at % 2 == 0}
                    if client.post("/v1/chat/completions", json=body).status_code == 200:
                        served[at] += 1
                except httpx.HTTPError:
                    return

    threads = [threading.Thread(target=load, args=(at,)) for at in range(len(served))]
    for thread in threads:
        thread.start()
    until(lambda: sum(served) >= 50, "some load", 30)
    known = sum(served)
    # Everything older than the flush interval is on disk by then.
    until(lambda: gateway.history()["totalRequests"] >= known, "the first requests are in the history", 15)
    flushed = persisted(gateway)
    until(lambda: persisted(gateway) >= known, f"{known} requests are on disk ({flushed} at first)", 15)
    gateway.call("PATCH", "/settings", json={"instanceName": "written under load"})
    gateway.kill()
    done.set()
    for thread in threads:
        thread.join()

    with sqlite3.connect(database(gateway)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    gateway.start()
    assert gateway.call("GET", "/settings")["instanceName"] == "written under load"
    assert any(row["id"] == key_id for row in gateway.call("GET", "/keys")["keys"])
    assert gateway.history()["totalRequests"] >= known
    answer = openai_client(gateway, key).chat.completions.create(model=f"{prefix}/echo", messages=user("alive"))
    assert answer.choices[0].message.content == "alive"


def persisted(gateway) -> int:
    """Requests that another process sees in the database file."""
    connection = sqlite3.connect(f"file:{database(gateway)}?mode=ro", uri=True)
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            if "usage" in table and "requests" in columns:
                return connection.execute(f"SELECT COALESCE(SUM(requests), 0) FROM {table}").fetchone()[0]
    finally:
        connection.close()
    raise AssertionError(f"no table of usage among {tables}")


@pytest.mark.parametrize("stream_begins", [True, False], ids=["while streaming", "before the first byte"])
@pytest.mark.parametrize("client_kind", ["openai", "anthropic"])
def test_a_client_that_hangs_up_cancels_the_upstream_call(gateway, stream_begins, client_kind):
    upstream = WatchedUpstream(stream_begins)
    prefix = gateway.node("openai", upstream.url)
    path, more = ("chat/completions", {}) if client_kind == "openai" else ("messages", {"max_tokens": 9})
    body = {"model": f"{prefix}/m", "messages": user("hi"), "stream": True} | more
    with httpx.Client(base_url=gateway.url, timeout=10) as client:
        if stream_begins:
            with client.stream("POST", f"/v1/{path}", json=body) as response:
                assert "so far" in read_until(response, "so far")
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"/v1/{path}", json=body, timeout=httpx.Timeout(10, read=0.5))
    hung_up = time.monotonic()
    assert upstream.asked.is_set()
    assert upstream.closed.wait(2), "the upstream call goes on"
    assert upstream.closed_at - hung_up < 1.0
    upstream.stop()


def read_until(response, word: str) -> str:
    text = ""
    for piece in response.iter_text():
        text += piece
        if word in text:
            break
    return text


def test_a_read_only_data_directory_is_said_so(tmp_path):
    import os
    import subprocess

    from gateway import binary, clean_environment

    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    ended = subprocess.run(
        [binary(), "serve", "--port", "0", "--data-dir", str(blocked / "data")],
        capture_output=True,
        text=True,
        timeout=30,
        env=clean_environment(),
        cwd=tmp_path,
    )
    assert ended.returncode != 0
    assert str(blocked) in ended.stderr, ended.stderr
    assert os.path.isfile(blocked)


def test_a_second_process_on_the_same_port_says_so(gateway):
    import subprocess

    from gateway import binary, clean_environment

    ended = subprocess.run(
        [binary(), "serve", "--port", str(gateway.port), "--data-dir", str(gateway.folder / "other")],
        capture_output=True,
        text=True,
        timeout=30,
        env=clean_environment(),
    )
    assert ended.returncode != 0 and str(gateway.port) in ended.stderr, ended.stderr


def test_anthropic_client_after_everything(gateway):
    """The shared gateway has seen all of the above and still answers."""
    answer = anthropic_client(gateway).messages.create(model="sim/echo", max_tokens=9, messages=user("fine"))
    assert answer.content[0].text == "fine"
