"""Failures arrive as the exception that each SDK has for them."""

import time

import anthropic
import openai
import pytest
from conftest import anthropic_client, openai_client
from sample import user

DIALECTS = ("openai", "anthropic")


@pytest.fixture(params=DIALECTS)
def fresh(request, gateway, simulator):
    """A node nobody else's failures have put on cooldown; a new one per case."""
    return gateway.node(request.param, f"{simulator.url}/v1")


def openai_error(client, **ask) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**({"messages": user("hi")} | ask))
    return caught.value


def anthropic_error(client, **ask) -> anthropic.APIStatusError:
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**({"messages": user("hi"), "max_tokens": 9} | ask))
    return caught.value


# Upstream's behaviour; the status and the class for an OpenAI client; the same for an Anthropic client.
FAILURES = [
    ("error-400", 400, openai.BadRequestError, 400, anthropic.BadRequestError),
    ("error-401", 502, openai.InternalServerError, 502, anthropic.InternalServerError),
    ("error-404", 404, openai.NotFoundError, 404, anthropic.NotFoundError),
    ("error-429-retry-50s", 429, openai.RateLimitError, 429, anthropic.RateLimitError),
    ("error-500", 500, openai.InternalServerError, 500, anthropic.InternalServerError),
    ("error-502", 502, openai.InternalServerError, 502, anthropic.InternalServerError),
    ("error-503", 503, openai.InternalServerError, 503, anthropic.ServiceUnavailableError),
    ("error-in-200", None, openai.APIStatusError, None, anthropic.APIStatusError),
    ("html", 502, openai.InternalServerError, 502, anthropic.InternalServerError),
    ("garbage", 502, openai.InternalServerError, 502, anthropic.InternalServerError),
    ("blank", 502, openai.InternalServerError, 502, anthropic.InternalServerError),
    ("empty", 502, openai.InternalServerError, 502, anthropic.InternalServerError),
    ("cut-1", 502, openai.InternalServerError, 502, anthropic.InternalServerError),
]


@pytest.mark.parametrize("behaviour,status,kind,_status,_kind", FAILURES, ids=[row[0] for row in FAILURES])
def test_upstream_failures_for_openai(oa, quick, fresh, behaviour, status, kind, _status, _kind):
    error = openai_error(oa, model=f"{fresh}/{behaviour}")
    assert isinstance(error, kind), repr(error)
    assert status is None or error.status_code == status, repr(error)
    assert set(error.response.json()["error"]) >= {"message", "type", "param", "code"}
    assert fresh in error.message, "the message names where it happened"
    assert error.response.headers["x-request-id"]


@pytest.mark.parametrize("behaviour,_status,_kind,status,kind", FAILURES, ids=[row[0] for row in FAILURES])
def test_upstream_failures_for_anthropic(an, quick, fresh, behaviour, _status, _kind, status, kind):
    error = anthropic_error(an, model=f"{fresh}/{behaviour}")
    assert isinstance(error, kind), repr(error)
    assert status is None or error.status_code == status, repr(error)
    body = error.response.json()
    assert body["type"] == "error" and set(body["error"]) >= {"type", "message"} and body["request_id"]


def test_overload_keeps_its_status_for_anthropic(an, oa, quick, gateway, simulator):
    prefix = gateway.node("anthropic", f"{simulator.url}/v1")
    assert anthropic_error(an, model=f"{prefix}/error-529").status_code == 529
    prefix = gateway.node("anthropic", f"{simulator.url}/v1")
    assert openai_error(oa, model=f"{prefix}/error-529").status_code == 503


def test_context_length_has_its_code(oa, an, fresh):
    long = user("word " * 500)
    error = openai_error(oa, model=f"{fresh}/window-10", messages=long)
    assert (error.status_code, error.code) == (400, "context_length_exceeded")
    error = anthropic_error(an, model=f"{fresh}/window-10", messages=long)
    assert error.status_code == 400
    assert error.response.json()["error"]["message"].startswith("prompt is too long")


