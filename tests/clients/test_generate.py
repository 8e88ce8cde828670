"""Ollama's completions (`/api/generate`) with its own client, on upstreams of every dialect."""

import json

import httpx
import ollama
import pytest
from matrix import NODES
from sample import png

UPSTREAMS = (None, *NODES)
THOUGHT = "The user wants an answer. I will think about it for a moment and then give one."
TEXT = "naïve — 漢字 🦀 \u2028 \"quoted\""
SHAPE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(params=UPSTREAMS, ids=[f"on-{upstream}" if upstream else "alone" for upstream in UPSTREAMS])
def place(request, gateway, simulator):
    """The client on an upstream behind the gateway, or alone with the simulator: what stands before names of models."""
    url = gateway.url if request.param else simulator.url
    client = ollama.Client(host=url, timeout=20, headers={"authorization": "Bearer sk-anything"})
    return client, f"up-{request.param}/" if request.param else "", request.param


def complete(place, words: str, prompt: str, stream: bool = False, **more):
    """The text, the reasoning and the last line."""
    client, prefix, _ = place
    if not stream:
        last = client.generate(model=prefix + words, prompt=prompt, **more)
        return last.response, last.thinking or "", last
    lines = list(client.generate(model=prefix + words, prompt=prompt, stream=True, **more))
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    text = "".join(line.response for line in lines)
    return text, "".join(line.thinking or "" for line in lines), lines[-1]


@whole_and_streamed
def test_text(place, stream):
    text, thoughts, last = complete(place, "echo-chunks-6", TEXT, stream, system="Be brief.")
    assert (text, thoughts, last.done_reason) == (TEXT, "", "stop")
    assert last.model == place[1] + "echo-chunks-6" and last.created_at
    for name in ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"):
        assert getattr(last, name) > 0, name


@whole_and_streamed
def test_thoughts(place, stream):
    words = "reasoning-echo" if place[2] == "openai" else "thinks-echo"
    text, thoughts, _ = complete(place, words, "hm?", stream, think=True)
    assert (text, thoughts) == ("hm?", THOUGHT)


def test_images(place):
    assert complete(place, "image", "what is this?", images=[png()])[0] == "I see 1 image."


@whole_and_streamed
def test_structured_output(place, stream):
    assert json.loads(complete(place, "echo", "as JSON", stream, format=SHAPE)[0]) == {"city": "sample"}


@whole_and_streamed
def test_a_limit(place, stream):
    text, _, last = complete(place, "lorem", "go on", stream, options={"num_predict": 16})
    assert (len(text), last.done_reason) == (64, "length")


def test_what_surrounds_the_text(place):
    """Only upstreams that complete texts know of a text behind the gap, and of texts that are not for a template."""
    more = {"suffix": "return", "raw": True}
    if place[2] in (None, "ollama"):
        assert complete(place, "echo", "def f():", **more)[0] == "def f():<FILL>return"
        return
    with pytest.raises(ollama.ResponseError) as caught:
        complete(place, "echo", "def f():", **more)
    assert caught.value.status_code == 400 and "upstream that completes texts" in caught.value.error


def test_loading(place):
    client, prefix, _ = place
    for keep_alive, reason in ((None, "load"), (0, "unload")):
        assert client.generate(model=prefix + "echo", keep_alive=keep_alive).done_reason == reason


@whole_and_streamed
def test_failures(place, quick, stream):
    with pytest.raises(ollama.ResponseError) as caught:
        complete(place, "error-400", "x", stream)
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError) as caught:
        complete(place, "echo-error-after-2", "one two three four five", stream=True)
    assert caught.value.status_code == -1


def test_the_other_path_and_the_default(plain):
    answer = plain.post("/v1/api/generate", json={"model": "sim/echo", "prompt": "x"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "".join(json.loads(line)["response"] for line in answer.text.splitlines()) == "x"
    refused = plain.post("/api/generate", json={"model": "sim/echo", "prompt": 5})
    assert refused.status_code == 400 and "`prompt`" in refused.json()["error"]
    assert plain.get("/api/generate").status_code == 405


def test_an_answer_is_kept_for_the_same_question(plain):
    """The same question gets the same answer in each of the dialect's two forms."""
    options = {"temperature": 0}
    ask = {"model": "sim/echo", "prompt": "kept for whoever completes", "options": options, "stream": False}
    sources = [plain.post("/api/generate", json=ask) for _ in range(2)]
    assert [answer.headers["x-omniroute-cache"] for answer in sources] == ["MISS", "HIT"]
    assert [answer.json()["response"] for answer in sources] == [ask["prompt"]] * 2
    asked = {"model": "sim/echo", "messages": [{"role": "user", "content": ask["prompt"]}], "options": options}
    chat: httpx.Response = plain.post("/api/chat", json=asked | {"stream": False})
    assert (chat.headers["x-omniroute-cache"], chat.json()["message"]["content"]) == ("HIT", ask["prompt"])
