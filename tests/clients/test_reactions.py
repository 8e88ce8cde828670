"""Odd bytes in streams: how the SDKs react to them, and that the gateway sends none that hurt."""

import pytest
from odd_streams import Server
from reactions import ROWS
from sdk.node import Process
from stream_readers import READERS, observe

rows = pytest.mark.parametrize("row", ROWS, ids=[row.model for row in ROWS])


@pytest.fixture(scope="module")
def server():
    names = [row.model for row in ROWS]
    assert len(set(names)) == len(names), "two rows have one name"
    server = Server({row.model: (row.dialect, row.sent) for row in ROWS})
    yield server
    server.stop()


@rows
def test_python(server, row):
    assert observe(READERS[row.dialect, row.way], server.url, row.model) == row.python


@rows
def test_node(server, libraries, row):
    kind = f"{row.dialect}-{row.way}"
    node = Process.of("reactions")
    assert node.call(kind=kind, operation="observe", settings={"url": server.url}, model=row.model) == row.node
