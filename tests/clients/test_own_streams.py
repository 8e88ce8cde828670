"""The gateway sends nothing that `reactions.py` shows to hurt, also while it keeps silent streams alive."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from forms import FORMS
from reactions import ROWS
from sample import OPENAI_TOOLS, user

CHECKED = [row for row in ROWS if row.dialect in FORMS]
MODELS = ("lorem-chunks-5", "reasoning", "tools-2-fragments-3", "tools-interleaved", "empty", "usage-every", "crlf-comments-multiline",
          "error-after-2", "cut-2")
# Longer than the 15 s after which a silent stream is kept alive.
SILENT = ("echo-delay-16s", "chunks-2-slow-16s")
ALIVE = {"openai": b": keep-alive\n\n", "anthropic": b"event: ping\n", "gemini": b'data: {"responseId":""', "gemini-list": b"\n",
         "ollama": b'"content":""'}


@pytest.mark.parametrize("row", CHECKED, ids=[row.model for row in CHECKED])
def test_the_checks_know_what_hurts(row):
    if row.is_ours:
        FORMS[row.dialect](row.sent)
    else:
        with pytest.raises((AssertionError, ValueError, KeyError)):
            FORMS[row.dialect](row.sent)


def ask(url: str, form: str, model: str) -> bytes:
    functions = [tool["function"] for tool in OPENAI_TOOLS]
    path, body = {
        "openai": ("/v1/chat/completions", {"messages": user("a b"), "tools": OPENAI_TOOLS}),
        "anthropic": ("/v1/messages", {"messages": user("a b"), "max_tokens": 500, "tools": [
            {"name": each["name"], "input_schema": each["parameters"]} for each in functions]}),
        "ollama": ("/api/chat", {"messages": user("a b"), "tools": OPENAI_TOOLS}),
    }.get(form, (f"/v1beta/models/{model}:streamGenerateContent" + ("?alt=sse" if form == "gemini" else ""), {
        "contents": [{"role": "user", "parts": [{"text": "a b"}]}], "tools": [{"functionDeclarations": [
            {"name": each["name"], "parametersJsonSchema": each["parameters"]} for each in functions]}]}))
    if not form.startswith("gemini"):
        body |= {"model": model, "stream": True}
    answer = httpx.post(url + path, json=body, timeout=50)
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.fixture(scope="module", autouse=True)
def silent(gateway):
    """Asked for first and looked at last."""
    with ThreadPoolExecutor(10) as pool:
        yield {(form, model): pool.submit(ask, gateway.url, form, f"sim/{model}") for form in FORMS for model in SILENT}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", MODELS)
def test_streams(gateway, simulator, form, model):
    for kind in ("openai", "anthropic"):
        base = gateway.node(kind, f"{simulator.url}/v1")
        if model == "tools-interleaved" and kind != "openai":
            continue
        FORMS[form](ask(gateway.url, form, f"{base}/{model}"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", SILENT)
def test_silent_streams(silent, form, model):
    sent = silent[form, model].result(50)
    assert ALIVE[form] in sent
    FORMS[form](sent)
