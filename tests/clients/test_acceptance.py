"""What every release must do, a case for each line of `acceptance.md`; the lines without one here name theirs."""

import json
import secrets

import httpx
import pytest
from dialects import QUESTION, Asked, ask, complaint, model_of, said, send
from gateway import WatchedUpstream
from matrix import NODES
from sample import user

DIALECTS = tuple(NODES)
MIB = 1024 * 1024


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_without_stream_the_dialects_default_holds(plain, dialect, upstream):
    answer = send(plain, ask(dialect, f"up-{upstream}/echo"))
    assert answer.status_code == 200, answer.text
    kind = "application/x-ndjson" if dialect == "ollama" else "application/json"
    assert answer.headers["content-type"].split(";")[0] == kind
    assert said(dialect, answer) == QUESTION


# What the upstream says, and what a client gets: refusals of the gateway's own credentials are none of the client's, and
# too large a request is told as too long a prompt, which agents know how to mend.
STATUSES = {
    400: 400, 401: 502, 402: 402, 403: 502, 404: 404, 408: 408, 409: 409, 413: 400, 422: 422,
    429: 429, 500: 500, 502: 502, 503: 503, 504: 504, 529: 503,
}  # fmt: skip


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("status", STATUSES)
def test_errors_arrive_in_the_clients_envelope(gateway, simulator, quick, plain, status, upstream):
    node = NODES[upstream]
    for dialect in DIALECTS:
        # Of its own, so that nobody else's failures have put it on cooldown.
        prefix = gateway.node(node.kind, simulator.url + node.base, **node.fields)
        answer = send(plain, ask(dialect, f"{prefix}/error-{status}"))
        expected = 529 if (status, dialect) == (529, "anthropic") else STATUSES[status]
        assert answer.status_code == expected, f"{dialect}: {answer.text}"
        assert prefix in complaint(dialect, answer.json()), "the message names where it happened"
        gateway.remove_node(prefix)


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_limited_account_gives_way_to_the_next(gateway, simulator, plain, dialect, upstream):
    node = NODES[upstream]
    keys = [f"sk-limited-{secrets.token_hex(4)}", f"sk-node-{secrets.token_hex(8)}"]
    prefix = gateway.node(node.kind, simulator.url + node.base, keys, **node.fields)
    answer = send(plain, ask(dialect, f"{prefix}/echo"))
    assert (answer.status_code, said(dialect, answer)) == (200, QUESTION)
    assert answer.headers["x-omniroute-attempts"] == "2"


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_begins_with_an_error_goes_elsewhere(gateway, simulator, plain, dialect, upstream):
    node = NODES[upstream]
    prefix = gateway.node(node.kind, simulator.url + node.base, **node.fields)
    name = f"combo-{secrets.token_hex(4)}"
    models = [f"{prefix}/error-first-event", "sim/echo"]
    gateway.call("POST", "/combos", 201, json={"name": name, "models": models, "config": {"maxRetries": 0}})
    answer = send(plain, ask(dialect, name, stream=True))
    assert (answer.status_code, said(dialect, answer)) == (200, QUESTION)
    assert answer.headers["x-omniroute-attempts"] == "2"
    # Once something was said it is too late for another, and the client is told within the stream.
    late = send(plain, ask(dialect, f"{prefix}/echo-error-after-2", stream=True))
    assert late.status_code == 200 and "error" in late.text and '"one' in late.text
    assert "x-omniroute-attempts" not in late.headers or late.headers["x-omniroute-attempts"] == "1"


