"""Which client library is tried on which upstream."""

from dataclasses import dataclass, field

import pytest
from sdk import CLIENTS, Client


@dataclass
class Node:
    """A dialect as the gateway's user adds it."""

    kind: str
    base: str
    fields: dict = field(default_factory=dict)


NODES = {
    "openai": Node("openai", "/v1"),
    "responses": Node("openai", "/v1", {"apiType": "responses"}),
    "anthropic": Node("anthropic", "/v1"),
    "gemini": Node("gemini", "/v1beta"),
    "ollama": Node("ollama", ""),
}


@dataclass
class Place:
    """A library, and where its questions end up: at an upstream behind the gateway, or at the simulator without one."""

    client: Client
    upstream: str
    # What stands before the names of the simulator's models.
    prefix: str

    def model(self, words: str) -> str:
        """With words that make the upstream as hard to please as it can be."""
        if self.prefix and self.upstream in ("gemini", "ollama") and self.upstream != self.client.dialect:
            words += "-strict"
        return self.prefix + words

    def can(self, what: str) -> bool:
        return what not in self.client.cannot


def pairs(clients=CLIENTS):
    """Every library on every upstream, and alone with the simulator, which shows that both are good enough."""
    return [parameter(name, upstream) for name in clients for upstream in (None, *NODES)]


def parameter(name: str, upstream: str | None):
    if not upstream:
        return pytest.param((name, None), id=f"{name}-alone")
    return pytest.param((name, upstream), id=f"{name}-on-{upstream}")


def clients():
    """Every library that the gateway can answer."""
    return [pytest.param(name, id=name) for name in CLIENTS]
