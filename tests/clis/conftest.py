"""Fixtures: one upstream that plays its script in all dialects, one gateway in front of it, a home for each run."""

import pytest
from command import Place, Trap
from gateway import Gateway, binary
from pairs import NODES, prefix
from upstream import Upstream


def pytest_sessionstart(session):
    """Says at once, and once, that there is nothing to test."""
    binary()


@pytest.fixture(scope="session")
def script():
    """The upstream; each case begins with an empty memory of what was asked."""
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture
def upstream(script):
    script.forget()
    return script


@pytest.fixture(scope="session")
def gateway(tmp_path_factory, script):
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    try:
        gateway.start()
        for dialect, node in NODES.items():
            gateway.node(node.kind, script.url + node.base, prefix=prefix(dialect), **node.fields)
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture
def place(tmp_path):
    """Where a client runs, with one file to read. Fails the case when the client wanted to call another machine."""
    trap = Trap()
    place = Place(tmp_path / "home", tmp_path / "work", trap)
    place.home.mkdir()
    place.work.mkdir()
    yield place
    trap.stop()
    assert trap.wanted == [], "the client wanted to leave this machine"