# Every client route there is; which envelope its refusals have.
ROUTES = [
    ("POST", "/v1/chat/completions", "openai"),
    ("POST", "/v1/messages", "anthropic"),
    ("POST", "/v1/messages/count_tokens", "anthropic"),
    ("POST", "/v1/responses", "responses"),
    ("POST", "/v1/responses/input_tokens", "responses"),
    ("GET", "/v1beta/models", "gemini"),
    ("POST", "/v1beta/models/sim/echo:generateContent", "gemini"),
    ("POST", "/v1beta/models/sim%2Fecho:streamGenerateContent", "gemini"),
    ("POST", "/v1beta/models/sim/echo:countTokens", "gemini"),
    ("POST", "/v1/api/chat", "ollama"),
    ("POST", "/api/chat", "ollama"),
    ("POST", "/api/generate", "ollama"),
    ("GET", "/api/tags", "ollama"),
    ("POST", "/v1/embeddings", "openai"),
    ("GET", "/v1/embeddings", "openai"),
    ("POST", "/v1/images/generations", "openai"),
    ("GET", "/v1/images/generations", "openai"),
    ("POST", "/v1/images/edits", "openai"),
    ("POST", "/v1/providers/sim/images/edits", "openai"),
    ("POST", "/v1/audio/transcriptions", "openai"),
    ("POST", "/v1/audio/speech", "openai"),
    ("POST", "/v1beta/models/sim/embed:embedContent", "gemini"),
    ("POST", "/api/embed", "ollama"),
    ("POST", "/v1/providers/sim/chat/completions", "openai"),
    ("POST", "/v1/providers/sim/embeddings", "openai"),
    ("POST", "/v1/providers/sim/images/generations", "openai"),
    ("POST", "/v1/providers/sim/messages", "anthropic"),
    ("POST", "/v1/providers/sim/responses", "responses"),
    # By the other ways that clients build them.
    ("POST", "/api/v1/chat/completions", "openai"),
    ("POST", "/v1/v1/messages", "anthropic"),
    ("POST", "/api/v1beta/models/sim/echo:generateContent", "gemini"),
    ("GET", "/v1/api/tags", "ollama"),
]


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A gateway that wants a key, and its address."""
    from gateway import Gateway

    gateway = Gateway(tmp_path_factory.mktemp("locked"), REQUIRE_API_KEY="true").start()
    yield gateway
    gateway.stop()


def test_without_a_key_lists_say_401_in_the_shape_that_is_read(locked):
    for header, dialect in (("authorization", "openai"), ("x-api-key", "openai"), ("x-goog-api-key", "gemini")):
        answer = httpx.get(f"{locked.url}/v1/models", headers={header: "sk-of-nobody"})
        assert answer.status_code == 401 and complaint(dialect, answer.json())


@pytest.mark.parametrize("method,path,dialect", ROUTES, ids=[f"{method} {path}" for method, path, _ in ROUTES])
def test_without_a_key_every_route_says_401(locked, method, path, dialect):
    for headers in ({}, {"authorization": "Bearer sk-of-nobody"}, {"x-api-key": "sk-of-nobody"}, {"x-goog-api-key": "sk-of-nobody"}):
        answer = httpx.request(method, locked.url + path, headers=headers, content=b"{}" if method == "POST" else None)
        assert answer.status_code == 401, answer.text
        assert complaint(dialect, answer.json())


def test_no_route_wants_a_key_to_say_what_it_allows(locked):
    for _, path, _ in ROUTES:
        asked = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
        answer = httpx.options(locked.url + path, headers=asked)
        assert answer.status_code == 204, f"{path}: {answer.status_code} {answer.text}"


@pytest.mark.parametrize(
    "what,model,ask",
    [
        ("chat/completions", "echo", {"messages": user("hi")}),
        ("embeddings", "embed", {"input": "hi"}),
        ("images/generations", "dall-e-3", {"prompt": "a cat"}),
    ],
)
def test_a_path_that_names_the_provider(plain, what, model, ask):
    path = f"/v1/providers/oa-node/{what}"
    for name in (model, f"oa-node/{model}"):
        answer = plain.post(path, json={"model": name} | ask)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-omniroute-model"] == model
    refused = plain.post(path, json={"model": f"an-node/{model}"} | ask).json()["error"]
    assert refused["code"] == "provider_mismatch" and "oa-node/" in refused["message"], refused
    # What stands before the slash is no provider: it belongs to the model's name, which the simulator does not know.
    foreign = plain.post(path, json={"model": f"Somebody/{model}"} | ask)
    assert foreign.status_code in (400, 404) and foreign.json()["error"]["code"] != "provider_mismatch", foreign.text
    unknown = plain.post(f"/v1/providers/nobody/{what}", json={"model": model} | ask).json()["error"]
    assert unknown["code"] == "unknown_provider"


def test_a_path_that_names_the_provider_in_every_dialect(plain):
    """Conversations of other dialects, and the provider's own list."""
    asked = {
        "messages": {"messages": user("hi"), "max_tokens": 50},
        "responses": {"input": "hi"},
    }
    for what, ask in asked.items():
        path = f"/v1/providers/oa-node/{what}"
        for name in ("echo", "oa-node/echo"):
            answer = plain.post(path, json={"model": name} | ask)
            assert answer.status_code == 200 and answer.headers["x-omniroute-model"] == "echo", answer.text
        assert plain.post(path, json=ask).status_code == 400
        refused = plain.post(path, json={"model": "an-node/echo"} | ask)
        assert refused.status_code == 400 and "oa-node/" in refused.json()["error"]["message"], refused.text
        unknown = plain.post(f"/v1/providers/nobody/{what}", json={"model": "echo"} | ask)
        assert unknown.status_code == 400, unknown.text
    listed = plain.get("/v1/providers/oa-node/models").json()["data"]
    assert listed == plain.get("/v1/models", params={"provider": "oa-node"}).json()["data"]
    assert all(model["id"].startswith("oa-node/") for model in listed)
    for path in ("/v1/providers/nobody/models", "/v1/models?provider=nobody"):
        answer = plain.get(path)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "unknown_provider", answer.text


