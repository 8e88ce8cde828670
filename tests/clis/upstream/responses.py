"""OpenAI Responses without storage: the items of earlier turns come back, encrypted reasoning among them."""

import json

from .script import Ask, Refused, Tool, Turn, check_signature, need, one_of, only, sign

NAME = "responses"

# `client_metadata` is not documented, but OpenAI takes it from its own command-line client.
MEMBERS = (
    "model input instructions include max_output_tokens max_tool_calls metadata parallel_tool_calls "
    "previous_response_id prompt prompt_cache_key reasoning safety_identifier service_tier store stream "
    "stream_options temperature text tool_choice tools top_logprobs top_p truncation user client_metadata"
).split()
ITEMS = {
    "message": "type id role content status phase".split(),
    "reasoning": "type id summary content encrypted_content status".split(),
    "function_call": "type id call_id name arguments status namespace".split(),
    "function_call_output": "type id call_id output status".split(),
}
PARTS = {
    "input_text": ["type", "text"],
    "input_image": ["type", "image_url", "detail"],
    "output_text": ["type", "text", "annotations", "logprobs"],
}
TOOLS = {
    "function": "type name description parameters strict defer_loading".split(),
    "namespace": "type name description tools".split(),
    "web_search": "type external_web_access filters user_location search_context_size search_content_types".split(),
    "tool_search": "type execution description parameters".split(),
    "custom": "type name description format".split(),
}


def matches(path: str) -> bool:
    return path.endswith("/responses")


def signs(turn: Turn) -> bool:
    return turn.thought is not None


def read(path: str, headers: dict, body: dict) -> Ask:
    only(body, MEMBERS, "body")
    if not headers.get("authorization", "").startswith("Bearer "):
        raise Refused("no key in `Authorization`")
    reasoning = body.get("reasoning") or {}
    only(reasoning, ["effort", "summary", "context"], "reasoning")
    ask = Ask(need(body, "model", str, "body"), body.get("stream") is True, thinks=bool(reasoning))
    for at, tool in enumerate(body.get("tools", [])):
        here = f"tools[{at}]"
        only(tool, TOOLS[one_of(tool.get("type"), TOOLS, f"{here}.type")], here)
        if tool["type"] == "function":
            ask.tools.append(Tool(need(tool, "name", str, here), need(tool, "parameters", dict, here)))
    if body.get("instructions"):
        ask.instructions.append(body["instructions"])
    items = body.get("input")
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    open_calls = set()
    for at, item in enumerate(items or []):
        here = f"input[{at}]"
        kind = one_of(item.get("type", "message"), ITEMS, f"{here}.type")
        only(item, ITEMS[kind], here)
        if kind == "message":
            role = one_of(item.get("role"), ["user", "assistant", "system", "developer"], f"{here}.role")
            text = text_of(item.get("content"), f"{here}.content")
            if role == "user":
                ask.results.clear()
                ask.prompts.append(text)
            elif role != "assistant":
                ask.instructions.append(text)
        elif kind == "reasoning":
            need(item, "summary", list, here)
            # What is encrypted belongs to the item; its summary is for people, and not all clients keep it.
            check_signature(item.get("encrypted_content"), need(item, "id", str, here), f"{here}.encrypted_content")
            ask.signatures += 1
        elif kind == "function_call":
            if not isinstance(json.loads(item["arguments"]), dict):
                raise Refused(f"{here}.arguments: not an object")
            open_calls.add(item["call_id"])
        else:
            if item.get("call_id") not in open_calls:
                raise Refused(f"No tool call found for function call output with call_id {item.get('call_id')}.")
            open_calls.remove(item["call_id"])
            ask.results.append(text_of(item["output"], f"{here}.output"))
    if open_calls:
        raise Refused(f"No tool output found for function calls {sorted(open_calls)}.")
    return ask


def text_of(content, path: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refused(f"{path}: must be a text or a list")
    texts = []
    for at, part in enumerate(content):
        here = f"{path}[{at}]"
        only(part, PARTS[one_of(part.get("type"), PARTS, f"{here}.type")], here)
        texts.append(part.get("text", ""))
    return "\n".join(texts)


def items_of(turn: Turn) -> list[dict]:
    items = []
    if turn.thought:
        reasoning = {"id": "rs_0b1c", "type": "reasoning", "summary": [{"type": "summary_text", "text": turn.thought}]}
        items.append(reasoning | {"encrypted_content": sign(reasoning["id"])})
    part = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
    message = {"id": "msg_0b1c", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    items.append(message)
    if turn.call:
        call = {"id": "fc_0b1c", "type": "function_call", "status": "completed", "call_id": "call_R2dQx7LmVn0aYt4EwZ91"}
        items.append(call | {"name": turn.call.name, "arguments": json.dumps(turn.call.arguments)})
    return items


def whole(ask: Ask, turn: Turn) -> dict:
    usage = {"input_tokens": 90, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 12}
    usage |= {"output_tokens_details": {"reasoning_tokens": 4}, "total_tokens": 102}
    head = {"id": "resp_0b1c", "object": "response", "created_at": 1760000000, "status": "completed", "error": None}
    head |= {"incomplete_details": None, "model": ask.model, "output": items_of(turn), "usage": usage}
    return head | {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "store": False}


def stream(ask: Ask, turn: Turn, body: dict):
    for number, (kind, fields) in enumerate(events(ask, turn)):
        yield f"response.{kind}", {"type": f"response.{kind}", "sequence_number": number} | fields


def events(ask: Ask, turn: Turn):
    done = whole(ask, turn)
    begun = done | {"status": "in_progress", "output": [], "usage": None}
    yield "created", {"response": begun}
    yield "in_progress", {"response": begun}
    for at, item in enumerate(done["output"]):
        place = {"item_id": item["id"], "output_index": at}
        if item["type"] == "reasoning":
            yield "output_item.added", {"output_index": at, "item": item | {"summary": [], "encrypted_content": ""}}
            part = place | {"summary_index": 0}
            yield "reasoning_summary_part.added", part | {"part": {"type": "summary_text", "text": ""}}
            yield "reasoning_summary_text.delta", part | {"delta": turn.thought}
            yield "reasoning_summary_text.done", part | {"text": turn.thought}
            yield "reasoning_summary_part.done", part | {"part": item["summary"][0]}
        elif item["type"] == "message":
            yield "output_item.added", {"output_index": at, "item": item | {"status": "in_progress", "content": []}}
            part = place | {"content_index": 0}
            yield "content_part.added", part | {"part": item["content"][0] | {"text": ""}}
            for piece in turn.pieces:
                yield "output_text.delta", part | {"delta": piece, "logprobs": []}
            yield "output_text.done", part | {"text": turn.text, "logprobs": []}
            yield "content_part.done", part | {"part": item["content"][0]}
        else:
            yield "output_item.added", {"output_index": at, "item": item | {"status": "in_progress", "arguments": ""}}
            for piece in (item["arguments"][:7], item["arguments"][7:]):
                yield "function_call_arguments.delta", place | {"delta": piece}
            yield "function_call_arguments.done", place | {"arguments": item["arguments"], "name": item["name"]}
        yield "output_item.done", {"output_index": at, "item": item}
    yield "completed", {"response": done}


def refusal(message: str) -> dict:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
