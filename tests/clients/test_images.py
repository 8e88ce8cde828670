"""Pictures through the OpenAI SDK: from upstreams that refuse what others take."""

import base64
import json
import time

import httpx
import openai
import pytest
from conftest import openai_client
from gateway import Gateway, until

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


def test_pictures_can_be_watched(oa, painters):
    """As the upstream paints them: the first event is there long before the last."""
    began, seen = time.monotonic(), []
    for event in oa.images.generate(
        model="oa-paint/gpt-image-1.5,slow-300ms", prompt="a cat", stream=True, partial_images=2
    ):
        seen.append((time.monotonic() - began, event))
    assert [event.type.removeprefix("image_generation.") for _, event in seen] == [
        "partial_image", "partial_image", "completed",
    ]
    assert seen[2][0] - seen[0][0] > 0.4
    assert [event.partial_image_index for _, event in seen[:2]] == [0, 1]
    assert all(base64.b64decode(event.b64_json).startswith(PNG) for _, event in seen)
    assert seen[2][1].usage.output_tokens == 1056


def test_who_cannot_be_watched_ends_with_the_picture(oa, painters):
    for model in ("oa-paint/dall-e-3", "gem-paint/gemini-2.5-flash-image"):
        events = list(oa.images.generate(model=model, prompt="a cat", stream=True, partial_images=2))
        assert [event.type for event in events] == ["image_generation.completed"]
        assert base64.b64decode(events[0].b64_json).startswith(PNG)


def test_a_stream_that_breaks_is_told_as_one(oa, painters):
    for words in ("error-after-1", "end-1"):
        stream = oa.images.generate(
            model=f"oa-paint/gpt-image-1.5,{words}", prompt="a cat", stream=True, partial_images=2
        )
        assert next(stream).type == "image_generation.partial_image"
        with pytest.raises(openai.APIError):
            list(stream)


def test_a_client_that_stops_watching_is_logged_as_gone(gateway, oa, painters):
    stream = oa.images.generate(
        model="oa-paint/gpt-image-1.5,stall-1", prompt="who leaves", stream=True, partial_images=1
    )
    assert next(stream).type == "image_generation.partial_image"
    stream.close()

    def is_gone():
        rows = gateway.call_logs(limit=20)
        return any(row["status"] == 499 and row["path"] == "/v1/images/generations" for row in rows)

    until(is_gone, "the log says that the client went away", 5)


CHANGERS = ["oa-paint/gpt-image-1.5", "xai/grok-2-image-1212", "gem-paint/gemini-2.5-flash-image"]


def told(pictures):
    """What the simulator says of pictures that all arrived."""
    return f"{len(pictures)} pictures of {sum(len(picture) for picture in pictures)} bytes"


@pytest.mark.parametrize("model", CHANGERS)
def test_pictures_are_changed(oa, painters, model):
    cat, hat = PNG + bytes(5000), PNG + bytes(range(256)) * 30
    answer = oa.images.edit(model=model, image=("cat.png", cat, "image/png"), prompt="with a hat")
    assert told([cat]) in answer.data[0].revised_prompt
    answer = oa.images.edit(
        model=model, image=[("cat.png", cat), ("hat.png", hat)], mask=("mask.png", PNG), prompt="with that hat",
        response_format="b64_json",
    )
    assert told([cat, hat]) in answer.data[0].revised_prompt
    assert base64.b64decode(answer.data[0].b64_json).startswith(PNG)
    if not model.startswith("gem"):
        assert "with a mask" in answer.data[0].revised_prompt


def test_a_large_picture_reaches_the_second_account(gateway, simulator):
    prefix = gateway.node("openai", f"{simulator.url}/v1", keys=["sk-limited-e", "sk-good-e"])
    cat = PNG + bytes(range(256)) * 40_000
    raw = openai_client(gateway).images.with_raw_response.edit(
        model=f"{prefix}/gpt-image-1.5", image=("cat.png", cat), mask=("mask.png", PNG), prompt="a hat"
    )
    assert raw.headers["x-omniroute-attempts"] == "2"
    assert told([cat]) in raw.parse().data[0].revised_prompt


def test_changes_can_be_watched(oa, painters):
    events = list(oa.images.edit(
        model="oa-paint/gpt-image-1.5", image=("cat.png", PNG), prompt="a hat", stream=True, partial_images=1
    ))
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert events[1].usage.input_tokens_details.image_tokens > 0


def test_changes_as_a_document(plain, painters):
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    body = {"prompt": "a hat", "images": [{"image_url": data}]}
    for model in CHANGERS:
        answer = plain.post("/v1/images/edits", json=body | {"model": model})
        assert answer.status_code == 200 and told([PNG]) in answer.json()["data"][0]["revised_prompt"], answer.text
    pinned = plain.post("/v1/providers/xai/images/edits", json=body | {"model": "grok-2-image-1212"})
    assert pinned.status_code == 200, pinned.text
    elsewhere = plain.post("/v1/providers/xai/images/edits", json=body | {"model": "gem-paint/x"})
    assert elsewhere.status_code == 400 and elsewhere.json()["error"]["code"] == "provider_mismatch"


def test_what_is_wrong_with_changes_is_said(plain, painters):
    cat = ("cat.png", PNG, "image/png")
    form = {"model": "oa-paint/gpt-image-1.5", "prompt": "a"}
    for arguments, says in (
        (dict(data=form, files={"x": ("y", b"")}), "`image`"),
        (dict(data={"prompt": "a"}, files={"image": cat}), "model"),
        (dict(data={"model": "oa-paint/gpt-image-1.5"}, files={"image": cat}), "prompt"),
        (dict(data=form | {"n": "two"}, files={"image": cat}), "`n`"),
        (dict(data=form, files={"image": ("cat.png", b"hello", "text/plain")}), "unsupported_content"),
        (dict(data=form, files={"image": ("cat.png", b"", "image/png")}), "unsupported_content"),
        (dict(data=form, files=[("image[]", cat)] * 17), "16"),
        (dict(data=form, files=[("image", cat), ("mask", cat), ("mask", cat)]), "more than once"),
        (dict(data=form | {"model": "together/flux"}, files={"image": cat}), "unsupported_operation"),
        (dict(data=form | {"model": "oa-paint/dall-e-3"}, files={"image": cat}), "dall-e-3"),
        (dict(json=form), "images"),
        (dict(content=b"--B", headers={"content-type": "multipart/form-data; boundary=B"}), "form"),
    ):
        answer = plain.post("/v1/images/edits", **arguments)
        assert answer.status_code == 400 and says in answer.text, answer.text
    gone = plain.post("/v1/images/variations", files={"image": cat})
    assert gone.status_code == 404 and "/v1/images/edits" in gone.json()["error"]["message"], gone.text


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