# A list of models in each shape that there is: how it is asked for, and where the names are.
SHAPES = {
    "openai": ("/v1/models", {}, lambda body: [model["id"] for model in body["data"]]),
    "anthropic": ("/v1/models", {"anthropic-version": "2023-06-01"}, lambda body: [model["id"] for model in body["data"]]),
    "gemini": ("/v1beta/models", {}, lambda body: [model["name"].removeprefix("models/") for model in body["models"]]),
    "ollama": ("/api/tags", {}, lambda body: [model["model"].removesuffix(":latest") for model in body["models"]]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_lists_of_one_kind_in_every_shape(tmp_path_factory, shape):
    from gateway import Gateway

    # Without a provider the whole catalogue is listed.
    gateway = Gateway(tmp_path_factory.mktemp("lists")).start()
    try:
        path, headers, names = SHAPES[shape]

        def ask(**query):
            return httpx.get(gateway.url + path, params={"pageSize": 1000, "limit": 1000} | query, headers=headers)

        kinds = {}
        for kind in ("chat", "embedding", "image", "audio"):
            answer = ask(type=kind)
            assert answer.status_code == 200 and answer.headers["etag"], answer.text
            kinds[kind] = set(names(answer.json()))
            again = httpx.get(str(answer.url), headers=headers | {"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304 and not again.content
        assert "azure/text-embedding-3-large" in kinds["embedding"] and "assemblyai/best" in kinds["audio"]
        assert any("gpt-image" in name for name in kinds["image"])
        assert not any(one & other for kind, one in kinds.items() for name, other in kinds.items() if name != kind)
        wrong = ask(type="poems")
        assert wrong.status_code == 400 and "type" in wrong.text
        own = names(ask(provider="openai", type="embedding").json())
        assert own and all(name.startswith("openai/") for name in own)
    finally:
        gateway.stop()


# Characters of two, three and four bytes, some of several characters.
WIDE = "Grüße 漢字かな交じり文 한국어 👩‍👩‍👧‍👦 🇯🇵 e\u0301 𝒳"


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_characters_cut_anywhere_arrive_whole(plain, dialect, upstream):
    for size in (1, 2, 3, 5, 7):
        answer = send(plain, ask(dialect, f"up-{upstream}/echo-writes-{size}", WIDE, stream=True))
        assert said(dialect, answer) == WIDE, f"{size} bytes at a time"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_client_that_leaves_is_followed_within_a_second(gateway, dialect):
    import time

    upstream = WatchedUpstream(stream_begins=True)
    prefix = gateway.node("openai", upstream.url)
    asked = ask(dialect, f"{prefix}/m", stream=True)
    with httpx.stream("POST", gateway.url + asked.path, json=asked.body, timeout=10) as response:
        text = ""
        for piece in response.iter_text():
            text += piece
            if "so far" in text:
                break
    left = time.monotonic()
    assert upstream.closed.wait(2), "the upstream call goes on"
    assert upstream.closed_at - left < 1.0
    upstream.stop()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_bodies_up_to_fifty_mebibytes(plain, dialect):
    def of_size(size: int) -> tuple[bytes, str]:
        empty = len(json.dumps(ask(dialect, "sim/bench-size-100", "").body))
        asked = ask(dialect, "sim/bench-size-100", "x" * (size - empty))
        return json.dumps(asked.body).encode(), asked.path

    headers = {"content-type": "application/json"}
    body, path = of_size(50 * MIB)
    assert len(body) == 50 * MIB
    answer = plain.post(path, content=body, headers=headers)
    assert answer.status_code == 200, answer.text[:500]
    body, path = of_size(51 * MIB)
    answer = plain.post(path, content=body, headers=headers)
    assert answer.status_code == 413
    assert complaint(dialect, answer.json())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_body_that_swells_is_refused(plain, dialect):
    import gzip

    bomb = gzip.compress(b'{"model":"sim/echo","pad":"' + bytes(200 * MIB) + b'"}', compresslevel=9)
    assert len(bomb) < MIB
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = plain.post(ask(dialect, "sim/echo").path, content=bomb, headers=headers)
    assert answer.status_code == 413 and complaint(dialect, answer.json())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_answers_bear_the_name_that_was_asked_for(gateway, plain, dialect, upstream, stream):
    own = secrets.token_hex(4)
    gateway.call("PUT", "/models/alias", json={"alias": f"alias-{own}", "model": f"up-{upstream}/echo"})
    gateway.call("POST", "/combos", 201, json={"name": f"combo-{own}", "models": [f"up-{upstream}/echo"]})
    for name in (f"up-{upstream}/echo", f"alias-{own}", f"combo-{own}"):
        answer = send(plain, ask(dialect, name, stream=stream))
        assert answer.status_code == 200, answer.text
        if not stream:
            assert model_of(dialect, answer.json()) == name
            continue
        member = "modelVersion" if dialect == "gemini" else "model"
        names = {found for found in models_in(answer.text, member) if found}
        assert names == {name}, names


def models_in(text: str, member: str) -> list[str]:
    """Every value that the member has anywhere in a stream."""

    def walk(value):
        if isinstance(value, dict):
            for name, inner in value.items():
                if name == member and isinstance(inner, str):
                    yield inner
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith(("data:", "{"))]
    return [name for line in lines if line != "[DONE]" for name in walk(json.loads(line))]


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("words", ["echo", "tools-2", "reasoning", "lorem", "echo-error-after-2"])
def test_ollamas_lines(plain, words, upstream):
    asked = ask("ollama", f"up-{upstream}/{words}")
    asked.body["tools"] = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}]
    lines = send(plain, asked).text.split("\n")
    assert lines.pop() == "" and all(lines), "each line ends with one line feed, and none is empty"
    documents = [json.loads(line) for line in lines]
    done = [document.get("done") for document in documents]
    if words == "echo-error-after-2":
        assert "error" in documents[-1] and True not in done
    else:
        assert done == [False] * (len(done) - 1) + [True]
        assert set(documents[-1]) >= {"done_reason", "total_duration", "prompt_eval_count", "eval_count"}
    whole = send(plain, Asked(asked.path, asked.body | {"stream": False, "model": asked.body["model"].replace("-error-after-2", "")}))
    assert "\n" not in whole.text.strip() and whole.json()["done"] is True


@pytest.mark.parametrize("upstream", DIALECTS)
def test_geminis_lists_are_json_however_they_end(gateway, simulator, quick, plain, upstream):
    node = NODES[upstream]
    prefix = gateway.node(node.kind, simulator.url + node.base, **node.fields)
    body = {"contents": [{"parts": [{"text": QUESTION}]}]}
    for words, is_good in (("echo", True), ("echo-error-after-2", False), ("echo-cut-2", False)):
        answer = plain.post(f"/v1beta/models/{prefix}/{words}:streamGenerateContent", json=body)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/json")
        items = answer.json()
        assert isinstance(items, list) and len(items) > 1
        text = "".join(part.get("text", "") for item in items for part in parts(item))
        assert text.startswith("one") and ("error" not in items[-1]) is is_good
        if is_good:
            assert text == QUESTION
    refused = plain.post(f"/v1beta/models/{prefix}/error-400:streamGenerateContent", json=body)
    assert refused.status_code == 400 and refused.json()


def parts(item: dict) -> list[dict]:
    candidates = item.get("candidates") or [{}]
    return candidates[0].get("content", {}).get("parts", [])


def test_idempotency_counts_from_the_end_of_the_answer(gateway, plain):
    import time

    model = f"sim/size-{10_000 + secrets.randbelow(80_000)}"
    headers = {"idempotency-key": secrets.token_hex(8)}
    body = {"model": model, "messages": user("x")}
    ids = []
    for pause in (0, 0, 5.1):
        time.sleep(pause)
        ids.append(plain.post("/v1/chat/completions", headers=headers, json=body).json()["id"])
    assert ids[0] == ids[1] != ids[2], "repeated at once, and asked anew after the window"
    other = plain.post("/v1/chat/completions", headers=headers, json=body | {"messages": user("y")})
    assert other.json()["id"] not in ids, "another body is another request"
