"""Questions that are asked again with a temperature of zero, by official libraries."""

import secrets

import pytest
from conftest import UPSTREAMS, anthropic_client, openai_client
from gateway import until
from sample import user

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def question() -> str:
    """One that nobody asked before."""
    return f"Grüße, {secrets.token_hex(8)}! " + "and so on " * 20


def chat(gateway, key=None, **request):
    raw = openai_client(gateway, *([key] if key else [])).chat.completions.with_raw_response.create(
        **{"temperature": 0, "max_tokens": 500} | request
    )
    return raw.headers.get("x-omniroute-cache"), raw.parse()


def told(chunks) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_the_second_answer_is_the_first_one(gateway, upstream):
    request = {"model": f"{upstream}/echo", "messages": user(question())}
    first, answer = chat(gateway, **request)
    second, again = chat(gateway, **request)
    assert (first, second) == ("MISS", "HIT")
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert again.id != answer.id and again.model == answer.model
    assert again.usage.total_tokens == answer.usage.total_tokens > 0
    assert chat(gateway, **request | {"temperature": 1})[0] == "MISS"
    assert chat(gateway, **request | {"tools": [TOOL]})[0] == "MISS"
    assert chat(gateway, **request | {"response_format": {"type": "json_object"}})[0] == "MISS"


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_streams_are_kept_and_replayed(gateway, upstream):
    request = {"model": f"{upstream}/echo", "messages": user(question())}
    asked = request | {"stream": True, "stream_options": {"include_usage": True}}
    first, chunks = chat(gateway, **asked)
    text = told(chunks)
    assert first is None and text.strip() == request["messages"][0]["content"].strip()
    # It is kept when the upstream's stream has ended.
    hit, whole = until(lambda: (got := chat(gateway, **request))[0] == "HIT" and got, "the answer is kept")
    assert hit == "HIT" and whole.choices[0].message.content == text
    hit, chunks = chat(gateway, **asked)
    chunks = list(chunks)
    assert hit == "HIT" and told(chunks) == text
    assert sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason) == 1
    assert chunks[-1].usage and len({chunk.id for chunk in chunks}) == 1 and len(chunks) > 4


def test_messages_get_what_chat_left(gateway):
    text = question()
    miss, answer = chat(gateway, model="oa-node/echo", messages=user(text))
    request = {"model": "oa-node/echo", "messages": user(text), "max_tokens": 500, "extra_body": {"temperature": 0}}
    raw = anthropic_client(gateway).messages.with_raw_response.create(**request)
    assert (miss, raw.headers["x-omniroute-cache"]) == ("MISS", "HIT")
    message = raw.parse()
    assert message.content[0].text == answer.choices[0].message.content
    assert message.id.startswith("msg_") and message.usage.output_tokens == answer.usage.completion_tokens
    with anthropic_client(gateway).messages.stream(**request) as stream:
        assert stream.response.headers["x-omniroute-cache"] == "HIT"
        assert "".join(stream.text_stream) == message.content[0].text
        assert stream.get_final_message().stop_reason == "end_turn"


def test_calls_are_replayed_under_new_ids(gateway):
    request = {"model": "sim/tools", "messages": user(question()), "tools": [TOOL]}
    (_, one), (hit, other) = chat(gateway, **request), chat(gateway, **request)
    [first], [second] = one.choices[0].message.tool_calls, other.choices[0].message.tool_calls
    assert hit == "HIT" and other.choices[0].finish_reason == "tool_calls"
    assert first.function == second.function and first.id != second.id


def test_clients_and_keys_can_do_without(own_gateway):
    gateway = own_gateway()
    key, key_id = gateway.key("bypass", noCache=True)
    other, _ = gateway.key("usual")
    request = {"model": "sim/echo", "messages": user(question())}
    away = {"extra_headers": {"x-omniroute-no-cache": "true"}}
    asked = [(other, {}), (other, away), (other, {}), (key, {}), (key, {})]
    assert [chat(gateway, one, **request | more)[0] for one, more in asked] == ["MISS", "MISS", "HIT", "MISS", "MISS"]
    gateway.call("PATCH", f"/keys/{key_id}", json={"noCache": False})
    assert [chat(gateway, key, **request)[0] for _ in range(2)] == ["MISS", "HIT"]


def test_a_restart_keeps_it_until_it_is_deleted(own_gateway, simulator):
    gateway = own_gateway()
    prefix = gateway.node("openai", f"{simulator.url}/v1")
    request = {"model": f"{prefix}/echo", "messages": user(question())}
    _, answer = chat(gateway, **request)
    gateway.stop()
    gateway.start()
    hit, again = chat(gateway, **request)
    assert hit == "HIT" and again.choices[0].message.content == answer.choices[0].message.content
    cache = gateway.call("GET", "/cache")
    # It is off.
    assert cache["semanticCache"].pop("similarity")["lookups"] == 0
    assert cache["semanticCache"] | {"tokensSaved": 0, "costSaved": 0} == {
        "memorySize": 1, "memoryMaxSize": 500, "dbSize": 1, "dbFailures": 0, "dbLate": 0, "hitRate": 1.0, "hits": 1, "misses": 0,
        "tokensSaved": 0, "costSaved": 0,
    }
    rows = until(lambda: len(found := gateway.call_logs()) == 2 and found, "both requests are logged")
    assert {row["cacheSource"] for row in rows} == {"upstream", "semantic"}
    assert next(row for row in rows if row["cacheSource"] == "semantic")["cost"] == 0
    cleared = gateway.call("DELETE", "/cache")
    assert cleared["success"] and cleared["cleared"]["semantic"] == 1
    assert chat(gateway, **request)[0] == "MISS"
