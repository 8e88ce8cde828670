"""The OpenAI SDK, Chat Completions."""

import json

import openai

from .ask import PATIENCE, Answer, Ask, Call, Client, Failure, Usage, data_url, function, given

ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    "stream": "APIError",
}


def sdk(client: Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.url}/v1", api_key=client.key, max_retries=0, timeout=PATIENCE)


def failure(error: openai.APIError, so_far: str = "") -> Failure:
    response = getattr(error, "response", None)
    retry_after = response.headers.get("retry-after") if response is not None else None
    return Failure(type(error).__name__, getattr(error, "status_code", None), error.message, retry_after, so_far)


class OpenAiChat(Client):
    name = "python-openai-chat"
    dialect = "openai"
    finish = {"stop": "stop", "length": "length", "tools": "tool_calls", "filter": "content_filter"}
    errors = ERRORS
    lists = True

    def __init__(self, *where: str):
        super().__init__(*where)
        self.sdk = sdk(self)

    def ask(self, ask: Ask) -> Answer:
        seen: list[str] = []
        try:
            completion = self.streamed(ask, seen) if ask.stream else self.sdk.chat.completions.create(**request(ask))
        except openai.APIError as error:
            raise failure(error, "".join(seen)) from error
        [choice] = completion.choices
        message = choice.message
        # All that the SDK knows of the message; what was thought is not for the vendor of this dialect.
        turn = message.model_dump(exclude_none=True, exclude={"reasoning_content", "parsed", "tool_calls"})
        calls = message.tool_calls or []
        if calls:
            kept = {"function": {"parsed_arguments"}, "index": True}
            turn["tool_calls"] = [call.model_dump(exclude_none=True, exclude=kept) for call in calls]
        return Answer(
            text=message.content or message.refusal or "",
            finish=choice.finish_reason,
            turn={"turn": turn},
            thoughts=getattr(message, "reasoning_content", None) or "",
            calls=[Call(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls],
            usage=usage(completion.usage),
            refused=bool(message.refusal) or choice.finish_reason == "content_filter",
            pieces=len(seen),
            model=completion.model,
        )

    def streamed(self, ask: Ask, seen: list[str]):
        with self.sdk.chat.completions.stream(**request(ask), stream_options={"include_usage": True}) as stream:
            try:
                for event in stream:
                    if event.type in ("content.delta", "refusal.delta"):
                        seen.append(event.delta)
                return stream.get_final_completion()
            except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
                # What there is was cut off, so its helper takes it for unfit to be read.
                return stream.current_completion_snapshot

    def models(self) -> list[str]:
        return [model.id for model in self.sdk.models.list()]

    def model(self, name: str) -> str:
        return self.sdk.models.retrieve(name).id


def request(ask: Ask) -> dict:
    shape = ask.schema and {
        "type": "json_schema",
        "json_schema": {"name": "shape", "schema": ask.schema, "strict": True},
    }
    return {"model": ask.model, "messages": messages(ask.history)} | given(
        tools=[function(tool) for tool in ask.tools] or None,
        reasoning_effort="medium" if ask.think else None,
        response_format=shape,
        max_tokens=ask.limit,
    )


def messages(history: list[dict]) -> list[dict]:
    made = []
    for entry in history:
        if "turn" in entry:
            made.append(entry["turn"])
        elif "results" in entry:
            for result in entry["results"]:
                made.append({"role": "tool", "tool_call_id": result["id"], "content": result["text"]})
        else:
            images = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in entry["images"]]
            text = {"type": "text", "text": entry["user"]}
            made.append({"role": "user", "content": [text, *images] if images else entry["user"]})
    return made


def usage(told) -> Usage:
    if told is None:
        return Usage()
    prompt, completion = told.prompt_tokens_details, told.completion_tokens_details
    return Usage(
        told.prompt_tokens,
        told.completion_tokens,
        prompt and prompt.cached_tokens,
        completion and completion.reasoning_tokens,
    )
