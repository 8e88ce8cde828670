"""Responses."""

import json
from dataclasses import dataclass, field

from .events import events

ENDS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}
# The pieces of a text: the member with the whole of it, and the index of the part that it belongs to.
PIECES = {
    "output_text": ("text", "content_index"),
    "refusal": ("refusal", "content_index"),
    "reasoning_text": ("text", "content_index"),
    "reasoning_summary_text": ("text", "summary_index"),
    "function_call_arguments": ("arguments", None),
    "custom_tool_call_input": ("input", None),
}
PARTS = {"content_part": "content_index", "reasoning_summary_part": "summary_index"}
# How an item of each type begins, apart from what is its own.
BEGINNINGS = {
    "message": {"content": [], "role": "assistant", "status": "in_progress"},
    "reasoning": {"summary": []},
    "function_call": {"arguments": "", "status": "in_progress"},
    "custom_tool_call": {"input": "", "status": "in_progress"},
}
CALLS = ("function_call", "custom_tool_call")


@dataclass
class Item:
    """An item that was added, and what was told of it since."""

    head: dict
    # The texts of its parts; of a call just one, which has no part around it.
    texts: list[str] = field(default_factory=list)
    is_part_open: bool = False
    done: dict | None = None


def check(sent: bytes):
    found = events(sent, "event", "data", comments=True)
    documents = [json.loads(event["data"]) for event in found]
    kinds = [document["type"] for document in documents]
    assert [event["event"] for event in found] == kinds, "not what it is called"
    assert [document["sequence_number"] for document in documents] == list(range(len(documents)))
    if kinds == ["error"]:
        assert documents[0]["code"] and documents[0]["message"] and "param" in documents[0]
        return
    assert kinds[:2] == ["response.created", "response.in_progress"], "not how a stream begins"
    assert kinds[-1] in ENDS and not ENDS.keys() & set(kinds[:-1]), "not one end, last"
    wrapped = [document["response"] for document in (*documents[:2], documents[-1])]
    assert len({response["id"] for response in wrapped}) == 1 and wrapped[0]["id"]
    assert all(response["output"] == [] and response["status"] == "in_progress" for response in wrapped[:2])
    items: list[Item] = []
    for document in documents[2:-1]:
        follow(document, items)
    check_end(wrapped[-1], ENDS[kinds[-1]], items)


def follow(document: dict, items: list[Item]):
    """One event in the life of an item."""
    kind = document["type"].removeprefix("response.")
    if kind == "output_item.added":
        add(document, items)
        return
    assert document["output_index"] < len(items), "an item that was not added"
    item = items[document["output_index"]]
    assert item.done is None, "an item that is done"
    if kind == "output_item.done":
        end(document["item"], item)
        return
    assert document["item_id"] == item.head["id"], "another item"
    subject, _, step = kind.partition(".")
    if kind == "output_text.annotation.added":
        assert item.is_part_open and document["content_index"] == len(item.texts) - 1
    elif subject in PIECES and step in ("delta", "done"):
        piece(document, item, step, *PIECES[subject])
    elif subject in PARTS and step in ("added", "done"):
        part(document, item, step, PARTS[subject])
    else:
        raise AssertionError(f"unknown event {document['type']}")


def add(document: dict, items: list[Item]):
    head = document["item"]
    assert document["output_index"] == len(items), "not the next item"
    assert head["id"] and head["id"] not in [item.head["id"] for item in items], "not an id of its own"
    assert BEGINNINGS[head["type"]].items() <= head.items(), f"how an item begins: {head}"
    is_call = head["type"] in CALLS
    assert not is_call or (head["call_id"] and head["name"])
    items.append(Item(head, texts=[""] if is_call else []))


def part(document: dict, item: Item, step: str, index: str):
    if step == "added":
        assert not item.is_part_open and document[index] == len(item.texts), "not the next part"
        assert text_of(document["part"]) == ""
        item.texts.append("")
    else:
        assert item.is_part_open and document[index] == len(item.texts) - 1, "not the open part"
        assert text_of(document["part"]) == item.texts[-1]
    item.is_part_open = step == "added"


def piece(document: dict, item: Item, step: str, whole: str, index: str | None):
    if index is None:
        assert item.head["type"] in CALLS
    else:
        assert item.is_part_open and document[index] == len(item.texts) - 1, "not the open part"
    if step == "delta":
        item.texts[-1] += document["delta"]
    else:
        assert document[whole] == item.texts[-1]


def end(done: dict, item: Item):
    assert not item.is_part_open and done["id"] == item.head["id"] and done["type"] == item.head["type"]
    assert done.get("status") in ("completed", "incomplete", None)
    match done["type"]:
        case "message":
            assert done["content"] and [text_of(each) for each in done["content"]] == item.texts
        case "reasoning":
            assert [text_of(each) for each in [*done["summary"], *done.get("content", [])]] == item.texts
        case "function_call":
            assert done["arguments"] == item.texts[0]
            assert not item.texts[0] or isinstance(json.loads(item.texts[0]), dict)
        case "custom_tool_call":
            assert done["input"] == item.texts[0]
    item.done = done


def text_of(part: dict) -> str:
    return part["refusal"] if part["type"] == "refusal" else part["text"]


def check_end(response: dict, status: str, items: list[Item]):
    assert response["status"] == status
    assert response["output"] == [item.done for item in items if item.done], "not what was done"
    undone = [item for item in items if not item.done]
    match status:
        case "failed":
            assert response["error"]["code"] and response["error"]["message"]
        case "incomplete":
            # A call that was cut off is never done: who runs what is done would run the half of it.
            assert all(item.head["type"] in CALLS for item in undone) and undone == items[len(items) - len(undone) :]
            assert len(undone) <= 1 and response["incomplete_details"]["reason"]
        case "completed":
            assert not undone and response["error"] is None
    assert status == "failed" or response["usage"]["total_tokens"] >= 0
