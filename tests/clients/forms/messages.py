"""Messages."""

import json

from .events import events

# The deltas that a block of each type may have.
DELTAS = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "redacted_thinking": set(),
    "tool_use": {"input_json_delta"},
}
# How each type begins, apart from what is its own.
BEGINNINGS = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
OWN = {"tool_use": ("id", "name"), "redacted_thinking": ("data",)}


def check(sent: bytes):
    found = events(sent, "event", "data", comments=True)
    documents = [json.loads(event["data"]) for event in found]
    assert [event["event"] for event in found] == [document["type"] for document in documents], "not what it is called"
    told = [document for document in documents if document["type"] != "ping"]
    if failed := told[-1]["type"] == "error":
        check_error(told.pop())
    kinds = [document["type"] for document in told]
    if failed and not kinds:
        return
    assert kinds[0] == "message_start" and kinds.count("message_start") == 1
    check_start(told[0]["message"])
    if failed:
        check_blocks(told[1:], is_cut_off=True)
        return
    assert kinds[-2:] == ["message_delta", "message_stop"]
    reason = told[-2]["delta"]["stop_reason"]
    assert reason and told[-2]["usage"]["output_tokens"] >= 0
    assert check_blocks(told[1:-2], is_cut_off=reason == "max_tokens") is None, "a block has no end"


def check_error(document: dict):
    assert document["error"]["type"] and document["error"]["message"] and document["request_id"]


def check_start(message: dict):
    assert message["id"] and message["model"] and message["role"] == "assistant" and message["content"] == []
    assert message["stop_reason"] is None and {"input_tokens", "output_tokens"} <= message["usage"].keys()


def check_blocks(told: list[dict], is_cut_off: bool) -> dict | None:
    """Gives the block that has no end."""
    begun, block, deltas = 0, None, []
    for document in told:
        match document["type"]:
            case "content_block_start":
                assert block is None and document["index"] == begun, "not the next block"
                begun, block, deltas = begun + 1, document["content_block"], []
                assert BEGINNINGS.get(block["type"], {}).items() <= block.items(), f"how a block begins: {block}"
                assert all(block[name] for name in OWN.get(block["type"], ()))
            case "content_block_delta":
                assert block and document["index"] == begun - 1, "not the open block"
                deltas.append(document["delta"])
                assert deltas[-1]["type"] in DELTAS[block["type"]]
            case "content_block_stop":
                assert block and document["index"] == begun - 1, "not the open block"
                check_block(block, deltas, is_cut_off)
                block = None
            case other:
                raise AssertionError(f"{other} among the blocks")
    return block


def check_block(block: dict, deltas: list[dict], is_cut_off: bool):
    match block["type"]:
        case "text":
            assert any(delta.get("text") for delta in deltas), "an empty text"
        case "thinking":
            kinds = [delta["type"] for delta in deltas]
            assert kinds.count("signature_delta") == 1 and kinds[-1] == "signature_delta", "not one signature, last"
        case "tool_use":
            text = "".join(delta["partial_json"] for delta in deltas)
            assert not text or is_cut_off or isinstance(json.loads(text), dict)
