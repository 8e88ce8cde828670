"""The gateway sends nothing that `reactions.py` shows to hurt: in streams that end well, fail, break off or fall silent."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import httpx
import pytest
from forms import FORMS
from gateway import Gateway
from matrix import NODES
from odd_streams import CUT_OFF_CALL, Server
from reactions import ROWS
from sample import ANTHROPIC_TOOLS, OPENAI_TOOLS, user
from sdk.node import Process
from stream_readers import READERS, observe

PROMPT = "a\u2028 b"
GOOD = (
    "chunks-5", "echo-writes-3", "crlf-comments-multiline", "usage-every", "empty", "refusal", "filtered", "blocked",
    "reasoning", "hidden-tools-2", "redacted", "reasoning-tools-2-fragments-3", "tools-2-noargs", "tools-2-interleaved",
    "lorem",
)  # fmt: skip
# Tokens that the answer may have: this ends in the middle of the text.
LIMITS = {"lorem": 16}
BAD = ("error-after-1", "reasoning-error-after-2", "tools-2-cut-2", "cut-1", "end-1", "malformed-2")
# Longer than the 15 s after which a silent stream is kept alive: before the head, between two pieces, before an error.
SILENT = ("echo-delay-17s", "chunks-2-slow-17s", "delay-17s-error-400")
# These are silent until the gateway gives up.
STALLED = ("stall-1", "tools-2-stall-1")
PATIENCE = "18000"

# What upstreams send that hurts; what comes behind a call's arguments is for who runs the call to judge.
ODD = {row.model: (row.dialect, row.sent) for row in ROWS if not row.is_ours and row.what != "more after the arguments"}
ODD["openai-cut-off-call"] = "openai", CUT_OFF_CALL

ALIVE = {
    "openai": b": keep-alive\n\n",
    "responses": b": keep-alive\n\n",
    "anthropic": b'event: ping\ndata: {"type":"ping"}\n\n',
    "gemini": b'data: {"responseId":""',
    "gemini-list": b"\n",
    "ollama": b'"content":""',
}
# Who wants data instead of comments gets it.
ALIVE_WITH_DATA = ALIVE | {"openai": b'data: {"id":"","object":"chat.completion.chunk","created":0,"model":"","choices":[]}\n\n'}
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
    b'"finish_reason":"length"': "LengthFinishReasonError",
}
CONTENT_TYPES = {"gemini-list": "application/json", "ollama": "application/x-ndjson"}



def everywhere(models: tuple[str, ...]):
    """The models on all upstreams for clients of all forms."""
    cases = [(form, upstream, model) for model in models for upstream in NODES for form in FORMS]
    # Only in this dialect calls can be told at the same time.
    possible = [case for case in cases if "interleaved" not in case[2] or case[1] == "openai"]
    return pytest.mark.parametrize("form,upstream,model", possible, ids=["-".join(case) for case in possible])


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
    answer = answer_to(url, form, model)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(CONTENT_TYPES.get(form, "text/event-stream"))
    return answer.content


def answer_to(url: str, form: str, model: str) -> httpx.Response:
    path, body = request(form, model)
    return http().post(url + path, json=body)


def request(form: str, model: str) -> tuple[str, dict]:
    functions = [tool["function"] for tool in OPENAI_TOOLS]
    limit = LIMITS.get(model.partition("/")[2], 2000)
    asked = {"model": model, "stream": True}
    match form:
        case "openai":
            return "/v1/chat/completions", asked | {"messages": user(PROMPT), "tools": OPENAI_TOOLS, "max_tokens": limit}
        case "responses":
            tools = [{"type": "function"} | function for function in functions]
            asked |= {"input": PROMPT, "tools": tools, "max_output_tokens": limit, "reasoning": {"summary": "auto"}}
            return "/v1/responses", asked
        case "anthropic":
            thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}} if limit > 1024 else {}
            asked |= {"messages": user(PROMPT), "tools": ANTHROPIC_TOOLS, "max_tokens": limit} | thinking
            return "/v1/messages", asked
        case "ollama":
            return "/api/chat", asked | {"messages": user(PROMPT), "tools": OPENAI_TOOLS, "options": {"num_predict": limit}}
    tools = [{"name": each["name"], "parametersJsonSchema": each["parameters"]} for each in functions]
    body = {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}], "tools": [{"functionDeclarations": tools}]}
    body |= {"generationConfig": {"maxOutputTokens": limit, "thinkingConfig": {"includeThoughts": True}}}
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
    impatient.call("PATCH", "/settings", json={"sseKeepalive": "chunk"})
    nodes = {
        upstream: impatient.node(node.kind, simulator.url + node.base, **node.fields) for upstream, node in NODES.items()
    }
    wanted = [(form, upstream, model) for model in SILENT + STALLED for upstream in NODES for form in FORMS]

    def begin(form: str, upstream: str, model: str) -> bytes:
        if model in STALLED:
            return ask(impatient.url, form, f"{nodes[upstream]}/{model}")
        return ask(gateway.url, form, f"up-{upstream}/{model}")

    with ThreadPoolExecutor(len(wanted)) as pool:
        yield {case: pool.submit(begin, *case) for case in wanted}
    impatient.stop()


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """A gateway for upstreams that fail."""
    gateway = Gateway(tmp_path_factory.mktemp("troubled")).start()
    gateway.call("PATCH", "/settings", json={"requestRetry": 0})
    yield gateway
    gateway.stop()


@contextmanager
def own_node(gateway, url: str, dialect: str):
    """An upstream for one case, because failures put it on cooldown. It goes again: many make every change slow."""
    node = NODES[dialect]
    prefix = gateway.node(node.kind, url + node.base, **node.fields)
    try:
        yield prefix
    finally:
        gateway.remove_node(prefix)


@everywhere(GOOD)
def test_ends_well(gateway, libraries, replay, form, upstream, model):
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


@pytest.fixture(scope="module")
def odd():
    server = Server(ODD)
    yield server
    server.stop()


# What stays in its dialect is passed on as it came, but for the ends of lines.
HEALED = [
    (form, name, dialect)
    for name, (dialect, _) in ODD.items()
    for form in FORMS
    if not form.startswith(dialect) or "line-separator" in name
]


@pytest.mark.parametrize("form,name,dialect", HEALED, ids=[f"{form}-{name}" for form, name, _ in HEALED])
def test_heals(troubled, odd, form, name, dialect):
    with own_node(troubled, odd.url, dialect) as prefix:
        answer = answer_to(troubled.url, form, f"{prefix}/{name}")
    if answer.status_code == 200:
        FORMS[form](answer.content)
    else:
        assert answer.status_code >= 500 and "no more" in answer.text


@everywhere(BAD)
def test_fails(troubled, simulator, libraries, replay, form, upstream, model):
    with own_node(troubled, simulator.url, upstream) as prefix:
        sent = ask(troubled.url, form, f"{prefix}/{model}")
    FORMS[form](sent)
    check_failed(form, replay(form, sent))


def check_failed(form: str, made: dict, status: str = ""):
    for way, both in made.items():
        if form == "responses":
            assert both[0] == {"error": "RuntimeError"} if way == "helper" else both[0]["finish"] in ("failed", "error")
        else:
            assert tuple(each.get("error") for each in both) == FAILURES.get(f"{form}-{status}", FAILURES[form])
            assert not any("finish" in each for each in both)


@everywhere(SILENT + STALLED)
def test_falls_silent(libraries, silent, replay, form, upstream, model):
    sent = silent[form, upstream, model].result(50)
    assert (ALIVE_WITH_DATA if model in STALLED else ALIVE)[form] in sent
    FORMS[form](sent)
    made = replay(form, sent)
    if "error" in model or "stall" in model:
        check_failed(form, made, "400" if "error" in model else "")
    else:
        check_read(made, sent)
