"""What every client library must be able to do on every upstream."""

import json

import pytest
from gateway import until
from matrix import pairs
from sample import TIME, WEATHER, png
from sample import user as user_message
from sdk import CLIENTS, Ask, Tool, results, user

TOOLS = [Tool("weather", "the weather", WEATHER), Tool("time", "the time", TIME)]
SHAPE = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "at": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["city", "days", "at"],
    "additionalProperties": False,
}
WITH_IDS = [name for name, client in CLIENTS.items() if client.dialect in ("openai", "responses", "anthropic")]
TEXT = "naïve — 漢字 🦀 \"quoted\" \\ \u2028 tab\t and </script>"
THOUGHT = "The user wants an answer. I will think about it for a moment and then give one."
# Upstreams that tell a refusal apart from other text.
SAID_APART = ("openai", "responses")
REFUSAL = "I am sorry, but I cannot help with that."

whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@whole_and_streamed
def test_text(place, stream):
    model = place.model("echo-chunks-6")
    answer = place.client.ask(Ask(model, [user(TEXT)], stream=stream))
    assert answer.text == TEXT
    assert answer.model in (model, None)
    check_finish(place, answer, "stop")
    assert answer.calls == [] and answer.thoughts == "" and not answer.refused
    if stream:
        assert answer.pieces > 1


def test_a_conversation(place):
    first = place.client.ask(Ask(place.model("echo"), history := [user("one")]))
    history += [first.turn, user("two")]
    answer = place.client.ask(Ask(place.model("echo"), history))
    assert answer.text == "two"


@whole_and_streamed
def test_tools_round_trip(place, stream):
    words = "tools-2-fragments-5" + ("-interleaved" if place.upstream == "openai" else "")
    history = [user("how is the weather, and what time is it?")]
    asked = place.client.ask(Ask(place.model(words), history, TOOLS, stream=stream))
    assert [(call.name, call.arguments) for call in asked.calls] == [("weather", {"city": "sample"}), ("time", {})]
    ids = [call.id for call in asked.calls if call.id is not None]
    assert len(set(ids)) == len(ids)
    check_finish(place, asked, "tools")
    history += [asked.turn, results(asked.calls, ["sunny", "late"])]
    answer = place.client.ask(Ask(place.model(words), history, TOOLS, stream=stream))
    check_heard(place, answer, ["sunny", "late"])


@pytest.mark.parametrize("place", pairs(WITH_IDS), indirect=True)
def test_results_in_any_order(place):
    """Where results have the ids of their calls, their order is free."""
    history = [user("how is the weather, and what time is it?")]
    asked = place.client.ask(Ask(place.model("tools-2"), history, TOOLS))
    history += [asked.turn, results(asked.calls[::-1], ["late", "sunny"])]
    answer = place.client.ask(Ask(place.model("tools-2"), history, TOOLS))
    assert answer.text in ("The tool said: sunny\nlate", "The tool said: late\nsunny")


@whole_and_streamed
def test_thoughts_are_seen(place, stream):
    # Ollama's clients only switch thoughts on; how many are enough is left to models that ask.
    words = "reasoning-echo" if place.client.dialect == "ollama" and place.upstream == "openai" else "thinks-echo"
    answer = place.client.ask(Ask(place.model(words), [user("hm?")], think=True, stream=stream))
    assert answer.text == "hm?"
    if place.can("thoughts"):
        assert answer.thoughts == THOUGHT
    if place.can("reasoning tokens") and place.upstream != "ollama":
        assert answer.usage.reasoning == 20


# Thoughts for all to read, only signed, and encrypted as a whole.
@pytest.mark.parametrize("thoughts", ["reasoning", "hidden", "redacted"])
@whole_and_streamed
def test_thoughts_come_back(place, thoughts, stream):
    """Two steps of calls: the upstream refuses the next request when a signature was lost, altered or moved."""
    words = f"{thoughts}-tools-2"
    if place.upstream == "responses" or (place.upstream == "openai" and thoughts == "reasoning" and remembers(place)):
        words += "-replay"
    history = [user("how is the weather, and what time is it?")]
    for step in ("first", "second"):
        asked = place.client.ask(Ask(place.model(words), history, TOOLS, think=True, stream=stream))
        if step == "first":
            assert [call.name for call in asked.calls] == ["weather", "time"]
            history += [asked.turn, results(asked.calls, ["sunny", "late"])]
        else:
            check_heard(place, asked, ["sunny", "late"])
            history += [asked.turn, user("and tomorrow?")]
    again = place.client.ask(Ask(place.model(words), history, TOOLS, think=True, stream=stream))
    assert [call.name for call in again.calls] == ["weather", "time"]


