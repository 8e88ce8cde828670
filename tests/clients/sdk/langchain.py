"""LangChain, with its package for each vendor."""

import anthropic
import ollama
import openai
from google.genai import errors as google_errors
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_google_genai.chat_models import ChatGoogleGenerativeAIError
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

from . import anthropic_messages, google_genai, ollama_chat, openai_chat
from .ask import BUDGET, PATIENCE, ROOM, Answer, Ask, Call, Client, Failure, Usage, data_url, function, given
from .openai_responses import OpenAiResponses

THROWN = (
    openai.APIError,
    anthropic.APIError,
    google_errors.APIError,
    ollama.ResponseError,
    ChatGoogleGenerativeAIError,
)
# Some packages make an HTTP client for every model, and reading all certificates takes longer than a case.
UNENCRYPTED = {"verify": False}
# Where each vendor's package puts why the answer ended.
ENDS = ("finish_reason", "stop_reason", "done_reason")


def errors(vendor: str, stream: str) -> dict:
    """The exceptions of a vendor's package."""
    kinds = {
        400: "InvalidRequestError",
        401: "AuthenticationError",
        404: "ModelNotFoundError",
        429: "RateLimitError",
        500: "APIError",
    }
    return {status: vendor + kind for status, kind in kinds.items()} | {"stream": stream}


class LangChain(Client):
    """`chat` makes the model of an `Ask`."""

    def chat(self, ask: Ask):
        raise NotImplementedError

    def ask(self, ask: Ask) -> Answer:
        model = self.chat(ask)
        if ask.tools:
            model = model.bind_tools([function(tool) for tool in ask.tools])
        if ask.schema:
            shape = {"title": "shape", "description": "the shape of the answer"} | ask.schema
            model = model.with_structured_output(shape, method="json_schema", include_raw=True)
        seen: list[str] = []
        try:
            message = self.message(model, ask, seen)
        except THROWN as error:
            raise self.failure(error, "".join(seen)) from error
        blocks = message.content_blocks
        told = message.usage_metadata or {}
        read = told.get("input_token_details", {}).get("cache_read")
        thought = told.get("output_token_details", {}).get("reasoning")
        end = self.end(message.response_metadata)
        refusal = message.additional_kwargs.get("refusal")
        refusal = refusal or "".join(part["refusal"] for part in content(message) if part.get("type") == "refusal")
        return Answer(
            text="".join(block["text"] for block in blocks if block["type"] == "text") or refusal,
            finish=end,
            turn={"turn": message},
            thoughts="".join(block.get("reasoning", "") for block in blocks if block["type"] == "reasoning"),
            calls=[Call(call["id"], call["name"], call["args"]) for call in message.tool_calls],
            usage=Usage(told.get("input_tokens"), told.get("output_tokens"), read, thought),
            refused=bool(refusal) or (end is not None and end == self.finish.get("filter")),
            pieces=len(seen),
        )

    def message(self, model, ask: Ask, seen: list[str]) -> AIMessage:
        history = messages(ask.history)
        if not ask.stream:
            made = model.invoke(history)
            return made["raw"] if ask.schema else made
        whole = None
        for chunk in model.stream(history):
            if ask.schema:
                chunk = chunk.get("raw")
            if isinstance(chunk, AIMessageChunk):
                seen += [chunk.text] if chunk.text else []
                whole = chunk if whole is None else whole + chunk
        return whole

    def end(self, told: dict) -> str | None:
        return next((told[name] for name in ENDS if name in told), None)

    def failure(self, error: Exception, so_far: str) -> Failure:
        # Some packages wrap what the vendor's own SDK threw.
        thrown = error.__cause__ or error
        status = getattr(thrown, "status_code", None) or getattr(thrown, "code", None)
        headers = getattr(getattr(thrown, "response", None), "headers", None) or {}
        status = status if isinstance(status, int) else None
        return Failure(type(error).__name__, status, str(error), headers.get("retry-after"), so_far)


