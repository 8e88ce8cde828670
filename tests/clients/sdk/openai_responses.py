"""The OpenAI SDK, Responses."""

import json

import openai

from .ask import Answer, Ask, Call, Client, Failure, Usage, data_url, given
from .openai_chat import ERRORS, failure, sdk


class OpenAiResponses(Client):
    name = "python-openai-responses"
    dialect = "responses"
    finish = {
        "stop": "completed",
        "length": "incomplete: max_output_tokens",
        "tools": "completed",
        "filter": "incomplete: content_filter",
    }
    # The SDK hands `response.failed` out as an event; who waits for a response gets one without an answer.
    errors = ERRORS | {"stream": "failed"}
    counts = True

    def __init__(self, *where: str):
        super().__init__(*where)
        self.sdk = sdk(self)

    def ask(self, ask: Ask) -> Answer:
        seen: list[str] = []
        try:
            response = self.streamed(ask, seen) if ask.stream else self.sdk.responses.create(**request(ask))
        except openai.APIError as error:
            raise failure(error, "".join(seen)) from error
        parts = [part for item in response.output if item.type == "message" for part in item.content]
        calls = [item for item in response.output if item.type == "function_call"]
        reasoning = [item for item in response.output if item.type == "reasoning"]
        turn = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in response.output]
        told = response.usage
        why = response.incomplete_details
        return Answer(
            text="".join(part.text if part.type == "output_text" else part.refusal for part in parts),
            finish=f"{response.status}: {why.reason}" if why else response.status,
            turn={"turn": turn},
            thoughts="".join(part.text for item in reasoning for part in item.summary),
            calls=[Call(call.call_id, call.name, json.loads(call.arguments)) for call in calls],
            usage=Usage(
                told.input_tokens,
                told.output_tokens,
                told.input_tokens_details.cached_tokens,
                told.output_tokens_details.reasoning_tokens,
            )
            if told
            else Usage(),
            refused=any(part.type == "refusal" for part in parts) or bool(why and why.reason == "content_filter"),
            pieces=len(seen),
            model=response.model,
        )

    def streamed(self, ask: Ask, seen: list[str]):
        """Raw events: the SDK's helper has no answer for a response that stays incomplete."""
        response = None
        for event in self.sdk.responses.create(**request(ask), stream=True):
            if event.type in ("response.output_text.delta", "response.refusal.delta"):
                seen.append(event.delta)
            elif event.type in ("response.completed", "response.incomplete"):
                response = event.response
            elif event.type == "response.failed":
                told = event.response.error
                raise Failure("failed", None, told.message, so_far="".join(seen))
        return response

    def count(self, model: str, text: str) -> int:
        return self.sdk.responses.input_tokens.count(model=model, input=text).input_tokens


def request(ask: Ask) -> dict:
    tools = [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.schema,
            "strict": False,
        }
        for tool in ask.tools
    ]
    shape = ask.schema and {"format": {"type": "json_schema", "name": "shape", "schema": ask.schema, "strict": True}}
    return {"model": ask.model, "input": items(ask.history), "store": False} | given(
        tools=tools or None,
        reasoning={"effort": "medium", "summary": "auto"} if ask.think else None,
        include=["reasoning.encrypted_content"] if ask.think else None,
        text=shape,
        max_output_tokens=ask.limit,
    )


def items(history: list[dict]) -> list[dict]:
    made = []
    for entry in history:
        if "turn" in entry:
            made += entry["turn"]
        elif "results" in entry:
            for result in entry["results"]:
                made.append({"type": "function_call_output", "call_id": result["id"], "output": result["text"]})
        else:
            images = [{"type": "input_image", "image_url": data_url(image)} for image in entry["images"]]
            text = {"type": "input_text", "text": entry["user"]}
            made.append({"role": "user", "content": [text, *images] if images else entry["user"]})
    return made
