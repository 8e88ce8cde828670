"""Each client straight at the upstream, in its own dialect: whether the upstream is good enough for it."""

import pytest
from checks import plain_answer, tool_round_trip
from command import CLIENTS
from pairs import model_of

# With a prefix, as behind the gateway: some clients treat the names they know in a way of their own.
MODELS = {client.name: f"any/{model_of(client)}" for client in CLIENTS.values()}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_plain_answer(client, place, upstream):
    plain_answer(client, place, upstream, upstream.url, MODELS[client.name])


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_tool_round_trip(client, place, upstream):
    asked = tool_round_trip(client, place, upstream, upstream.url, MODELS[client.name])
    assert asked[1].ask.signatures == int(asked[0].signed)
