"""Requests that are sent again, by official libraries and at once."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import UPSTREAMS, anthropic_client, openai_client
from gateway import until
from sample import user


def model() -> str:
    """A model that takes half a second and was never asked before."""
    return f"delay-500ms-size-{10_000 + secrets.randbelow(80_000)}"


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("is_stream", [False, True])
def test_two_at_once_cost_one_call(gateway, upstream, is_stream):
    name = f"{upstream}/{model()}"
    headers = {"idempotency-key": secrets.token_hex(8)}

    def ask(_):
        raw = openai_client(gateway, default_headers=headers).chat.completions.with_raw_response.create(
            model=name, messages=user("x"), stream=is_stream
        )
        answer = raw.parse()
        if not is_stream:
            return raw.headers.get("x-omniroute-idempotent"), answer.id, answer.choices[0].message.content
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return raw.headers.get("x-omniroute-idempotent"), chunks[0].id, text

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert {first[0], second[0]} == {None, "true"}
    assert first[1:] == second[1:] and len(first[2]) >= 10_000
    # Rows are written behind the answers.
    rows = until(lambda: len(found := gateway.call_logs(model=name)) == 2 and found, "both requests are logged")
    assert sorted(row["attempts"] for row in rows) == [0, 1]
    assert {row["cacheSource"] for row in rows} == {"upstream", "idempotent"}


def test_another_body_is_another_request(gateway):
    client = openai_client(gateway, default_headers={"idempotency-key": secrets.token_hex(8)})
    texts = [
        client.chat.completions.create(model="sim/echo", messages=user(text)).choices[0].message.content
        for text in ("one", "two")
    ]
    assert texts == ["one", "two"]


def test_messages_are_repeated_too(gateway):
    client = anthropic_client(gateway, default_headers={"x-request-id": secrets.token_hex(8)})
    request = {"model": "oa-node/echo", "messages": user("again"), "max_tokens": 20}
    first = client.messages.with_raw_response.create(**request)
    second = client.messages.with_raw_response.create(**request)
    assert second.headers["x-omniroute-idempotent"] == "true"
    assert first.parse().id == second.parse().id
