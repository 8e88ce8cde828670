"""Gemini: events, and the list that comes without `alt=sse`."""

import json

from .events import events


def check(sent: bytes):
    check_chunks([json.loads(event["data"]) for event in events(sent, "data", comments=False)])


def check_list(sent: bytes):
    check_chunks(json.loads(sent))


def check_chunks(documents: list[dict]):
    if failed := "error" in documents[-1]:
        # Python's SDK looks for an error at the beginning of a chunk alone.
        assert list(documents[-1]) == ["error"]
        assert documents.pop()["error"].keys() >= {"code", "message", "status"}
    # What keeps a stream alive says nothing.
    chunks = [each for each in documents if each.keys() & {"candidates", "promptFeedback", "usageMetadata"}]
    assert all(each["modelVersion"] and "responseId" in each for each in documents)
    assert len({chunk["responseId"] for chunk in chunks} | ({""} if not chunks else set())) == 1
    candidates = [candidate for chunk in chunks for candidate in chunk.get("candidates", [])]
    for candidate in candidates:
        check_candidate(candidate)
    ends = [chunk for chunk in chunks if is_end(chunk)]
    assert ends == ([] if failed else chunks[-1:]), "not one end, last"
    assert all("usageMetadata" in end for end in ends)


def is_end(chunk: dict) -> bool:
    """A prompt that was blocked has no candidate that could say so."""
    return "promptFeedback" in chunk or any("finishReason" in each for each in chunk.get("candidates", []))


def check_candidate(candidate: dict):
    assert candidate["index"] == 0 and candidate["content"]["role"] == "model"
    # SDKs take the first without looking.
    assert candidate["content"]["parts"], "no parts"
    for part in candidate["content"]["parts"]:
        assert len(part.keys() & {"text", "functionCall", "inlineData"}) == 1, f"not one thing: {part}"
        if call := part.get("functionCall"):
            assert call["name"] and isinstance(call.get("args", {}), dict), "a call that is not whole"
