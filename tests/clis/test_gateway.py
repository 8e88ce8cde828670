"""Each client through the gateway, on upstreams of its own dialect and of all others."""

import pytest
from checks import new_word, plain_answer, tool_round_trip
from command import CLIENTS
from pairs import PAIRS, SAMPLE, prefix


@pytest.mark.parametrize("pair", PAIRS)
def test_plain_answer(pair, place, upstream, gateway):
    [asked] = plain_answer(pair.client, place, upstream, gateway.url, pair.model)
    check_upstream(pair, upstream)
    assert asked.ask.model == pair.bare_model


@pytest.mark.parametrize("pair", PAIRS)
def test_tool_round_trip(pair, place, upstream, gateway):
    asked = tool_round_trip(pair.client, place, upstream, gateway.url, pair.model)
    check_upstream(pair, upstream)
    if pair.client.keeps_signatures:
        assert asked[1].ask.signatures == int(asked[0].signed), "what the upstream signed did not come back"


@pytest.mark.parametrize("pair", SAMPLE)
def test_the_upstreams_words_of_refusal_are_shown(pair, place, upstream, gateway):
    word = new_word()
    answer = pair.client.ask_in_vain(place, gateway.url, pair.model, f"Answer with the error {word}.")
    assert word in answer.transcript.replace("\n", ""), answer.transcript


@pytest.mark.parametrize("name", ["claude-code", "opencode"])
def test_reasoning_models_of_openai(name, place, upstream, gateway):
    """They only know `max_completion_tokens`. The gateway learns it from the first refusal, which no client sees."""
    model = f"{prefix('openai')}/gpt-5.4"
    word = new_word()
    answer = CLIENTS[name].ask(place, gateway.url, model, f"Answer with the word {word}.")
    assert answer.status == 0 and word in answer.text, answer.transcript
    upstream.forget()
    plain_answer(CLIENTS[name], place, upstream, gateway.url, model)


def check_upstream(pair, upstream):
    assert {received.dialect for received in upstream.received} == {pair.dialect}
    assert upstream.strays == []
    if pair.dialect != pair.client.dialect:
        for received in upstream.received:
            foreign = sorted(set(OWN_WORDS[pair.client.dialect]) & members(received.body))
            assert foreign == [], f"these belong to {pair.client.dialect} and reached {pair.dialect}"


# Members that exist in one dialect alone.
OWN_WORDS = {
    "anthropic": ["cache_control", "context_management", "output_config", "input_schema", "budget_tokens"],
    "responses": ["client_metadata", "encrypted_content", "include"],
    "gemini": ["parametersJsonSchema", "functionDeclarations", "thoughtSignature", "generationConfig"],
    "openai": ["reasoning_content", "tool_calls", "reasoning_effort"],
}


def members(value) -> set[str]:
    """The names of all members, but not those of tools' arguments and schemas."""
    if isinstance(value, list):
        return set().union(*(members(inner) for inner in value)) if value else set()
    if not isinstance(value, dict):
        return set()
    data = ("parameters", "input_schema", "parametersJsonSchema", "arguments", "args", "input")
    inner = (members(inner) for name, inner in value.items() if name not in data or isinstance(inner, list))
    return set(value).union(*inner)
