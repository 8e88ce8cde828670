"""The Anthropic SDK."""

import anthropic

from .ask import BUDGET, PATIENCE, ROOM, Answer, Ask, Call, Client, Failure, Usage, given

FINISH = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use", "filter": "refusal"}
ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    "stream": "APIStatusError",
}
# Members of blocks that a request may have.
BLOCK = {"type", "text", "thinking", "signature", "data", "id", "name", "input"}


def failure(error: anthropic.APIError, so_far: str = "") -> Failure:
    response = getattr(error, "response", None)
    retry_after = response.headers.get("retry-after") if response is not None else None
    return Failure(type(error).__name__, getattr(error, "status_code", None), error.message, retry_after, so_far)


class AnthropicMessages(Client):
    name = "python-anthropic"
    dialect = "anthropic"
    finish = FINISH
    errors = ERRORS
    lists = counts = True

    def __init__(self, *where: str):
        super().__init__(*where)
        self.sdk = anthropic.Anthropic(base_url=self.url, api_key=self.key, max_retries=0, timeout=PATIENCE)

    def ask(self, ask: Ask) -> Answer:
        seen: list[str] = []
        try:
            message = self.streamed(ask, seen) if ask.stream else self.sdk.messages.create(**request(ask))
        except anthropic.APIError as error:
            raise failure(error, "".join(seen)) from error
        turn = [block.model_dump(exclude_none=True, include=BLOCK) for block in message.content]
        told = message.usage
        read, written = told.cache_read_input_tokens, told.cache_creation_input_tokens
        details = told.output_tokens_details
        return Answer(
            text="".join(block.text for block in message.content if block.type == "text"),
            finish=message.stop_reason,
            turn={"turn": turn},
            thoughts="".join(block.thinking for block in message.content if block.type == "thinking"),
            calls=[Call(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"],
            usage=Usage(
                told.input_tokens + (read or 0) + (written or 0),
                told.output_tokens,
                read,
                details and details.thinking_tokens,
            ),
            refused=message.stop_reason == "refusal",
            pieces=len(seen),
            model=message.model,
        )

    def streamed(self, ask: Ask, seen: list[str]):
        with self.sdk.messages.stream(**request(ask)) as stream:
            seen.extend(text for text in stream.text_stream)
            return stream.get_final_message()

    def models(self) -> list[str]:
        return [model.id for model in self.sdk.models.list(limit=1000)]

    def model(self, name: str) -> str:
        return self.sdk.models.retrieve(name).id

    def count(self, model: str, text: str) -> int:
        asked = [{"role": "user", "content": text}]
        return self.sdk.messages.count_tokens(model=model, messages=asked).input_tokens


def request(ask: Ask) -> dict:
    tools = [{"name": tool.name, "description": tool.description, "input_schema": tool.schema} for tool in ask.tools]
    return {"model": ask.model, "max_tokens": ask.limit or ROOM, "messages": messages(ask.history)} | given(
        tools=tools or None,
        thinking={"type": "enabled", "budget_tokens": BUDGET} if ask.think else None,
        output_config=ask.schema and {"format": {"type": "json_schema", "schema": ask.schema}},
    )


def messages(history: list[dict]) -> list[dict]:
    made = []
    for entry in history:
        if "turn" in entry:
            made.append({"role": "assistant", "content": entry["turn"]})
        elif "results" in entry:
            content = [
                {"type": "tool_result", "tool_use_id": result["id"], "content": result["text"]}
                for result in entry["results"]
            ]
            made.append({"role": "user", "content": content})
        else:
            images = [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image}}
                for image in entry["images"]
            ]
            text = {"type": "text", "text": entry["user"]}
            made.append({"role": "user", "content": [text, *images] if images else entry["user"]})
    return made