@pytest.mark.parametrize("count", [1, 2])
def test_images(place, count):
    answer = place.client.ask(Ask(place.model("image"), [user("what is this?", *[png()] * count)]))
    assert answer.text == ("I see 1 image." if count == 1 else "I see 2 images.")


@whole_and_streamed
def test_structured_output(place, stream):
    # Where a tool stands for the shape, Ollama leaves it to the model to call it.
    words = "tools" if place.client.shapes_by_tool and place.upstream == "ollama" else "echo"
    answer = place.client.ask(Ask(place.model(words), [user("as JSON")], schema=SHAPE, stream=stream))
    assert json.loads(answer.text) == {"city": "sample", "days": 1, "at": ["sample"]}


@whole_and_streamed
def test_usage(place, stream):
    answer = place.client.ask(Ask(place.model("lorem-cached"), [user("x" * 400)], stream=stream))
    assert answer.usage.output == 100
    assert 100 <= answer.usage.input <= 110
    if place.can("cached") and place.upstream != "ollama":
        assert answer.usage.cached == answer.usage.input // 2


@whole_and_streamed
def test_a_limit(place, stream):
    answer = place.client.ask(Ask(place.model("lorem"), [user("go on")], limit=16, stream=stream))
    assert len(answer.text) == 64
    check_finish(place, answer, "length")


@whole_and_streamed
def test_a_refusal(place, stream):
    answer = place.client.ask(Ask(place.model("refusal"), [user("do harm")], stream=stream))
    if stream and not place.can("streamed refusal") and place.upstream in SAID_APART:
        pytest.skip("the library drops the text of a refusal when it streams")
    # Where a refusal has reasons, there is a place for them, which some libraries put behind the text.
    assert answer.text.startswith(REFUSAL)
    if place.can("filter") and place.upstream not in ("ollama", "gemini"):
        assert answer.refused


@whole_and_streamed
def test_a_filter(place, stream):
    answer = place.client.ask(Ask(place.model("filtered"), [user("one two three four")], stream=stream))
    assert answer.text.startswith("one two t")
    if place.can("filter") and place.upstream != "ollama":
        assert answer.refused


def remembers(place) -> bool:
    """Whether thoughts in Chat Completions come back, which have no signatures: not all vendors take them."""
    return place.client.returns_thoughts or (place.prefix and place.client.dialect != "openai")


def check_heard(place, answer, expected: list[str]):
    """The upstream repeats the results as they reached it."""
    assert answer.text.startswith("The tool said: ")
    heard = answer.text.removeprefix("The tool said: ").split("\n")
    if place.client.wraps_results:
        heard = [json.loads(line)["content"] for line in heard]
    assert heard == expected


def check_finish(place, answer, end: str):
    if place.can("finish"):
        assert answer.finish == place.client.finish[end]


def test_nothing_had_to_be_repaired(gateway, plain):
    """Runs last: the gateway sends some refused requests again without what was refused, so nobody would notice."""
    # Only that a model wants back what no vendor's own model does cannot be known before.
    learned = gateway.call("GET", "/models/learned")["learned"]
    assert [lesson for lesson in learned if lesson["fact"] != "reasoning_in_history"] == []
    # Rows are written one after the other: when this one is there, all are.
    last = plain.post("/v1/chat/completions", json={"model": "sim/echo", "messages": user_message("the last")})
    until(lambda: gateway.call_logs(q=last.headers["x-request-id"]), "the log is complete")
    rows, page = [], 500
    while more := gateway.call_logs(q="-tools-2", limit=page, offset=len(rows)):
        rows += more
    assert [row for row in rows if row["attempts"] > 1 and not is_learned(row)] == []


def is_learned(row) -> bool:
    return row["targetFormat"] == "openai" and "replay" in row["requestedModel"]
