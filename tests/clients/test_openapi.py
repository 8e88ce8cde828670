"""The document that describes the routes, as programs read it that make clients or check requests."""

import httpx
from openapi_spec_validator import validate


def test_the_document_keeps_to_its_standard(gateway):
    document = httpx.get(f"{gateway.url}/api/openapi.json").raise_for_status().json()
    validate(document)
    assert {"/v1/chat/completions", "/v1beta/models/{model}:generateContent", "/api/tags", "/api/combos"} <= set(
        document["paths"]
    )