class LangChainOpenAi(LangChain):
    name = "langchain-openai"
    dialect = "openai"
    finish = openai_chat.OpenAiChat.finish
    errors = errors("OpenAI", "APIError")
    # It leaves out what is no part of OpenAI's own dialect.
    cannot = frozenset({"thoughts", "streamed refusal"})

    def chat(self, ask: Ask):
        return ChatOpenAI(
            model=ask.model,
            base_url=f"{self.url}/v1",
            api_key=self.key,
            max_retries=0,
            timeout=PATIENCE,
            stream_usage=True,
            **given(max_tokens=ask.limit, reasoning_effort="medium" if ask.think else None),
        )


class LangChainResponses(LangChain):
    name = "langchain-openai-responses"
    dialect = "responses"
    finish = OpenAiResponses.finish
    errors = errors("OpenAI", "APIError")
    # It takes a response that failed for one that ended.
    cannot = frozenset({"error within a stream"})

    def chat(self, ask: Ask):
        return ChatOpenAI(
            model=ask.model,
            base_url=f"{self.url}/v1",
            api_key=self.key,
            max_retries=0,
            timeout=PATIENCE,
            use_responses_api=True,
            output_version="responses/v1",
            store=False,
            **given(
                max_tokens=ask.limit,
                reasoning={"effort": "medium", "summary": "auto"} if ask.think else None,
                include=["reasoning.encrypted_content"] if ask.think else None,
            ),
        )

    def end(self, told: dict) -> str | None:
        why = told.get("incomplete_details")
        return f"{told['status']}: {why['reason']}" if why else told.get("status")


class LangChainAnthropic(LangChain):
    name = "langchain-anthropic"
    dialect = "anthropic"
    finish = anthropic_messages.FINISH
    errors = errors("Anthropic", "APIStatusError")
    cannot = frozenset({"reasoning tokens"})

    def chat(self, ask: Ask):
        return ChatAnthropic(
            model=ask.model,
            base_url=self.url,
            api_key=self.key,
            max_retries=0,
            timeout=PATIENCE,
            max_tokens=ask.limit or ROOM,
            **given(thinking={"type": "enabled", "budget_tokens": BUDGET} if ask.think else None),
        )


class LangChainGoogle(LangChain):
    name = "langchain-google-genai"
    dialect = "gemini"
    finish = google_genai.FINISH
    errors = errors("Google", "GoogleAPIError")

    def chat(self, ask: Ask):
        return ChatGoogleGenerativeAI(
            model=ask.model,
            base_url=self.url,
            api_key=self.key,
            max_retries=1,
            timeout=PATIENCE,
            client_args=UNENCRYPTED,
            **given(
                max_tokens=ask.limit,
                include_thoughts=True if ask.think else None,
                thinking_budget=BUDGET if ask.think else None,
            ),
        )


class LangChainOllama(LangChain):
    name = "langchain-ollama"
    dialect = "ollama"
    finish = ollama_chat.FINISH
    errors = ollama_chat.ERRORS
    cannot = ollama_chat.Ollama.cannot

    def chat(self, ask: Ask):
        return ChatOllama(
            model=ask.model,
            base_url=self.url,
            client_kwargs={"timeout": PATIENCE, "headers": {"authorization": f"Bearer {self.key}"}} | UNENCRYPTED,
            **given(num_predict=ask.limit, reasoning=True if ask.think else None),
        )


def content(message: AIMessage) -> list[dict]:
    return [part for part in message.content if isinstance(part, dict)] if isinstance(message.content, list) else []


def messages(history: list[dict]) -> list:
    made = []
    for entry in history:
        if "turn" in entry:
            made.append(entry["turn"])
        elif "results" in entry:
            for result in entry["results"]:
                made.append(ToolMessage(result["text"], tool_call_id=result["id"], name=result["name"]))
        elif entry["images"]:
            images = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in entry["images"]]
            made.append(HumanMessage([{"type": "text", "text": entry["user"]}, *images]))
        else:
            made.append(HumanMessage(entry["user"]))
    return made
