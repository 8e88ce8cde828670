"""What is said, in no dialect: a request boiled down, and the turn that answers it.

The script lies in the prompt, so that any number of requests can be answered at once and nothing has to be set up:

- `the word <word>`: the answer repeats the word.
- `the error <word>`: the request is refused, and the refusal repeats the word.
- `the file <path>`: the client's own tool for reading files is called, and the answer repeats what the tool said.

A request without tools (a client that wants a title for its window) never causes a call.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

WORD = re.compile(r"the word ([a-z]+-[0-9a-f]+)")
ERROR = re.compile(r"the error ([a-z]+-[0-9a-f]+)")
FILE = re.compile(r"the file (/\S+)")
THOUGHT = "The user wants something that I can do."
RESULT_IS = "The tool said: "


class Refused(Exception):
    """A request that the vendor would refuse, and why."""


@dataclass
class Tool:
    name: str
    schema: dict


@dataclass
class Ask:
    """A request."""

    model: str
    streamed: bool
    tools: list[Tool] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    """What tools said after the last prompt."""
    signatures: int = 0
    """How many of this upstream's signatures came back."""
    thinks: bool = False
    """Whether thoughts were asked for."""


@dataclass
class Call:
    name: str
    arguments: dict


@dataclass
class Turn:
    """What the model says."""

    thought: str | None
    text: str
    call: Call | None = None

    @property
    def pieces(self) -> list[str]:
        """The text as a stream cuts it."""
        return re.findall(r"\S*\s*", self.text)[:-1] if self.text else []


def play(ask: Ask) -> Turn:
    thought = THOUGHT if ask.thinks else None
    if ask.results:
        return Turn(thought, RESULT_IS + "\n".join(ask.results))
    prompt = "\n".join(ask.prompts)
    refusals = ERROR.findall(prompt)
    if refusals:
        raise Refused(f"The model has no such thing as {refusals[-1]}.")
    wanted = FILE.findall(prompt)
    if wanted and ask.tools:
        return Turn(thought, "I look into it.", reading_call(ask.tools, wanted[-1]))
    words = WORD.findall(prompt)
    return Turn(thought, f"The word is {words[-1]}." if words else "Nothing was asked.")


def reading_call(tools: list[Tool], path: str) -> Call:
    """A call of whichever tool of the client reads a file, with arguments named as its schema names them."""
    for tool in tools:
        properties = tool.schema.get("properties", {})
        if tool.name.lower() in ("read", "read_file"):
            names = [name for name in properties if name.lower().replace("_", "") in ("filepath", "absolutepath")]
            if names:
                return Call(tool.name, {names[0]: path})
        if tool.name == "exec_command" and "cmd" in properties:
            return Call(tool.name, {"cmd": f"cat {path}"})
    raise Refused(f"none of these tools is known to read files: {', '.join(tool.name for tool in tools)}")


def sign(text: str) -> str:
    """A signature that only this upstream can make, long enough to be worth breaking."""
    digest = hmac.new(b"a key that nobody else has", text.encode(), hashlib.sha512).digest()
    return base64.b64encode(digest * 3).decode()


def check_signature(signature, text: str, path: str):
    if signature != sign(text):
        raise Refused(f"{path}: the signature is not the one that was given out")


# The shapes of documents.


def only(value, names, path: str) -> dict:
    """An object without members that the vendor does not know."""
    if not isinstance(value, dict):
        raise Refused(f"{path}: must be an object, is {value!r:.80}")
    for name in value:
        if name not in names:
            raise Refused(f"{path}.{name}: unknown member")
    return value


def need(value: dict, name: str, kind: type, path: str):
    if not isinstance(value.get(name), kind):
        raise Refused(f"{path}.{name}: must be {kind.__name__}, is {value.get(name)!r:.80}")
    return value[name]


def one_of(value, choices, path: str):
    if value not in choices:
        raise Refused(f"{path}: must be one of {', '.join(map(str, choices))}, is {value!r:.80}")
    return value