def test_bad_requests_are_named(oa, an, plain):
    error = openai_error(oa, model="sim/echo", messages=[])
    assert isinstance(error, openai.BadRequestError) and error.param == "messages", repr(error)
    assert error.response.headers.get("x-should-retry") == "false"
    error = openai_error(oa, model="")
    assert isinstance(error, openai.BadRequestError) and error.param == "model"
    with pytest.raises(anthropic.BadRequestError):
        an.messages.create(model="sim/echo", messages=[], max_tokens=9)
    broken = plain.post("/v1/chat/completions", content=b'{"model":', headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_json")
    broken = plain.post("/v1/messages", json={"model": "sim/echo", "messages": user("hi")})
    assert broken.status_code == 400 and "max_tokens" in broken.json()["error"]["message"]


def test_unknown_models_and_providers(oa, an):
    error = openai_error(oa, model="no-such-model-anywhere")
    assert isinstance(error, openai.NotFoundError) and error.code == "model_not_found"
    assert isinstance(anthropic_error(an, model="no-such-model-anywhere"), anthropic.NotFoundError)
    error = openai_error(oa, model="no-such-provider/m")
    assert isinstance(error, openai.BadRequestError) and error.code == "unknown_provider"
    error = openai_error(oa, model="openai/gpt-4o")
    assert isinstance(error, openai.BadRequestError) and error.code == "no_credentials"


def test_provider_route_refuses_other_providers(gateway):
    client = openai_client(gateway).with_options(base_url=f"{gateway.url}/v1/providers/oa-node")
    error = openai_error(client, model="an-node/echo")
    assert (error.status_code, error.code) == (400, "provider_mismatch")
    client = openai_client(gateway).with_options(base_url=f"{gateway.url}/v1/providers/nobody")
    assert openai_error(client, model="echo").code == "unknown_provider"


def test_unknown_paths(plain):
    answer = plain.get("/v1/nothing-here")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
    answer = plain.get("/v1/chat/completions")
    assert answer.status_code == 405 and "POST" in answer.headers["allow"]


def test_retry_after_is_told_and_obeyed(gateway, quick, simulator):
    prefix = gateway.node("openai", f"{simulator.url}/v1")
    error = openai_error(openai_client(gateway), model=f"{prefix}/error-429-retry-50s")
    assert 45 <= int(error.response.headers["retry-after"]) <= 60
    assert int(error.response.headers["retry-after-ms"]) > 40_000
    # The SDK waits as long as it was told, and the second try is served.
    prefix = gateway.node("openai", f"{simulator.url}/v1")
    began = time.monotonic()
    answer = openai_client(gateway, max_retries=2).chat.completions.create(
        model=f"{prefix}/echo-fail-first-1-error-429-retry-1s", messages=user("at last")
    )
    assert answer.choices[0].message.content == "at last"
    assert 0.9 < time.monotonic() - began < 10


def test_a_short_cooldown_is_waited_for(gateway, simulator):
    prefix = gateway.node("openai", f"{simulator.url}/v1")
    raw = openai_client(gateway).chat.completions.with_raw_response.create(
        model=f"{prefix}/echo-fail-first-1-error-429-retry-1s", messages=user("patience")
    )
    assert raw.headers["x-omniroute-attempts"] == "2"


@pytest.mark.parametrize("behaviour", ["echo-error-after-2", "echo-cut-2", "echo-malformed-3"])
def test_errors_within_a_stream(oa, an, gateway, simulator, behaviour):
    text = "one two three four five six"
    for dialect in DIALECTS:
        prefix = gateway.node(dialect, f"{simulator.url}/v1")
        seen = []
        with pytest.raises(openai.APIError):
            for chunk in oa.chat.completions.create(model=f"{prefix}/{behaviour}", messages=user(text), stream=True):
                seen += [choice.delta.content or "" for choice in chunk.choices]
        assert "".join(seen).startswith("one"), "what came before the error is delivered"
        prefix = gateway.node(dialect, f"{simulator.url}/v1")
        seen = []
        with pytest.raises(anthropic.APIError):
            with an.messages.stream(model=f"{prefix}/{behaviour}", messages=user(text), max_tokens=99) as stream:
                for piece in stream.text_stream:
                    seen.append(piece)
        assert "".join(seen).startswith("one")


def test_an_error_as_the_first_event_is_a_status(oa, an, quick, gateway, simulator):
    for dialect in DIALECTS:
        prefix = gateway.node(dialect, f"{simulator.url}/v1")
        assert openai_error(oa, model=f"{prefix}/error-first-event", stream=True).status_code >= 500
        prefix = gateway.node(dialect, f"{simulator.url}/v1")
        assert anthropic_error(an, model=f"{prefix}/error-first-event", stream=True).status_code >= 500


def test_keys_are_checked_when_they_are_needed(own_gateway):
    gateway = own_gateway(REQUIRE_API_KEY="true")
    good, _ = gateway.key()
    ask = {"model": "sim/echo"}
    error = openai_error(openai_client(gateway, "sk-wrong"), **ask)
    assert isinstance(error, openai.AuthenticationError) and error.code == "invalid_api_key"
    assert isinstance(anthropic_error(anthropic_client(gateway, "sk-wrong"), **ask), anthropic.AuthenticationError)
    with pytest.raises(openai.AuthenticationError):
        openai_client(gateway, "sk-wrong").models.list()
    answer = openai_client(gateway, good).chat.completions.create(**ask, messages=user("in"))
    assert answer.choices[0].message.content == "in"
    assert openai_client(gateway, good).models.list().data
    both = anthropic_client(gateway, "sk-wrong", default_headers={"authorization": f"Bearer {good}"})
    assert both.messages.create(**ask, messages=user("in"), max_tokens=9).content[0].text == "in"
