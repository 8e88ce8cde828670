"""Ollama."""

import json

# Of the times there may be less: an answer without text has no first piece.
COUNTS = {"total_duration", "prompt_eval_count", "eval_count"}


def check(sent: bytes):
    text = sent.decode()
    assert text.endswith("\n")
    rows = text.removesuffix("\n").split("\n")
    # Python's SDK splits at more than that.
    assert text.splitlines() == rows, "an end of a line within a line"
    documents = [json.loads(row) for row in rows]
    if "error" in documents[-1]:
        assert list(documents[-1]) == ["error"] and isinstance(documents.pop()["error"], str)
    else:
        check_end(documents[-1])
        check_line(documents.pop())
    for document in documents:
        assert document["done"] is False and "done_reason" not in document
        check_line(document)


def check_end(document: dict):
    assert document["done"] is True and document["done_reason"] in ("stop", "length")
    assert all(document[name] >= 0 for name in COUNTS)


def check_line(document: dict):
    message = document["message"]
    assert document["model"] and document["created_at"] and message["role"] == "assistant"
    assert isinstance(message["content"], str)
    if calls := message.get("tool_calls"):
        assert message["content"] == "" and not document["done"]
        assert all(call["function"]["name"] for call in calls)
        assert all(isinstance(call["function"]["arguments"], dict) for call in calls), "a call that is not whole"
