"""Chat Completions."""

import json

from .events import events


def check(sent: bytes):
    texts = [event["data"] for event in events(sent, "data", comments=True)]
    documents = [json.loads(text) for text in texts if text != "[DONE]"]
    if failed := "error" in documents[-1]:
        assert "[DONE]" not in texts, "an end in good order after an error"
        check_error(documents.pop())
    else:
        assert texts.count("[DONE]") == 1 and texts[-1] == "[DONE]"
    # What keeps a stream alive has neither choices nor usage.
    chunks = [document for document in documents if document["choices"] or document.get("usage")]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in documents)
    for member in ("id", "model", "created"):
        assert len({chunk[member] for chunk in chunks}) <= 1, f"{member} changes"
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    finish = check_choices(choices, failed)
    if not failed:
        check_calls(choices, is_cut_off=finish == "length")


def check_error(document: dict):
    assert list(document) == ["error"]
    assert document["error"].keys() >= {"message", "type", "param", "code"}


def check_choices(choices: list[dict], failed: bool) -> str | None:
    deltas = [choice["delta"] for choice in choices]
    assert all(choice["index"] == 0 for choice in choices)
    assert [delta.get("role") for delta in deltas] in ([], ["assistant"] + [None] * (len(deltas) - 1)), "not one role, first"
    for delta in deltas:
        assert not (delta.get("content") and delta.get("reasoning_content")), "text and thoughts in one chunk"
    finishes = [choice["finish_reason"] for choice in choices]
    if failed:
        assert not any(finishes), "a finish reason before an error"
        return None
    assert finishes[-1] and not any(finishes[:-1]), f"not one finish reason, last: {finishes}"
    return finishes[-1]


def check_calls(choices: list[dict], is_cut_off: bool):
    arguments: list[str] = []
    for piece in (piece for choice in choices for piece in choice["delta"].get("tool_calls") or []):
        if piece["index"] < len(arguments):
            assert not {"id", "type"} & piece.keys() and "name" not in piece["function"], "told twice"
            arguments[piece["index"]] += piece["function"]["arguments"]
        else:
            assert piece["index"] == len(arguments) and piece["id"] and piece["function"]["name"], "not the next call"
            assert piece["type"] == "function"
            arguments.append(piece["function"]["arguments"])
    for text in [] if is_cut_off else arguments:
        assert not text or isinstance(json.loads(text), dict)
