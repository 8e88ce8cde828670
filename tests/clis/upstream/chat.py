"""OpenAI Chat Completions, as strict as OpenAI itself, but with thoughts in `reasoning_content` as compatible servers
send them. Thoughts may come back, but only this upstream's own."""

import json

from .script import THOUGHT, Ask, Refused, Tool, Turn, need, one_of, only

NAME = "openai"

MEMBERS = (
    "model messages tools tool_choice parallel_tool_calls stream stream_options max_tokens max_completion_tokens "
    "temperature top_p stop n seed user metadata store reasoning_effort response_format logprobs top_logprobs "
    "frequency_penalty presence_penalty logit_bias service_tier modalities prediction verbosity prompt_cache_key "
    "safety_identifier"
).split()
ROLES = ("system", "developer", "user", "assistant", "tool")
PARTS = {"text": ["type", "text"], "image_url": ["type", "image_url"], "refusal": ["type", "refusal"]}


def matches(path: str) -> bool:
    return path.endswith("/chat/completions")


def signs(_: Turn) -> bool:
    return False


def read(path: str, headers: dict, body: dict) -> Ask:
    only(body, MEMBERS, "body")
    if not headers.get("authorization", "").startswith("Bearer "):
        raise Refused("no key in `Authorization`")
    if body["model"].startswith(("gpt-5", "o3", "o4")) and "max_tokens" in body:
        raise Refused("max_tokens: use max_completion_tokens with this model")
    ask = Ask(need(body, "model", str, "body"), body.get("stream") is True, thinks="reasoning_effort" in body)
    for at, tool in enumerate(body.get("tools", [])):
        here = f"tools[{at}]"
        one_of(only(tool, ["type", "function"], here).get("type"), ["function"], f"{here}.type")
        function = only(tool["function"], ["name", "description", "parameters", "strict"], f"{here}.function")
        ask.tools.append(Tool(need(function, "name", str, here), function.get("parameters", {})))
    open_calls: list[str] = []
    for at, message in enumerate(need(body, "messages", list, "body")):
        here = f"messages[{at}]"
        role = one_of(message.get("role"), ROLES, f"{here}.role")
        if open_calls and role != "tool":
            raise Refused(f"{here}: {open_calls} have no tool message")
        if role == "assistant":
            only(message, ["role", "content", "name", "refusal", "tool_calls", "reasoning_content"], here)
            if message.get("reasoning_content", THOUGHT) != THOUGHT:
                raise Refused(f"{here}.reasoning_content: these are not thoughts of this model")
            text_of(message.get("content"), f"{here}.content")
            open_calls = [read_call(call, f"{here}.tool_calls") for call in message.get("tool_calls", [])]
        elif role == "tool":
            only(message, ["role", "content", "tool_call_id"], here)
            if message.get("tool_call_id") not in open_calls:
                raise Refused(f"{here}.tool_call_id: no call has this id")
            open_calls.remove(message["tool_call_id"])
            ask.results.append(text_of(message["content"], f"{here}.content"))
        else:
            only(message, ["role", "content", "name"], here)
            text = text_of(message.get("content"), f"{here}.content")
            if role == "user":
                ask.results.clear()
                ask.prompts.append(text)
            else:
                ask.instructions.append(text)
    if open_calls:
        raise Refused(f"the last calls have no tool message: {open_calls}")
    return ask


def read_call(call: dict, path: str) -> str:
    function = only(only(call, ["id", "type", "function"], path)["function"], ["name", "arguments"], path)
    if not isinstance(json.loads(function["arguments"]), dict):
        raise Refused(f"{path}.arguments: not an object")
    return call["id"]


def text_of(content, path: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for at, part in enumerate(content):
        here = f"{path}[{at}]"
        only(part, PARTS[one_of(part.get("type"), PARTS, f"{here}.type")], here)
        texts.append(part.get("text", ""))
    return "\n".join(texts)


def usage() -> dict:
    return {"prompt_tokens": 90, "completion_tokens": 12, "total_tokens": 102}


def calls_of(turn: Turn) -> list[dict]:
    if not turn.call:
        return []
    function = {"name": turn.call.name, "arguments": json.dumps(turn.call.arguments)}
    return [{"id": "call_R2dQx7LmVn0aYt4EwZ91", "type": "function", "function": function}]


def whole(ask: Ask, turn: Turn) -> dict:
    message = {"role": "assistant", "content": turn.text, "reasoning_content": turn.thought, "refusal": None}
    if turn.call:
        message["tool_calls"] = calls_of(turn)
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if turn.call else "stop", "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1760000000, "model": ask.model}
    return head | {"choices": [choice], "usage": usage()}


def stream(ask: Ask, turn: Turn, body: dict):
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1760000000, "model": ask.model}
    counted = body.get("stream_options", {}).get("include_usage") is True

    def chunk(delta: dict, reason=None):
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return None, head | {"choices": [choice]} | ({"usage": None} if counted else {})

    yield chunk({"role": "assistant", "content": ""})
    if turn.thought:
        yield chunk({"reasoning_content": turn.thought})
    for piece in turn.pieces:
        yield chunk({"content": piece})
    for call in calls_of(turn):
        arguments = call["function"]["arguments"]
        first = {"index": 0} | call | {"function": {"name": call["function"]["name"], "arguments": ""}}
        yield chunk({"tool_calls": [first]})
        for part in (arguments[:7], arguments[7:]):
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
    yield chunk({}, "tool_calls" if turn.call else "stop")
    if counted:
        yield None, head | {"choices": [], "usage": usage()}
    yield None, "[DONE]"


def refusal(message: str) -> dict:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
