"""Vectors for texts: official libraries against upstreams of each form."""

import math

import httpx
import ollama
import openai
import pytest
from conftest import openai_client
from gateway import until
from google import genai
from google.genai import types

# The nodes of the gateway under test, one for each form in which embeddings are asked for.
UPSTREAMS = ["sim", "up-openai", "up-gemini", "up-ollama"]
TEXTS = ["how is the weather today", "how is the weather now", "invoices are due in March"]


def near(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def check(vectors, length: int):
    assert [len(vector) for vector in vectors] == [length] * 3
    assert near(vectors[0], vectors[1]) > near(vectors[0], vectors[2])


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_openai(gateway, upstream):
    client = openai_client(gateway)
    name = f"{upstream}/embed-dims-64"
    # The library asks for base64 without saying so.
    packed = client.embeddings.create(model=name, input=TEXTS)
    check([entry.embedding for entry in packed.data], 64)
    plain = client.embeddings.create(model=name, input=TEXTS, encoding_format="float")
    assert [entry.index for entry in plain.data] == [0, 1, 2]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert packed.model == plain.model == name
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0
    short = client.embeddings.create(model=name, input="one", dimensions=16)
    assert len(short.data[0].embedding) == 16


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_google(gateway, upstream):
    client = genai.Client(api_key="sk-any", http_options=types.HttpOptions(base_url=gateway.url))
    answer = client.models.embed_content(model=f"{upstream}/embed-dims-64", contents=TEXTS)
    check([embedding.values for embedding in answer.embeddings], 64)
    config = types.EmbedContentConfig(output_dimensionality=16)
    one = client.models.embed_content(model=f"{upstream}/embed", contents="one", config=config)
    assert len(one.embeddings[0].values) == 16


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_ollama(gateway, upstream):
    client = ollama.Client(host=gateway.url)
    answer = client.embed(model=f"{upstream}/embed-dims-64", input=TEXTS)
    check(answer.embeddings, 64)
    assert answer.model == f"{upstream}/embed-dims-64"
    old = client.embeddings(model=f"{upstream}/embed", prompt="one")
    assert len(old.embedding) == 8


def test_tokens_in_the_place_of_texts(gateway):
    client = openai_client(gateway)
    answer = client.embeddings.create(model="up-openai/embed", input=[[1, 2, 3], [4]])
    assert len(answer.data) == 2
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="up-ollama/embed", input=[[1, 2, 3]])
    assert (caught.value.code, caught.value.param) == ("unsupported_content", "input")


def test_more_texts_than_an_upstream_takes(gateway):
    texts = [f"text {number}" for number in range(250)]
    client = openai_client(gateway)
    many = client.embeddings.create(model="up-gemini/embed", input=texts, encoding_format="float")
    alone = client.embeddings.create(model="up-gemini/embed", input=texts[201], encoding_format="float")
    assert len(many.data) == 250
    assert many.data[201].embedding == alone.data[0].embedding


def test_mistakes_and_failures_have_their_exceptions(gateway):
    client = openai_client(gateway, max_retries=0)
    for model, input, error in [
        ("sim/embed", "", openai.BadRequestError),
        ("sim/embed", [], openai.BadRequestError),
        ("nobody/embed", "a", openai.BadRequestError),
        ("up-anthropic/embed", "a", openai.BadRequestError),
        ("up-openai/embed-error-429", "a", openai.RateLimitError),
        ("up-openai/embed-error-500", "a", openai.InternalServerError),
        ("up-openai/embed-garbage", "a", openai.InternalServerError),
    ]:
        with pytest.raises(error):
            client.embeddings.create(model=model, input=input)
    with pytest.raises(ollama.ResponseError) as caught:
        ollama.Client(host=gateway.url).embed(model="up-anthropic/embed", input="a")
    assert caught.value.status_code == 400 and "no embeddings" in caught.value.error
    google = genai.Client(api_key="sk-any", http_options=types.HttpOptions(base_url=gateway.url))
    with pytest.raises(genai.errors.ClientError) as caught:
        google.models.embed_content(model="up-anthropic/embed", contents="a")
    assert caught.value.status == "INVALID_ARGUMENT"


def test_a_route_that_names_the_provider(gateway):
    def post(provider, model):
        body = {"model": model, "input": "a"}
        return httpx.post(f"{gateway.url}/v1/providers/{provider}/embeddings", json=body)

    assert post("up-openai", "embed").status_code == 200
    assert post("up-openai", "up-openai/embed").json()["model"] == "up-openai/embed"
    for provider, model, code in [
        ("up-openai", "up-gemini/embed", "provider_mismatch"),
        ("nobody", "embed", "unknown_provider"),
        ("up-anthropic", "embed", "unsupported_operation"),
    ]:
        answer = post(provider, model)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_requests_are_logged_and_repeated(gateway):
    client = openai_client(gateway, default_headers={"idempotency-key": "embeddings-once"})
    name = "up-openai/embed-dims-7"
    first = client.embeddings.with_raw_response.create(model=name, input="a")
    second = client.embeddings.with_raw_response.create(model=name, input="a")
    assert second.headers["x-omniroute-idempotent"] == "true"
    assert first.text == second.text
    rows = until(lambda: len(found := gateway.call_logs(model=name)) == 2 and found, "both requests are logged")
    assert {row["requestType"] for row in rows} == {"embedding"}
    assert {row["tokens"]["in"] for row in rows if row["attempts"]} == {1}


def test_the_list_of_embedding_models(gateway):
    listed = httpx.get(f"{gateway.url}/v1/embeddings").json()["data"]
    assert listed == httpx.get(f"{gateway.url}/v1/models?type=embedding").json()["data"]
    assert all(entry["type"] == "embedding" for entry in listed)
    assert httpx.get(f"{gateway.url}/v1/models?type=nonsense").status_code == 400

