"""The five dialects without a client library: how a question is put, and where an answer and an error have what they say."""

import json
from dataclasses import dataclass

import httpx

QUESTION = "one two three four five six"


@dataclass
class Asked:
    """A question on its way: path and body."""

    path: str
    body: dict


def ask(dialect: str, model: str, text: str = QUESTION, stream: bool | None = None) -> Asked:
    """A question; with `stream` absent, as most people send it."""
    flag = {} if stream is None else {"stream": stream}
    messages = [{"role": "user", "content": text}]
    match dialect:
        case "openai":
            return Asked("/v1/chat/completions", {"model": model, "messages": messages} | flag)
        case "responses":
            return Asked("/v1/responses", {"model": model, "input": text} | flag)
        case "anthropic":
            return Asked("/v1/messages", {"model": model, "messages": messages, "max_tokens": 500} | flag)
        case "gemini":
            action = "streamGenerateContent?alt=sse" if stream else "generateContent"
            return Asked(f"/v1beta/models/{model}:{action}", {"contents": [{"parts": [{"text": text}]}]})
        case "ollama":
            return Asked("/api/chat", {"model": model, "messages": messages} | flag)
    raise ValueError(dialect)


def send(client: httpx.Client, asked: Asked, **options) -> httpx.Response:
    return client.post(asked.path, json=asked.body, **options)


def said(dialect: str, answer: httpx.Response) -> str:
    """The text of a whole answer or of a stream."""
    kind = answer.headers["content-type"]
    if kind.startswith("text/event-stream"):
        lines = [line.removeprefix("data:").strip() for line in answer.text.splitlines() if line.startswith("data:")]
        events = [json.loads(line) for line in lines if line != "[DONE]"]
        return "".join(piece(dialect, event) for event in events)
    if kind.startswith("application/x-ndjson"):
        return "".join(piece(dialect, json.loads(line)) for line in answer.text.splitlines())
    return whole(dialect, answer.json())


def piece(dialect: str, event: dict) -> str:
    """What one event of a stream adds."""
    match dialect:
        case "openai":
            return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", []))
        case "responses":
            return event["delta"] if event["type"] == "response.output_text.delta" else ""
        case "anthropic":
            return event.get("delta", {}).get("text", "") if event["type"] == "content_block_delta" else ""
        case "gemini":
            parts = event["candidates"][0].get("content", {}).get("parts", []) if event.get("candidates") else []
            return "".join(part.get("text", "") for part in parts)
        case "ollama":
            return event["message"]["content"]
    raise ValueError(dialect)


def whole(dialect: str, answer: dict) -> str:
    match dialect:
        case "openai":
            return answer["choices"][0]["message"]["content"]
        case "responses":
            return "".join(part["text"] for item in answer["output"] for part in item.get("content", []))
        case "anthropic":
            return "".join(block["text"] for block in answer["content"])
        case "gemini" | "ollama":
            return piece(dialect, answer)
    raise ValueError(dialect)


def model_of(dialect: str, answer: dict) -> str:
    """The model's name that a whole answer bears."""
    return answer["modelVersion" if dialect == "gemini" else "model"]


def complaint(dialect: str, body: dict) -> str:
    """The message of an error, out of the envelope that the dialect has for it, which must be complete."""
    match dialect:
        case "openai" | "responses":
            error = body["error"]
            assert set(error) >= {"message", "type", "param", "code"}, body
        case "anthropic":
            error = body["error"]
            assert body["type"] == "error" and set(error) >= {"type", "message"}, body
        case "gemini":
            error = body["error"]
            assert isinstance(error["code"], int) and set(error) >= {"code", "message", "status"}, body
        case "ollama":
            assert isinstance(body["error"], str), body
            return body["error"]
    return error["message"]
