"""The gateway sends nothing that `reactions.py` shows to hurt: in streams that end well, fail, break off or fall silent."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import httpx
import pytest
from forms import FORMS
from gateway import Gateway
from matrix import NODES
from odd_streams import Server
from reactions import ROWS
from sample import ANTHROPIC_TOOLS, OPENAI_TOOLS, user
from sdk.node import Process
from stream_readers import READERS, observe

PROMPT = "a\u2028 b"
GOOD = (
    "chunks-5", "echo-writes-3", "crlf-comments-multiline", "usage-every", "empty", "refusal", "filtered", "blocked",
    "reasoning", "hidden-tools-2", "redacted", "reasoning-tools-2-fragments-3", "tools-2-noargs", "tools-2-interleaved",
)  # fmt: skip
BAD = ("error-after-1", "reasoning-error-after-2", "tools-2-cut-2", "cut-1", "end-1", "malformed-2")
# Longer than the 15 s after which a silent stream is kept alive: before the head, between two pieces, before an error.
SILENT = ("echo-delay-16s", "chunks-2-slow-16s", "delay-16s-error-400")
# These are silent until the gateway gives up.
STALLED = ("stall-1", "tools-2-stall-1")
PATIENCE = "15700"

ALIVE = {
    "openai": b": keep-alive\n\n",
    "responses": b": keep-alive\n\n",
    "anthropic": b'event: ping\ndata: {"type":"ping"}\n\n',
    "gemini": b'data: {"responseId":""',
    "gemini-list": b"\n",
    "ollama": b'"content":""',
}
# What the SDKs make of a failure within a stream. In Python Responses have none that the raw stream would throw.
FAILURES = {
    "openai": ("APIError", "APIError"),
    "responses": (None, None),
    "anthropic": ("APIStatusError", "APIError"),
    "gemini": ("ServerError", "ApiError"),
    "gemini-400": ("ClientError", "ApiError"),
    "ollama": ("ResponseError", "Error"),
}
# Ends that Python's helpers throw for, whoever sends them.
PYTHON_HIDES = {
    b"event: response.incomplete": "RuntimeError",
    b'"finish_reason":"content_filter"': "ContentFilterFinishReasonError",
}
CONTENT_TYPES = {"gemini-list": "application/json", "ollama": "application/x-ndjson"}

every_form = pytest.mark.parametrize("form", FORMS)
every_upstream = pytest.mark.parametrize("upstream", NODES)


@pytest.mark.parametrize("row", ROWS, ids=[row.model for row in ROWS])
def test_the_checks_know_what_hurts(row):
    if row.is_ours:
        FORMS[row.dialect](row.sent)
    else:
        with pytest.raises((AssertionError, ValueError, KeyError)):
            FORMS[row.dialect](row.sent)


@cache
def http() -> httpx.Client:
    """For as many streams at once as there are."""
    return httpx.Client(timeout=50, limits=httpx.Limits(max_connections=None))


def ask(url: str, form: str, model: str) -> bytes:
    path, body = request(form, model)
    answer = http().post(url + path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(CONTENT_TYPES.get(form, "text/event-stream"))
    return answer.content


def request(form: str, model: str) -> tuple[str, dict]:
    functions = [tool["function"] for tool in OPENAI_TOOLS]
    match form:
        case "openai":
            return "/v1/chat/completions", {"model": model, "stream": True, "messages": user(PROMPT), "tools": OPENAI_TOOLS}
        case "responses":
            tools = [{"type": "function"} | function for function in functions]
            return "/v1/responses", {"model": model, "stream": True, "input": PROMPT, "tools": tools} | {
                "reasoning": {"summary": "auto"}
            }
        case "anthropic":
            thinking = {"type": "enabled", "budget_tokens": 1024}
            return "/v1/messages", {"model": model, "stream": True, "messages": user(PROMPT), "tools": ANTHROPIC_TOOLS} | {
                "max_tokens": 2000, "thinking": thinking,
            }  # fmt: skip
        case "ollama":
            return "/api/chat", {"model": model, "messages": user(PROMPT), "tools": OPENAI_TOOLS}
    tools = [{"name": each["name"], "parametersJsonSchema": each["parameters"]} for each in functions]
    body = {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}], "tools": [{"functionDeclarations": tools}]}
    body |= {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
    return f"/v1beta/models/{model}:streamGenerateContent" + ("?alt=sse" if form == "gemini" else ""), body


@pytest.fixture(scope="module")
def replay():
    """Sends a stream to the SDKs as it is; gives what each made of it."""
    streams: dict[str, tuple[str, bytes]] = {}
    server = Server(streams)

    def read(form: str, sent: bytes) -> dict[str, tuple[dict, dict]]:
        model = f"stream-{len(streams)}"
        streams[model] = form, sent
        node = Process.of("reactions")
        return {
            way: (
                observe(reader, server.url, model),
                node.call(kind=f"{form}-{way}", operation="observe", settings={"url": server.url}, model=model),
            )
            for (dialect, way), reader in READERS.items()
            if dialect == form
        }

    yield read
    server.stop()


@pytest.fixture(scope="module", autouse=True)
def silent(gateway, simulator, tmp_path_factory):
    """Streams that take long: asked for first and looked at last."""
    impatient = Gateway(tmp_path_factory.mktemp("impatient"), STREAM_IDLE_TIMEOUT_MS=PATIENCE).start()
    places = [(gateway.url, SILENT, gateway), (impatient.url, STALLED, impatient)]
    wanted = [
        (form, upstream, model, url, node(at, simulator, upstream))
        for url, models, at in places
        for upstream in NODES
        for model in models
        for form in FORMS
    ]
    with ThreadPoolExecutor(len(wanted)) as pool:
        yield {
            (form, upstream, model): pool.submit(ask, url, form, f"{prefix}/{model}")
            for form, upstream, model, url, prefix in wanted
        }
    impatient.stop()


def node(gateway, simulator, upstream: str) -> str:
    """An upstream of its own: failures put one on cooldown."""
    return gateway.node(NODES[upstream].kind, simulator.url + NODES[upstream].base, **NODES[upstream].fields)


@every_upstream
@every_form
@pytest.mark.parametrize("model", GOOD)
def test_ends_well(gateway, libraries, replay, form, upstream, model):
    if model == "tools-2-interleaved" and upstream != "openai":
        pytest.skip("no other dialect can do that")
    sent = ask(gateway.url, form, f"up-{upstream}/{model}")
    FORMS[form](sent)
    check_read(replay(form, sent), sent)


def check_read(made: dict, sent: bytes):
    for way, (python, node) in made.items():
        hidden = next((error for end, error in PYTHON_HIDES.items() if end in sent), None)
        if way == "helper" and hidden:
            assert python == {"error": hidden} and "error" not in node
            continue
        # Node.js keeps the last piece of thoughts alone.
        python.pop("thoughts", None), node.pop("thoughts", None)
        assert python == node and "error" not in python
        assert "finish" in python or b"promptFeedback" in sent


@every_upstream
@every_form
@pytest.mark.parametrize("model", BAD)
def test_fails(gateway, simulator, libraries, replay, form, upstream, model):
    sent = ask(gateway.url, form, f"{node(gateway, simulator, upstream)}/{model}")
    FORMS[form](sent)
    check_failed(form, replay(form, sent))


def check_failed(form: str, made: dict, status: str = ""):
    for way, both in made.items():
        if form == "responses":
            assert both[0] == {"error": "RuntimeError"} if way == "helper" else both[0]["finish"] in ("failed", "error")
        else:
            assert tuple(each.get("error") for each in both) == FAILURES.get(f"{form}-{status}", FAILURES[form])
            assert not any("finish" in each for each in both)


@every_upstream
@every_form
@pytest.mark.parametrize("model", SILENT + STALLED)
def test_falls_silent(libraries, silent, replay, form, upstream, model):
    sent = silent[form, upstream, model].result(50)
    assert ALIVE[form] in sent
    FORMS[form](sent)
    made = replay(form, sent)
    if "error" in model or "stall" in model:
        check_failed(form, made, "400" if "error" in model else "")
    else:
        check_read(made, sent)
