"""What the SDKs for Python make of a stream, as a dictionary without what is not there. `node/reactions.mjs` has the same."""

from functools import cache

import anthropic
import ollama
import openai
from google import genai
from google.genai import types

KEY = "sk-anything"


def observe(read, url: str, model: str) -> dict:
    """What came; with the class of the exception if that is how it ended."""
    seen: dict = {}
    try:
        read(url, model, seen)
    except Exception as error:  # noqa: BLE001 Any class at all is what is looked for.
        seen["error"] = type(error).__name__
    return {name: value for name, value in seen.items() if value not in (None, "", [])}


def note(seen: dict, text: str | None):
    seen["text"] = seen.get("text", "") + (text or "")


@cache
def openai_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=10)


@cache
def anthropic_client(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0, timeout=10)


@cache
def gemini_client(url: str) -> genai.Client:
    return genai.Client(api_key=KEY, vertexai=False, http_options=types.HttpOptions(base_url=url, timeout=10_000))


@cache
def ollama_client(url: str) -> ollama.Client:
    return ollama.Client(host=url, timeout=10)


def openai_raw(url, model, seen):
    for chunk in openai_client(url).chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], stream=True):
        for choice in chunk.choices:
            note(seen, choice.delta.content)
            seen["finish"] = choice.finish_reason or seen.get("finish")


def openai_helper(url, model, seen):
    with openai_client(url).chat.completions.stream(model=model, messages=[{"role": "user", "content": "hi"}]) as stream:
        choice = stream.get_final_completion().choices[0]
    message = choice.message
    seen |= {"text": message.content, "finish": choice.finish_reason, "thoughts": getattr(message, "reasoning_content", None)}
    seen["calls"] = [[call.id, call.function.name, call.function.arguments] for call in message.tool_calls or []]


def anthropic_helper(url, model, seen):
    asked = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    with anthropic_client(url).messages.stream(**asked) as stream:
        message = stream.get_final_message()
    seen |= {"text": "".join(part.text for part in message.content if part.type == "text"), "finish": message.stop_reason}
    seen["calls"] = [[part.id, part.name, part.input] for part in message.content if part.type == "tool_use"]
    seen["id"] = message.id


def responses_raw(url, model, seen):
    for event in openai_client(url).responses.create(model=model, input="hi", stream=True):
        if event.type == "response.output_text.delta":
            note(seen, event.delta)
        elif event.type in ("response.completed", "response.incomplete", "response.failed"):
            seen["finish"] = event.response.status
        elif event.type == "error":
            seen["finish"] = "error"


def responses_helper(url, model, seen):
    with openai_client(url).responses.stream(model=model, input="hi") as stream:
        final = stream.get_final_response()
    seen |= {"text": final.output_text, "finish": final.status}
    calls = [item for item in final.output if item.type == "function_call"]
    seen["calls"] = [[call.call_id, call.name, call.arguments] for call in calls]


def gemini_raw(url, model, seen):
    for chunk in gemini_client(url).models.generate_content_stream(model=model, contents="hi"):
        for candidate in chunk.candidates or []:
            for part in candidate.content.parts:
                note(seen, part.text)
                if call := part.function_call:
                    seen.setdefault("calls", []).append([call.name, call.args])
            seen["finish"] = candidate.finish_reason.value if candidate.finish_reason else None


def ollama_raw(url, model, seen):
    for part in ollama_client(url).chat(model=model, messages=[{"role": "user", "content": "hi"}], stream=True):
        note(seen, part.message.content)
        for call in part.message.tool_calls or []:
            seen.setdefault("calls", []).append([call.function.name, dict(call.function.arguments)])
        seen["finish"] = part.done_reason


READERS = {
    ("openai", "raw"): openai_raw,
    ("openai", "helper"): openai_helper,
    ("anthropic", "helper"): anthropic_helper,
    ("responses", "raw"): responses_raw,
    ("responses", "helper"): responses_helper,
    ("gemini", "raw"): gemini_raw,
    ("ollama", "raw"): ollama_raw,
}
