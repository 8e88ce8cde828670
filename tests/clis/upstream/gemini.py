"""Google's generateContent as Gemini 3 has it: no call without its signature, no schema words it does not know."""

import re

from .script import Ask, Refused, Tool, Turn, check_signature, need, one_of, only, sign

NAME = "gemini"

PATH = re.compile(r"/models/(?P<model>.+):(?P<verb>generateContent|streamGenerateContent)$")
MEMBERS = (
    "contents systemInstruction tools toolConfig safetySettings generationConfig cachedContent labels model"
).split()
GENERATION = (
    "temperature topP topK candidateCount maxOutputTokens stopSequences seed presencePenalty frequencyPenalty "
    "responseMimeType responseSchema responseJsonSchema responseLogprobs logprobs responseModalities "
    "mediaResolution thinkingConfig"
).split()
PART = "text inlineData fileData functionCall functionResponse thought thoughtSignature".split()
# The subset of OpenAPI that `parameters` takes; `parametersJsonSchema` takes any schema.
SCHEMA = (
    "type format title description nullable enum maxItems minItems properties required minProperties maxProperties "
    "minLength maxLength pattern example anyOf propertyOrdering default items minimum maximum"
).split()
# Google's own word for calls whose signature got lost.
UNSIGNED = "skip_thought_signature_validator"


def matches(path: str) -> bool:
    return PATH.search(path) is not None


def signs(turn: Turn) -> bool:
    return turn.call is not None


def read(path: str, headers: dict, body: dict) -> Ask:
    only(body, MEMBERS, "body")
    if not headers.get("x-goog-api-key"):
        raise Refused("no key in `x-goog-api-key`")
    found = PATH.search(path)
    generation = only(body.get("generationConfig", {}), GENERATION, "generationConfig")
    thinking = only(
        generation.get("thinkingConfig", {}),
        ["includeThoughts", "thinkingBudget", "thinkingLevel"],
        "generationConfig.thinkingConfig",
    )
    ask = Ask(found["model"], found["verb"].startswith("stream"), thinks=thinking.get("includeThoughts") is True)
    for at, tool in enumerate(body.get("tools", [])):
        only(tool, ["functionDeclarations", "googleSearch", "codeExecution", "urlContext"], f"tools[{at}]")
        for function in tool.get("functionDeclarations", []):
            read_function(ask, function, f"tools[{at}].functionDeclarations[{len(ask.tools)}]")
    system = only(body.get("systemInstruction", {"parts": []}), ["role", "parts"], "systemInstruction")
    ask.instructions = [part["text"] for part in system["parts"]]
    read_contents(ask, need(body, "contents", list, "body"))
    return ask


def read_function(ask: Ask, function: dict, path: str):
    only(function, ["name", "description", "parameters", "parametersJsonSchema", "response", "behavior"], path)
    if "parameters" in function and "parametersJsonSchema" in function:
        raise Refused(f"{path}: only one of parameters and parametersJsonSchema can be set")
    if "parameters" in function:
        check_schema(function["parameters"], f"{path}.parameters")
    schema = function.get("parameters") or function.get("parametersJsonSchema") or {}
    ask.tools.append(Tool(need(function, "name", str, path), schema))


def check_schema(schema: dict, path: str):
    only(schema, SCHEMA, path)
    for name, inner in schema.get("properties", {}).items():
        check_schema(inner, f"{path}.properties.{name}")
    if "items" in schema:
        check_schema(schema["items"], f"{path}.items")
    for at, inner in enumerate(schema.get("anyOf", [])):
        check_schema(inner, f"{path}.anyOf[{at}]")


def read_contents(ask: Ask, contents: list):
    open_calls: list[str] = []
    for at, content in enumerate(contents):
        here = f"contents[{at}]"
        role = one_of(only(content, ["role", "parts"], here).get("role", "user"), ["user", "model"], f"{here}.role")
        parts = need(content, "parts", list, here)
        for place, part in enumerate(parts):
            only(part, PART, f"{here}.parts[{place}]")
        answered = [part["functionResponse"]["name"] for part in parts if "functionResponse" in part]
        if sorted(answered) != sorted(open_calls):
            raise Refused(f"{here}: the function response parts must equal the function call parts {open_calls}")
        calls = [(place, part) for place, part in enumerate(parts) if "functionCall" in part]
        open_calls = [part["functionCall"]["name"] for _, part in calls]
        for place, part in calls:
            only(part["functionCall"], ["id", "name", "args"], f"{here}.parts[{place}].functionCall")
            signature = part.get("thoughtSignature")
            if place == calls[0][0] and not signature:
                raise Refused(f"{here}.parts[{place}]: Function call is missing a thought_signature")
            if signature and signature != UNSIGNED:
                check_signature(signature, part["functionCall"]["name"], f"{here}.parts[{place}].thoughtSignature")
                ask.signatures += 1
        if role == "model":
            # What was found out counts until the model has spoken; the user may say more beside it.
            ask.results.clear()
        else:
            for part in parts:
                if "functionResponse" in part:
                    read_result(ask, part["functionResponse"], here)
                elif "text" in part:
                    ask.prompts.append(part["text"])
    if open_calls:
        raise Refused(f"the last function calls have no response: {open_calls}")


def read_result(ask: Ask, response: dict, path: str):
    only(response, ["id", "name", "response", "parts"], f"{path}.functionResponse")
    said = need(response, "response", dict, f"{path}.functionResponse")
    ask.results += [value for value in said.values() if isinstance(value, str)]


def parts_of(turn: Turn) -> list[dict]:
    parts = [{"text": turn.thought, "thought": True}] if turn.thought else []
    parts += [{"text": piece} for piece in turn.pieces]
    if turn.call:
        call = {"name": turn.call.name, "args": turn.call.arguments}
        parts.append({"functionCall": call, "thoughtSignature": sign(turn.call.name)})
    return parts


def document(ask: Ask, parts: list[dict], **more) -> dict:
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0} | more
    usage = {"promptTokenCount": 90, "cachedContentTokenCount": 60, "candidatesTokenCount": 8, "thoughtsTokenCount": 4}
    head = {"candidates": [candidate], "usageMetadata": usage | {"totalTokenCount": 102}}
    return head | {"modelVersion": ask.model, "responseId": "r-0b1c"}


def whole(ask: Ask, turn: Turn) -> dict:
    return document(ask, parts_of(turn), finishReason="STOP")


def stream(ask: Ask, turn: Turn, body: dict):
    *first, last = parts_of(turn)
    for part in first:
        yield None, document(ask, [part])
    yield None, document(ask, [last], finishReason="STOP")


def refusal(message: str) -> dict:
    return {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
