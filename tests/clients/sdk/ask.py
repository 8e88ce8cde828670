"""What is asked of a client library, and what it made of the answer, in nobody's dialect.

A conversation is a list of entries: what a user says, the model's turns as the library wants them back, and results of
tools. Each library's file turns it into what that library takes, the way the library's own documentation does it.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field

# Seconds after which a library gives up.
PATIENCE = 20
# What the libraries call a key; the gateway takes any on this machine.
KEY = "sk-anything"
# Room for an answer, where a library wants to be told; thoughts fit in.
ROOM = 4000
# Tokens for thoughts, where a library wants to be told.
BUDGET = 2000


@dataclass
class Tool:
    name: str
    description: str
    schema: dict


@dataclass
class Ask:
    """One request. `history` is made of `user`, `Answer.turn` and `results`."""

    model: str
    history: list[dict]
    tools: list[Tool] = field(default_factory=list)
    think: bool = False
    schema: dict | None = None
    stream: bool = False
    limit: int | None = None

    def as_json(self) -> dict:
        return asdict(self)


@dataclass
class Call:
    id: str | None
    name: str
    arguments: dict


@dataclass
class Usage:
    """Tokens; `input` counts those from the cache too. What the library did not tell is `None`."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None


@dataclass
class Answer:
    """`turn` is the entry that gives the model's turn back, `pieces` in how many pieces a stream brought the text."""

    text: str
    finish: str | None
    turn: dict
    thoughts: str = ""
    calls: list[Call] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    refused: bool = False
    pieces: int = 0
    model: str | None = None


class Failure(Exception):
    """What the library threw, and what it had handed out before."""

    def __init__(self, name: str, status: int | None, message: str, retry_after: str | None = None, so_far: str = ""):
        super().__init__(f"{name}({status}): {message}")
        self.name, self.status, self.message, self.retry_after, self.so_far = name, status, message, retry_after, so_far


class Client(ABC):
    """A library in one of its ways of use."""

    name: str
    dialect: str
    # Its words for the ends `stop`, `length`, `tools` and, if it has one, `filter`.
    finish: dict[str, str]
    # Its exceptions by status, and that for an error within a stream as `stream`.
    errors: dict
    # What the library cannot do; the cases that need it leave it out.
    cannot: frozenset[str] = frozenset()
    # Whether its exceptions have the status.
    tells_status = True
    # Whether it can list models, and count tokens.
    lists = counts = False
    # Whether it gives back thoughts that are not signed.
    returns_thoughts = False
    # Whether it asks for structured output with a tool that must be called.
    shapes_by_tool = False
    # Whether it gives back results as objects with members of its own.
    wraps_results = False

    def __init__(self, url: str, key: str = KEY):
        self.url = url
        self.key = key

    @abstractmethod
    def ask(self, ask: Ask) -> Answer:
        """Raises `Failure`."""

    def models(self) -> list[str]:
        """The ids of all models."""
        raise NotImplementedError

    def model(self, name: str) -> str:
        """What is said about one model: its id."""
        raise NotImplementedError

    def count(self, model: str, text: str) -> int:
        """Tokens of a text."""
        raise NotImplementedError


def user(text: str, *images: str) -> dict:
    """What a user says; images are PNG in base64."""
    return {"user": text, "images": list(images)}


def results(calls: list[Call], texts: list[str]) -> dict:
    """What tools gave back."""
    pairs = zip(calls, texts, strict=True)
    return {"results": [{"id": call.id, "name": call.name, "text": text} for call, text in pairs]}


def function(tool: Tool) -> dict:
    """A tool as Chat Completions writes it; others took that over."""
    said = {"name": tool.name, "description": tool.description, "parameters": tool.schema}
    return {"type": "function", "function": said}


def data_url(image: str) -> str:
    return f"data:image/png;base64,{image}"


def given(**members) -> dict:
    """The members that are there."""
    return {name: value for name, value in members.items() if value is not None}
