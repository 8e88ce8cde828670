"""Lists of models and counts of tokens, in the shape of each vendor."""

import pytest
from matrix import pairs
from sdk import CLIENTS

LISTING = [name for name, client in CLIENTS.items() if client.lists]
COUNTING = [name for name, client in CLIENTS.items() if client.counts]


@pytest.mark.parametrize("place", pairs(LISTING), indirect=True)
def test_models(place, gateway):
    if place.prefix:
        known = gateway.call("GET", "/provider-models", params={"provider": f"up-{place.upstream}"})
        if "lorem" not in str(known):
            gateway.call("POST", "/provider-models", json={"provider": f"up-{place.upstream}", "modelId": "lorem"})
    name = f"{place.prefix}lorem"
    listed = [model.removesuffix(":latest") for model in place.client.models()]
    assert name in listed
    assert len(set(listed)) == len(listed)
    assert place.client.model(name) == name


@pytest.mark.parametrize("place", pairs(COUNTING), indirect=True)
def test_tokens_are_counted(place):
    short, long = (place.client.count(place.model("echo"), "word " * words) for words in (2, 200))
    assert 1 <= short <= 20
    assert 150 <= long <= 350
