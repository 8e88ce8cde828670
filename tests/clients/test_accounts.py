"""Several accounts of one provider, and keys with limits."""

import time

import openai
import pytest
from conftest import anthropic_client, openai_client
from gateway import until
from sample import user


def ask(client, model, text="hi", **more):
    return client.chat.completions.with_raw_response.create(model=model, messages=user(text), **more)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("first", ["sk-limited-1", "sk-broke-1", "sk-bad-1"])
def test_the_second_account_answers_when_the_first_cannot(gateway, simulator, kind, streamed, first):
    prefix = gateway.node(kind, f"{simulator.url}/v1", keys=[first, "sk-good"])
    client = openai_client(gateway)
    raw = ask(client, f"{prefix}/echo", "still served", stream=streamed)
    assert raw.headers["x-omniroute-attempts"] == "2"
    answer = raw.parse()
    if streamed:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    else:
        text = answer.choices[0].message.content
    assert text == "still served"
    # Now the first account is known to be out, so nobody tries it.
    raw = ask(client, f"{prefix}/echo", stream=streamed)
    assert raw.headers["x-omniroute-attempts"] == "1"
    if streamed:
        assert [chunk for chunk in raw.parse()]


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_first_is_limited_the_second_cut_before_it_said_anything_the_third_answers(
    gateway, simulator, kind, streamed
):
    prefix = gateway.node(kind, f"{simulator.url}/v1", keys=["sk-limited-4", "sk-cut-1", "sk-good"])
    if streamed:
        with anthropic_client(gateway).messages.stream(
            model=f"{prefix}/echo-chunks-3", messages=user("a b c"), max_tokens=50
        ) as stream:
            assert stream.response.headers["x-omniroute-attempts"] == "3"
            assert "".join(stream.text_stream) == "a b c"
    # Each model is locked for itself, so all three are asked again.
    model = f"{prefix}/echo-chunks-4"
    raw = ask(openai_client(gateway), model, "a b c d", stream=streamed)
    assert raw.headers["x-omniroute-attempts"] == "3"
    answer = raw.parse()
    if streamed:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    else:
        text = answer.choices[0].message.content
    assert text == "a b c d"

    def logged():
        rows = gateway.call("GET", "/usage/call-logs", params={"limit": 50})
        return next((row for row in rows if row["requestedModel"] == model), None)

    row = until(logged, "the request is in the log")
    assert (row["attempts"], row["account"], row["status"]) == (3, "account 3", 200)


def test_a_stream_through_two_accounts_of_which_the_first_is_cooling_down(gateway, simulator):
    prefix = gateway.node("openai", f"{simulator.url}/v1", keys=["sk-limited-2", "sk-good"])
    client = openai_client(gateway)
    for _ in range(3):
        stream = client.chat.completions.create(
            model=f"{prefix}/echo-chunks-4", messages=user("one two three four"), stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "one two three four"
    connections = gateway.call("GET", "/providers", params={"provider": prefix})["connections"]
    assert [row["name"] for row in connections] == ["account 1", "account 2"]
    assert connections[0]["lastErrorType"], connections[0]


def test_a_claude_client_is_served_by_the_second_account(gateway, simulator):
    prefix = gateway.node("openai", f"{simulator.url}/v1", keys=["sk-limited-3", "sk-good"])
    with anthropic_client(gateway).messages.stream(
        model=f"{prefix}/echo-chunks-3", messages=user("a b c"), max_tokens=50
    ) as stream:
        assert stream.response.headers["x-omniroute-attempts"] == "2"
        assert "".join(stream.text_stream) == "a b c"


def test_attempts_are_told_when_all_accounts_fail(gateway, simulator):
    prefix = gateway.node("openai", f"{simulator.url}/v1", keys=["sk-broke-2", "sk-broke-3"])
    with pytest.raises(openai.APIStatusError) as caught:
        ask(openai_client(gateway), f"{prefix}/echo")
    body = caught.value.response.json()["error"]
    assert len(body["omniroute"]["attempts"]) == 2, body
    assert body["omniroute"]["request_id"] == caught.value.response.headers["x-request-id"]


def test_requests_per_minute(gateway):
    key, _ = gateway.key(maxRequestsPerMinute=2)
    client = openai_client(gateway, key)
    for _ in range(2):
        ask(client, "sim/echo")
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "sim/echo")
    assert caught.value.code == "rate_limit_exceeded"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    assert ask(openai_client(gateway, gateway.key()[0]), "sim/echo"), "other keys are not concerned"


def test_models_of_a_key(gateway):
    key, _ = gateway.key(allowedModels=["oa-node/*"])
    client = openai_client(gateway, key)
    assert ask(client, "oa-node/echo")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(client, "an-node/echo")
    assert caught.value.code == "model_not_allowed"
    assert all(model.id.startswith("oa-node/") for model in client.models.list())


def test_disabled_and_revoked_keys(gateway):
    key, key_id = gateway.key()
    client = openai_client(gateway, key)
    assert ask(client, "sim/echo")
    gateway.call("PATCH", f"/keys/{key_id}", json={"isActive": False})
    with pytest.raises(openai.AuthenticationError):
        ask(client, "sim/echo")
    gateway.call("PATCH", f"/keys/{key_id}", json={"isActive": True})
    assert ask(client, "sim/echo")
    gateway.call("DELETE", f"/keys/{key_id}")
    with pytest.raises(openai.AuthenticationError):
        ask(client, "sim/echo")


def test_usage_is_counted_for_the_key(gateway):
    key, key_id = gateway.key("for counting")
    client = openai_client(gateway, key)
    answer = client.chat.completions.create(model="oa-node/lorem", messages=user("count me"))
    stream = client.chat.completions.create(model="an-node/lorem", messages=user("count me"), stream=True)
    list(stream)

    def counted():
        rows = gateway.history()["byApiKey"].values()
        return next((row for row in rows if row.get("apiKeyId") == key_id and row["requests"] == 2), None)

    row = until(counted, "both requests are in the history")
    assert row["completionTokens"] >= 2 * answer.usage.completion_tokens * 0.9
    logged = until(lambda: len(rows := gateway.call_logs(apiKeyId=key_id)) == 2 and rows, "two rows in the log")
    assert {entry["requestedModel"] for entry in logged} == {"oa-node/lorem", "an-node/lorem"}
    assert all(entry["status"] == 200 and entry["tokens"]["out"] > 0 for entry in logged)


def test_a_connection_that_is_switched_off_is_not_used(gateway, simulator):
    prefix = gateway.node("openai", f"{simulator.url}/v1", keys=["sk-a"])
    client = openai_client(gateway)
    assert ask(client, f"{prefix}/echo")
    [row] = gateway.call("GET", "/providers", params={"provider": prefix})["connections"]
    gateway.call("PATCH", f"/providers/{row['id']}", json={"isActive": False})
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, f"{prefix}/echo")
    assert caught.value.status_code in (400, 503), caught.value


def test_requests_at_the_same_time(gateway):
    from concurrent.futures import ThreadPoolExecutor

    client = openai_client(gateway)

    def one(number):
        model = ("sim", "oa-node", "an-node")[number % 3] + "/echo-slow-5ms"
        stream = client.chat.completions.create(model=model, messages=user(f"this is number {number}"), stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(one, range(96)))
    assert texts == [f"this is number {number}" for number in range(96)]
    assert time.monotonic() - began < 40
