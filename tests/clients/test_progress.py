"""Progress events: official libraries survive them, as raw events and through their helpers."""

import json

import pytest
from conftest import UPSTREAMS, anthropic_client, openai_client
from sample import user

ASKED = {"x-omniroute-progress": "true"}
# Six words with a second between them.
SLOW = "slow-1s"
TEXT = "one two three four five six"


def reports(text: str) -> list[dict]:
    """What was told between the other events of a stream."""
    events = text.replace("\r\n", "\n").split("\n\n")
    return [json.loads(event.split("data: ", 1)[1]) for event in events if event.startswith("event: progress\n")]


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_a_slow_stream_tells_how_far_it_is(plain, upstream):
    body = {"model": f"{upstream}/{SLOW}", "messages": user(TEXT), "stream": True}
    answer = plain.post("/v1/chat/completions", headers=ASKED, json=body)
    assert answer.headers["x-omniroute-progress"] == "enabled"
    told = reports(answer.text)
    assert len(told) >= 3 and told[-1]["done"] is True and not any("done" in report for report in told[:-1])
    tokens = [report["tokens_generated"] for report in told]
    assert tokens == sorted(tokens) and tokens[-1] >= 6
    assert answer.text.rstrip().endswith("data: [DONE]") and answer.text.count("[DONE]") == 1


def test_openai_libraries_survive_it(gateway):
    client = openai_client(gateway, default_headers=ASKED)
    request = {"model": f"oa-node/{SLOW}", "messages": user(TEXT)}
    chunks = list(client.chat.completions.create(**request, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    with client.chat.completions.stream(**request) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content == TEXT


def test_anthropic_libraries_survive_it(gateway):
    client = anthropic_client(gateway, default_headers=ASKED)
    request = {"model": f"oa-node/{SLOW}", "messages": user(TEXT), "max_tokens": 50}
    seen = list(client.messages.create(**request, stream=True))
    assert seen[0].type == "message_start" and "message_stop" in [event.type for event in seen]
    with client.messages.stream(**request) as stream:
        assert "".join(stream.text_stream) == TEXT


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/v1beta/models/sim%2F{SLOW}:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": TEXT}]}]}),
        ("/api/chat", {"model": f"sim/{SLOW}", "messages": user(TEXT)}),
        ("/v1/responses", {"model": f"sim/{SLOW}", "input": TEXT, "stream": True}),
    ],
)
def test_clients_that_would_not_survive_it_get_none(plain, path, body):
    answer = plain.post(path, headers=ASKED, json=body)
    assert answer.status_code == 200, answer.text
    assert "x-omniroute-progress" not in answer.headers
    assert "tokens_generated" not in answer.text


def test_nobody_is_told_unasked(plain):
    body = {"model": "sim/slow-1s", "messages": user("one two three four"), "stream": True}
    answer = plain.post("/v1/chat/completions", json=body)
    assert "x-omniroute-progress" not in answer.headers and not reports(answer.text)
