"""Which client is tried on which upstream."""

from dataclasses import dataclass, field

import pytest
from command import CLIENTS, Client


@dataclass
class Node:
    """A dialect as the gateway's user adds it."""

    kind: str
    base: str
    model: str
    fields: dict = field(default_factory=dict)


NODES = {
    "openai": Node("openai", "/v1", "gpt-oss-120b"),
    # Thinking is manual with this one, so that a turn without its thoughts is refused.
    "anthropic": Node("anthropic", "/v1", "claude-sonnet-4-5"),
    "responses": Node("openai", "/v1", "gpt-5.4", {"apiType": "responses"}),
    "gemini": Node("gemini", "/v1beta", "gemini-3-pro-preview"),
}


def prefix(dialect: str) -> str:
    """What stands before the slash in the names of the upstream's models."""
    return f"up-{dialect}"


def model_of(client: Client) -> str:
    """The model that shows most of what a client can do in its own dialect."""
    return "claude-opus-4-8" if client.name == "claude-code" else NODES[client.dialect].model


@dataclass
class Pair:
    client: Client
    dialect: str

    @property
    def bare_model(self) -> str:
        """What the upstream is asked for."""
        return model_of(self.client) if self.client.dialect == self.dialect else NODES[self.dialect].model

    @property
    def model(self) -> str:
        """With the prefix by which the gateway knows the upstream."""
        return f"{prefix(self.dialect)}/{self.bare_model}"

    def parameter(self):
        return pytest.param(self, id=f"{self.client.name}-on-{self.dialect}")


PAIRS = [Pair(client, dialect).parameter() for client in CLIENTS.values() for dialect in NODES]
"""Every client on every upstream, its own kind too: what passes through must pass unharmed."""

SAMPLE = [
    Pair(CLIENTS[name], dialect).parameter()
    for name, dialect in (
        ("claude-code", "openai"),
        ("codex", "anthropic"),
        ("gemini-cli", "openai"),
        ("opencode", "anthropic"),
    )
]
"""Each client once, on a foreign upstream."""
