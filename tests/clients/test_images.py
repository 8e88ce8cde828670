"""Pictures through the OpenAI SDK: from upstreams that refuse what others take."""

import base64
import json

import httpx
import openai
import pytest
from conftest import openai_client
from gateway import Gateway

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """One of its own: accounts at vendors of the catalogue would show up in the lists of other cases."""
    gateway = Gateway(tmp_path_factory.mktemp("gateway")).start()
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def oa(gateway):
    return openai_client(gateway)


@pytest.fixture(scope="module")
def plain(gateway):
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def painters(gateway, simulator):
    gateway.node("openai", f"{simulator.url}/v1", prefix="oa-paint")
    gateway.node("anthropic", f"{simulator.url}/v1", prefix="an-node")
    gateway.node("openai", f"{simulator.url}/retired/v1", prefix="late-paint")
    gateway.node("gemini", f"{simulator.url}/v1beta", prefix="gem-paint")
    for provider in ("xai", "together"):
        data = {"baseUrl": f"{simulator.url}/{provider}/v1", "allowPrivate": True}
        gateway.connection(provider, f"{provider} here", f"key-{provider}", providerSpecificData=data)
    data = {"baseUrl": f"{simulator.url}/retired/v1", "allowPrivate": True}
    # The vendor whose models have successors.
    gateway.connection("openai", "late", "key-openai", providerSpecificData=data)


MODELS = ["oa-paint/dall-e-3", "oa-paint/gpt-image-1.5", "xai/grok-2-image-1212",
          "together/black-forest-labs/FLUX.1-schnell", "gem-paint/gemini-2.5-flash-image"]


@pytest.mark.parametrize("model", MODELS)
def test_pictures_in_both_forms(oa, painters, model):
    answer = oa.images.generate(
        model=model, prompt="a cat", n=2, size="1024x1024", quality="hd" if "dall-e" in model else "high",
        response_format="b64_json",
    )
    assert answer.created > 0 and len(answer.data) == 2
    assert all(base64.b64decode(picture.b64_json).startswith(PNG) and not picture.url for picture in answer.data)
    answer = oa.images.generate(model=model, prompt="a cat", response_format="url")
    [picture] = answer.data
    assert picture.url.startswith(("http://", "data:image/png;base64,")) and not picture.b64_json


def test_usage_and_revised_prompts(oa, painters):
    answer = oa.images.generate(model="oa-paint/gpt-image-1.5", prompt="a cat", size="1024x1536", background="auto")
    assert answer.usage.output_tokens == 1056 and answer.usage.input_tokens_details.text_tokens > 0
    answer = oa.images.generate(model="oa-paint/dall-e-3", prompt="a cat")
    assert answer.data[0].revised_prompt == "A picture of: a cat"
    answer = oa.images.generate(model="gem-paint/gemini-2.5-flash-image", prompt="a cat", size="1024x1792")
    assert answer.data[0].revised_prompt and answer.usage.output_tokens == 1290


def test_a_stream_ends_with_the_picture(oa, painters):
    events = list(oa.images.generate(model="oa-paint/gpt-image-1.5", prompt="a cat", stream=True, partial_images=2))
    assert [event.type for event in events] == ["image_generation.completed"]
    assert base64.b64decode(events[0].b64_json).startswith(PNG) and events[0].usage.output_tokens == 1056


def test_a_retired_model_has_a_successor(oa, painters):
    raw = oa.images.with_raw_response.generate(
        model="openai/dall-e-3", prompt="a cat", size="1792x1024", quality="hd", style="vivid"
    )
    assert raw.parse().data[0].b64_json
    with pytest.raises(openai.NotFoundError):
        oa.images.generate(model="late-paint/dall-e-3", prompt="a cat")


def test_what_is_left_out_is_told_and_strictness_refuses_it(oa, painters):
    raw = oa.images.with_raw_response.generate(model="xai/grok-2-image-1212", prompt="a", size="1024x1024")
    assert raw.headers["x-omniroute-dropped"] == "size"
    with pytest.raises(openai.BadRequestError, match="size"):
        oa.images.generate(
            model="xai/grok-2-image-1212", prompt="a", size="1024x1024", extra_headers={"x-omniroute-strict": "true"}
        )


def test_what_is_wrong_is_said(plain, painters):
    url = "/v1/images/generations"
    for body, says in (
        ({"prompt": "a"}, "model"),
        ({"model": "oa-paint/dall-e-3"}, "prompt"),
        ({"model": "oa-paint/dall-e-3", "prompt": "  "}, "prompt"),
        ({"model": "oa-paint/dall-e-3", "prompt": "a", "n": 11}, "n"),
        ({"model": "nowhere/dall-e-3", "prompt": "a"}, "nowhere"),
        ({"model": "an-node/x", "prompt": "a"}, "images"),
    ):
        answer = plain.post(url, json=body)
        assert answer.status_code == 400 and says in answer.json()["error"]["message"], answer.text
    nothing = plain.post(url, json={"model": "oa-paint/empty", "prompt": "a"})
    assert nothing.status_code == 502, nothing.text
    pinned = plain.post("/v1/providers/xai/images/generations", json={"model": "grok-2-image-1212", "prompt": "a"})
    assert pinned.status_code == 200, pinned.text


def test_the_log_knows_what_was_asked(gateway, oa, painters):
    oa.images.generate(model="oa-paint/gpt-image-1.5", prompt="for the log")
    rows = gateway.call_logs(limit=20)
    assert any("images/generations" in json.dumps(row) for row in rows)
