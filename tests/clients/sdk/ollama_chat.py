"""Ollama's client."""

import ollama

from .ask import PATIENCE, Answer, Ask, Call, Client, Failure, Usage, function, given

FINISH = {"stop": "stop", "length": "length", "tools": "stop"}
ERRORS = dict.fromkeys((400, 401, 404, 429, 500, "stream"), "ResponseError")


class Ollama(Client):
    name = "python-ollama"
    dialect = "ollama"
    finish = FINISH
    errors = ERRORS
    lists = True
    # It knows no cache and no headers of errors.
    cannot = frozenset({"cached", "reasoning tokens", "retry-after", "filter"})

    def __init__(self, *where: str):
        super().__init__(*where)
        self.sdk = ollama.Client(host=self.url, timeout=PATIENCE, headers={"authorization": f"Bearer {self.key}"})

    def ask(self, ask: Ask) -> Answer:
        seen: list[str] = []
        thoughts, calls, last = [], [], None
        try:
            for last in self.lines(ask):
                if last.message.content:
                    seen.append(last.message.content)
                thoughts.append(last.message.thinking or "")
                calls += last.message.tool_calls or []
        except ollama.ResponseError as error:
            raise Failure(type(error).__name__, error.status_code, error.error, None, "".join(seen)) from error
        message = ollama.Message(
            role="assistant", content="".join(seen), thinking="".join(thoughts) or None, tool_calls=calls or None
        )
        return Answer(
            text=message.content,
            finish=last.done_reason,
            turn={"turn": message},
            thoughts=message.thinking or "",
            calls=[Call(None, call.function.name, dict(call.function.arguments)) for call in calls],
            usage=Usage(last.prompt_eval_count, last.eval_count),
            pieces=len(seen),
            model=last.model,
        )

    def lines(self, ask: Ask):
        asked = {"model": ask.model, "messages": messages(ask.history)} | given(
            tools=[function(tool) for tool in ask.tools] or None,
            think=True if ask.think else None,
            format=ask.schema,
            options={"num_predict": ask.limit} if ask.limit else None,
        )
        return self.sdk.chat(**asked, stream=True) if ask.stream else [self.sdk.chat(**asked)]

    def models(self) -> list[str]:
        return [model.model for model in self.sdk.list().models]

    def model(self, name: str) -> str:
        told = self.sdk.show(name)
        assert "completion" in told.capabilities and told.details is not None
        return name


def messages(history: list[dict]) -> list:
    made = []
    for entry in history:
        if "turn" in entry:
            made.append(entry["turn"])
        elif "results" in entry:
            for result in entry["results"]:
                made.append({"role": "tool", "tool_name": result["name"], "content": result["text"]})
        else:
            made.append({"role": "user", "content": entry["user"]} | given(images=entry["images"] or None))
    return made
