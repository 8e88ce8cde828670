"""The libraries for Node.js: a process for each, which answers one line of JSON with another."""

import json
import subprocess
from pathlib import Path

from gateway import clean_environment

from . import anthropic_messages, google_genai, ollama_chat, openai_chat
from .ask import BUDGET, PATIENCE, ROOM, Answer, Ask, Call, Client, Failure, Usage
from .openai_responses import OpenAiResponses

FOLDER = Path(__file__).parent.parent / "node"


class Process:
    """`node driver.mjs MODULE`."""

    running: dict[str, "Process"] = {}

    def __init__(self, module: str):
        self.node = subprocess.Popen(
            ["node", "driver.mjs", module],
            cwd=FOLDER,
            env=clean_environment({"AI_SDK_LOG_WARNINGS": "false"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @classmethod
    def of(cls, module: str) -> "Process":
        if module not in cls.running:
            cls.running[module] = cls(module)
        return cls.running[module]

    @classmethod
    def stop_all(cls):
        for process in cls.running.values():
            process.node.stdin.close()
            process.node.wait(10)
            process.node.stdout.close()
        cls.running.clear()

    def call(self, **asked):
        self.node.stdin.write(json.dumps(asked) + "\n")
        self.node.stdin.flush()
        line = self.node.stdout.readline()
        assert line, f"node ended with status {self.node.wait(5)}"
        told = json.loads(line)
        if "failure" in told:
            raise Failure(**told["failure"])
        assert "broken" not in told, told["broken"]
        return told["answer"]


class Node(Client):
    module: str
    # Which of the module's clients.
    kind: str

    def call(self, operation: str, **asked):
        settings = {"url": self.url, "key": self.key, "patience": PATIENCE * 1000, "room": ROOM, "budget": BUDGET}
        return Process.of(self.module).call(kind=self.kind, operation=operation, settings=settings, **asked)

    def ask(self, ask: Ask) -> Answer:
        told = self.call("ask", ask=ask.as_json())
        told["calls"] = [Call(**call) for call in told.get("calls", [])]
        told["usage"] = Usage(**told.get("usage", {}))
        return Answer(**told | {"turn": {"turn": told["turn"]}})

    def models(self) -> list[str]:
        return self.call("models")

    def model(self, name: str) -> str:
        return self.call("model", name=name)

    def count(self, model: str, text: str) -> int:
        return self.call("count", model=model, text=text)


class NodeOpenAiChat(Node):
    name, module, kind, dialect = "node-openai-chat", "openai", "chat", "openai"
    finish, errors = openai_chat.OpenAiChat.finish, openai_chat.ERRORS
    lists = True


class NodeOpenAiResponses(Node):
    name, module, kind, dialect = "node-openai-responses", "openai", "responses", "responses"
    finish, errors = OpenAiResponses.finish, OpenAiResponses.errors
    counts = True


class NodeAnthropic(Node):
    name, module, kind, dialect = "node-anthropic", "anthropic", "messages", "anthropic"
    finish = anthropic_messages.FINISH
    errors = anthropic_messages.ERRORS | {"stream": "APIError"}
    lists = counts = True


class NodeGoogle(Node):
    name, module, kind, dialect = "node-google-genai", "google", "generate", "gemini"
    finish = google_genai.FINISH
    errors = dict.fromkeys(google_genai.ERRORS, "ApiError")
    cannot = frozenset({"retry-after"})
    lists = counts = True


class NodeOllama(Node):
    name, module, kind, dialect = "node-ollama", "ollama", "chat", "ollama"
    finish = ollama_chat.FINISH
    errors = ollama_chat.ERRORS | {"stream": "Error"}
    lists = True
    cannot = ollama_chat.Ollama.cannot


class AiSdk(Node):
    """The AI SDK of Vercel has words of its own for all vendors."""

    module = "ai"
    finish = {"stop": "stop", "length": "length", "tools": "tool-calls", "filter": "content-filter"}
    errors = dict.fromkeys((400, 401, 404, 429, 500), "AI_APICallError") | {"stream": "stream"}


class AiOpenAiCompatible(AiSdk):
    name, kind, dialect = "ai-openai-compatible", "openai-compatible", "openai"
    returns_thoughts = True


class AiOpenAi(AiSdk):
    name, kind, dialect = "ai-openai", "openai", "responses"


class AiAnthropic(AiSdk):
    name, kind, dialect = "ai-anthropic", "anthropic", "anthropic"
    shapes_by_tool = True


class AiGoogle(AiSdk):
    name, kind, dialect = "ai-google", "google", "gemini"
    errors = AiSdk.errors | {"stream": "AI_APICallError"}
    wraps_results = True
