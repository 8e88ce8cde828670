"""Google's SDK."""

import base64

from google import genai
from google.genai import errors, types

from .ask import BUDGET, PATIENCE, Answer, Ask, Call, Client, Failure, Usage, given

FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tools": "STOP", "filter": "SAFETY"}
ERRORS = dict.fromkeys((400, 401, 404, 429), "ClientError") | dict.fromkeys((500, "stream"), "ServerError")


class GoogleGenAi(Client):
    name = "python-google-genai"
    dialect = "gemini"
    finish = FINISH
    errors = ERRORS
    lists = counts = True

    def __init__(self, *where: str):
        super().__init__(*where)
        options = types.HttpOptions(base_url=self.url, timeout=PATIENCE * 1000)
        self.sdk = genai.Client(api_key=self.key, vertexai=False, http_options=options)

    def ask(self, ask: Ask) -> Answer:
        seen: list[str] = []
        try:
            chunks = self.chunks(ask)
            parts, last = [], None
            for last in chunks:
                content = last.candidates[0].content if last.candidates else None
                new = (content and content.parts) or []
                parts += new
                seen += [part.text for part in new if part.text and not part.thought]
        except errors.APIError as error:
            headers = getattr(error.response, "headers", None) or {}
            retry_after = headers.get("retry-after")
            raise Failure(type(error).__name__, error.code, error.message or "", retry_after, "".join(seen)) from error
        reason = last.candidates[0].finish_reason.value if last.candidates else "BLOCKED"
        made = [part.function_call for part in parts if part.function_call]
        told = last.usage_metadata
        return Answer(
            text="".join(seen),
            finish=reason,
            turn={"turn": types.Content(role="model", parts=parts)},
            thoughts="".join(part.text for part in parts if part.thought and part.text),
            calls=[Call(call.id, call.name, call.args or {}) for call in made],
            usage=Usage(
                told.prompt_token_count,
                (told.candidates_token_count or 0) + (told.thoughts_token_count or 0),
                told.cached_content_token_count,
                told.thoughts_token_count,
            )
            if told
            else Usage(),
            refused=reason in ("SAFETY", "BLOCKED"),
            pieces=len(seen),
            model=last.model_version,
        )

    def chunks(self, ask: Ask):
        asked = {"model": ask.model, "contents": contents(ask.history), "config": config(ask)}
        if ask.stream:
            return self.sdk.models.generate_content_stream(**asked)
        return [self.sdk.models.generate_content(**asked)]

    def models(self) -> list[str]:
        return [model.name.removeprefix("models/") for model in self.sdk.models.list(config={"page_size": 1000})]

    def model(self, name: str) -> str:
        return self.sdk.models.get(model=name).name.removeprefix("models/")

    def count(self, model: str, text: str) -> int:
        return self.sdk.models.count_tokens(model=model, contents=text).total_tokens


def config(ask: Ask) -> types.GenerateContentConfig:
    declarations = [
        types.FunctionDeclaration(name=tool.name, description=tool.description, parameters_json_schema=tool.schema)
        for tool in ask.tools
    ]
    return types.GenerateContentConfig(
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        **given(
            tools=[types.Tool(function_declarations=declarations)] if declarations else None,
            thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=BUDGET) if ask.think else None,
            response_mime_type="application/json" if ask.schema else None,
            response_json_schema=ask.schema,
            max_output_tokens=ask.limit,
        ),
    )


def contents(history: list[dict]) -> list[types.Content]:
    made = []
    for entry in history:
        if "turn" in entry:
            made.append(entry["turn"])
        elif "results" in entry:
            parts = []
            for result in entry["results"]:
                said = {"output": result["text"]}
                response = types.FunctionResponse(id=result["id"], name=result["name"], response=said)
                parts.append(types.Part(function_response=response))
            made.append(types.Content(role="user", parts=parts))
        else:
            images = [
                types.Part.from_bytes(data=base64.b64decode(image), mime_type="image/png") for image in entry["images"]
            ]
            made.append(types.Content(role="user", parts=[types.Part(text=entry["user"]), *images]))
    return made
