"""Anthropic Messages, with the checks of beta headers, cache marks, pairing and signatures."""

import json

from .script import Ask, Refused, Tool, Turn, check_signature, need, one_of, only, sign

NAME = "anthropic"

MEMBERS = (
    "model messages system tools tool_choice max_tokens stream temperature top_p top_k stop_sequences metadata "
    "thinking service_tier output_config context_management"
).split()
BLOCKS = {
    "text": ["type", "text", "cache_control"],
    "image": ["type", "source", "cache_control"],
    "thinking": ["type", "thinking", "signature"],
    "redacted_thinking": ["type", "data"],
    "tool_use": ["type", "id", "name", "input", "cache_control"],
    "tool_result": ["type", "tool_use_id", "content", "is_error", "cache_control"],
}
# Members that need a beta, and its name.
BETAS = {"context_management": "context-management-2025-06-27"}
SYSTEM_MESSAGES = "mid-conversation-system-2026-04-07"
MOST_MARKS = 4


def matches(path: str) -> bool:
    return path.endswith("/messages")


def signs(turn: Turn) -> bool:
    return turn.thought is not None


def read(path: str, headers: dict, body: dict) -> Ask:
    only(body, MEMBERS, "body")
    if not headers.get("x-api-key") and not headers.get("authorization"):
        raise Refused("no key in `x-api-key`")
    if headers.get("anthropic-version") != "2023-06-01":
        raise Refused("anthropic-version: header is required")
    betas = headers.get("anthropic-beta", "")
    for name, beta in BETAS.items():
        if name in body and beta not in betas:
            raise Refused(f"{name}: Extra inputs are not permitted")
    if json.dumps(body).count('"cache_control": {') > MOST_MARKS:
        raise Refused(f"A maximum of {MOST_MARKS} blocks with cache_control may be provided")
    most = need(body, "max_tokens", int, "body")
    thinking = body.get("thinking", {"type": "disabled"})
    kind = one_of(thinking.get("type"), ["enabled", "adaptive", "disabled"], "thinking.type")
    if kind == "enabled" and not 1024 <= need(thinking, "budget_tokens", int, "thinking") < most:
        raise Refused("thinking.budget_tokens: must be at least 1024 and less than max_tokens")
    ask = Ask(need(body, "model", str, "body"), body.get("stream") is True, thinks=kind != "disabled")
    for at, tool in enumerate(body.get("tools", [])):
        here = f"tools[{at}]"
        only(tool, ["name", "description", "input_schema", "cache_control", "type", "strict"], here)
        schema = need(tool, "input_schema", dict, here)
        one_of(schema.get("type"), ["object"], f"{here}.input_schema.type")
        ask.tools.append(Tool(need(tool, "name", str, here), schema))
    ask.instructions = texts_of(body.get("system", []), "system")
    read_messages(ask, need(body, "messages", list, "body"), kind == "enabled", SYSTEM_MESSAGES in betas)
    return ask


def read_messages(ask: Ask, messages: list, must_think: bool, system_allowed: bool):
    open_calls: list[str] = []
    roles = ["user", "assistant"] + ["system"] * system_allowed
    for at, message in enumerate(messages):
        here = f"messages[{at}]"
        role = one_of(only(message, ["role", "content"], here).get("role"), roles, f"{here}.role")
        blocks = blocks_of(message.get("content"), f"{here}.content")
        if not blocks:
            raise Refused(f"{here}: messages must have non-empty content")
        results = [block for block in blocks if block["type"] == "tool_result"]
        if {block["tool_use_id"] for block in results} != set(open_calls):
            raise Refused(f"{here}: `tool_use` ids {open_calls} must be answered here, and no others")
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        prompts = [block["text"] for block in blocks if block["type"] == "text"]
        if role == "system":
            ask.instructions += prompts
        elif role == "user":
            if not results:
                ask.results.clear()
            for block in results:
                ask.results += texts_of(block.get("content", []), here)
            ask.prompts += prompts
        else:
            for block in blocks:
                if block["type"] == "thinking":
                    check_signature(block.get("signature"), block["thinking"], here)
                    ask.signatures += 1
            if must_think and open_calls and at == len(messages) - 2 and "thinking" not in blocks[0]["type"]:
                raise Refused(f"{here}.content[0]: Expected `thinking`, but found `{blocks[0]['type']}`")
    if open_calls:
        raise Refused(f"`tool_use` ids were found without `tool_result` blocks: {open_calls}")


def blocks_of(content, path: str) -> list[dict]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise Refused(f"{path}: must be a text or a list")
    for at, block in enumerate(content):
        here = f"{path}[{at}]"
        kind = one_of(block.get("type"), BLOCKS, f"{here}.type")
        only(block, BLOCKS[kind], here)
        if kind == "text" and not block["text"]:
            raise Refused(f"{here}: text content blocks must be non-empty")
    return content


def texts_of(content, path: str) -> list[str]:
    return [block["text"] for block in blocks_of(content, path) if block["type"] == "text"]


def blocks(turn: Turn) -> list[dict]:
    made = []
    if turn.thought:
        made.append({"type": "thinking", "thinking": turn.thought, "signature": sign(turn.thought)})
    made.append({"type": "text", "text": turn.text})
    if turn.call:
        use = {"type": "tool_use", "id": "toolu_01R2dQx7LmVn0aYt4EwZ91"}
        made.append(use | {"name": turn.call.name, "input": turn.call.arguments})
    return made


def usage() -> dict:
    cache = {"cache_creation_input_tokens": 10, "cache_read_input_tokens": 60}
    return {"input_tokens": 20, "output_tokens": 12} | cache


def whole(ask: Ask, turn: Turn) -> dict:
    head = {"id": "msg_01", "type": "message", "role": "assistant", "model": ask.model, "content": blocks(turn)}
    return head | {"stop_reason": reason(turn), "stop_sequence": None, "usage": usage()}


def reason(turn: Turn) -> str:
    return "tool_use" if turn.call else "end_turn"


def stream(ask: Ask, turn: Turn, body: dict):
    def event(kind: str, **fields):
        return kind, {"type": kind} | fields

    empty = whole(ask, turn) | {"content": [], "stop_reason": None}
    yield event("message_start", message=empty | {"usage": usage() | {"output_tokens": 1}})
    yield event("ping")
    for at, block in enumerate(blocks(turn)):
        if block["type"] == "thinking":
            start = block | {"thinking": "", "signature": ""}
            deltas = [("thinking_delta", "thinking", turn.thought)]
            deltas.append(("signature_delta", "signature", block["signature"]))
        elif block["type"] == "text":
            start = block | {"text": ""}
            deltas = [("text_delta", "text", piece) for piece in turn.pieces]
        else:
            start = block | {"input": {}}
            arguments = json.dumps(block["input"])
            parts = ("", arguments[:7], arguments[7:])
            deltas = [("input_json_delta", "partial_json", part) for part in parts]
        yield event("content_block_start", index=at, content_block=start)
        for kind, name, text in deltas:
            yield event("content_block_delta", index=at, delta={"type": kind, name: text})
        yield event("content_block_stop", index=at)
    yield event("message_delta", delta={"stop_reason": reason(turn), "stop_sequence": None}, usage=usage())
    yield event("message_stop")


def refusal(message: str) -> dict:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
