"""What the gateway's streams must look like, so that no SDK stumbles. Each check takes all bytes of one stream."""

import json


def events(sent: bytes, fields: tuple[str, ...], comments: bool) -> list[tuple[str | None, str]]:
    assert sent.endswith(b"\n\n") or sent.endswith(b"\r\n\r\n"), "the last event has no end"
    found = []
    for block in sent.decode().replace("\r\n", "\n").removesuffix("\n\n").split("\n\n"):
        rows = [row for row in block.split("\n") if not (comments and row.startswith(":"))]
        data = [row.removeprefix("data: ") for row in rows if row.startswith("data: ")]
        if comments and data:
            # SDKs that know comments also join data of several lines; an upstream's are passed on as they came.
            rows = [row for row in rows if not row.startswith("data: ")] + ["data: " + "\n".join(data)]
        names = [row.split(": ")[0] for row in rows]
        assert names in ([], list(fields)), f"not the lines of an event: {block!r}"
        if rows:
            values = [row.split(": ", 1)[1] for row in rows]
            found.append((values[0] if len(values) == 2 else None, values[-1]))
    return found


def openai(sent: bytes):
    texts = [text for _, text in events(sent, ("data",), comments=True)]
    documents = [json.loads(text) for text in texts if text != "[DONE]"]
    if "error" in documents[-1]:
        assert "[DONE]" not in texts, "an end in good order after an error"
        documents.pop()
    else:
        assert texts.count("[DONE]") == 1 and texts[-1] == "[DONE]"
    choices = [choice for document in documents for choice in document["choices"]]
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(finishes) == ("[DONE]" in texts), f"finish reasons: {finishes}"
    seen = []
    for piece in (piece for choice in choices for piece in choice["delta"].get("tool_calls", [])):
        if piece["index"] in seen:
            assert not {"id", "type"} & piece.keys() and "name" not in piece["function"], "told twice"
        else:
            assert piece["index"] == len(seen) and piece["id"] and piece["function"]["name"], "not the next call"
            seen.append(piece["index"])


def anthropic(sent: bytes):
    found = [(name, json.loads(text)) for name, text in events(sent, ("event", "data"), comments=True)]
    assert all(name == document["type"] for name, document in found), "an event is not what it is called"
    documents = [document for _, document in found if document["type"] != "ping"]
    kinds = [document["type"] for document in documents]
    assert kinds[0] == "message_start" or kinds == ["error"]
    assert kinds.count("message_start") <= 1
    if kinds[-1] != "error":
        assert kinds[-2:] == ["message_delta", "message_stop"] and kinds.count("message_stop") == 1
    begun, is_open, fragments = 0, False, ""
    for document in documents:
        kind = document["type"]
        if kind == "content_block_start":
            assert not is_open and document["index"] == begun, "not the next block"
            start = document["content_block"]
            assert start["type"] != "tool_use" or "input" in start, "a call without input"
            begun, is_open, fragments = begun + 1, True, ""
        elif kind in ("content_block_delta", "content_block_stop"):
            assert is_open and document["index"] == begun - 1, "not the open block"
            fragments += document.get("delta", {}).get("partial_json", "")
            is_open = kind == "content_block_delta"
            assert is_open or not fragments or isinstance(json.loads(fragments), dict)
        else:
            assert kind in ("message_start", "message_delta", "message_stop", "error"), f"unknown event {kind}"


def chunks(documents: list[dict]):
    if any("error" in document for document in documents):
        assert next(iter(documents[-1])) == "error", "the error is not first, or not last"
        return
    told = [candidate for document in documents for candidate in document.get("candidates", [])]
    assert sum("finishReason" in candidate for candidate in told) == 1


def gemini(sent: bytes):
    chunks([json.loads(text) for _, text in events(sent, ("data",), comments=False)])


def gemini_list(sent: bytes):
    chunks(json.loads(sent))


def ollama(sent: bytes):
    assert sent.endswith(b"\n")
    documents = [json.loads(row) for row in sent.decode().removesuffix("\n").split("\n")]
    ends = [document.get("done", False) or "error" in document for document in documents]
    assert ends[-1] and sum(ends) == 1


FORMS = {"openai": openai, "anthropic": anthropic, "gemini": gemini, "gemini-list": gemini_list, "ollama": ollama}
