"""Which client is tried on which upstream."""

from dataclasses import dataclass, field

import pytest
from command import CLIENTS, Client

# Dialects that the gateway does not speak yet. `test_waiting` fails as soon as it does, so that nothing stays skipped.
WAITING: set[str] = {"responses", "gemini"}


@dataclass
class Node:
    """A dialect as the gateway's user adds it."""

    kind: str
    base: str
    model: str
    fields: dict = field(default_factory=dict)


NODES = {
    "openai": Node("openai", "/v1", "gpt-5.4"),
    # Thinking is manual with this one, so that a turn without its thoughts is refused.
    "anthropic": Node("anthropic", "/v1", "claude-sonnet-4-5"),
    "responses": Node("openai", "/v1", "gpt-5.4", {"apiType": "responses"}),
    "gemini": Node("gemini", "/v1beta", "gemini-3-pro-preview"),
}


@dataclass
class Pair:
    client: Client
    dialect: str

    @property
    def model(self) -> str:
        """With the prefix by which the gateway knows the upstream."""
        return f"{self.dialect}/{NODES[self.dialect].model}"

    def parameter(self):
        waits = sorted({self.client.dialect, self.dialect} & WAITING)
        marks = [pytest.mark.skip(reason=f"the gateway does not speak {' and '.join(waits)} yet")] if waits else []
        return pytest.param(self, id=f"{self.client.name}-on-{self.dialect}", marks=marks)


PAIRS = [Pair(client, dialect).parameter() for client in CLIENTS.values() for dialect in NODES]
"""Every client on every upstream, its own kind too: what passes through must pass unharmed."""

FOREIGN = [pair for pair in PAIRS if pair.values[0].client.dialect != pair.values[0].dialect]
