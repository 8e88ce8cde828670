"""The upstream itself: it refuses what its vendors refuse. In front of one that takes all, no gateway could fail."""

import httpx
import pytest
from upstream.script import THOUGHT, sign

TOOL = {"type": "object", "properties": {"file_path": {"type": "string"}}}
HEADERS = {"authorization": "Bearer k", "x-api-key": "k", "x-goog-api-key": "k", "anthropic-version": "2023-06-01"}
USER = {"role": "user", "content": "hi"}


def chat(*messages, **more):
    return "/v1/chat/completions", {"model": "m", "messages": [USER, *messages]} | more


def claude(*messages, **more):
    return "/v1/messages?beta=true", {"model": "m", "max_tokens": 9000, "messages": [USER, *messages]} | more


def responses(*items, **more):
    return "/v1/responses", {"model": "m", "input": [USER, *items]} | more


def gemini(*contents, **more):
    return "/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "hi"}]}, *contents]} | more


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USE = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]}
SIGNED = {"type": "thinking", "thinking": THOUGHT, "signature": sign(THOUGHT)}
MANUAL = {"type": "enabled", "budget_tokens": 2000}
ANSWERED = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]}


def said(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def called(**more):
    return {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}} | more]}


def declared(**more):
    return [{"functionDeclarations": [{"name": "f"} | more]}]


REASONING = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": THOUGHT}], "content": None}

CASES = [
    (chat(), None),
    (chat(model="gpt-5.4", max_tokens=5), "max_completion_tokens"),
    (chat(cache_control={}), "body.cache_control"),
    (chat({"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}), "cache_control"),
    (chat({"role": "assistant", "content": "", "reasoning_content": "of another"}), "reasoning_content"),
    (chat({"role": "assistant", "content": "", "tool_calls": [CALL]}), "no tool message"),
    (chat({"role": "tool", "content": "x", "tool_call_id": "c"}), "no call has this id"),
    (claude(said(SIGNED, USE), RESULT, thinking=MANUAL), None),
    (claude(said(USE), RESULT, thinking=MANUAL), "Expected `thinking`"),
    (claude(said(SIGNED | {"signature": "other"}, USE), RESULT), "not the one that was given out"),
    (claude(said(USE)), "without `tool_result`"),
    (claude({"role": "system", "content": "x"}), "role"),
    (claude(context_management={}), "Extra inputs"),
    (claude(tools=[{"name": "f", "parameters": TOOL}]), "parameters"),
    (responses(REASONING | {"encrypted_content": sign(REASONING["id"])}), None),
    (responses(REASONING | {"encrypted_content": "other"}), "not the one that was given out"),
    (responses({"type": "function_call_output", "call_id": "c", "output": "x"}), "No tool call found"),
    (responses(messages=[]), "body.messages"),
    (gemini(called(thoughtSignature=sign("f")), ANSWERED), None),
    (gemini(called(), ANSWERED), "missing a thought_signature"),
    (gemini(called(thoughtSignature="other"), ANSWERED), "not the one that was given out"),
    (gemini(ANSWERED), "must equal"),
    (gemini(tools=declared(parametersJsonSchema={"$schema": "any"})), None),
    (gemini(tools=declared(parameters=TOOL | {"additionalProperties": False})), "additionalProperties"),
]


@pytest.mark.parametrize(("request_", "reason"), CASES)
def test_what_is_refused(upstream, request_, reason):
    path, body = request_
    answer = httpx.post(upstream.url + path, json=body, headers=HEADERS)
    if reason is None:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code == 400 and reason in answer.text, answer.text
