"""Fixtures: one simulator and one gateway for most cases, one of its own where a case changes settings or dies."""

import anthropic
import httpx
import openai
import pytest

from gateway import Gateway, Simulator
from matrix import NODES, Place, pairs
from sdk import CLIENTS, Process

# Where a request ends up: inside the gateway, or at a real HTTP upstream of either dialect.
UPSTREAMS = ("sim", "oa-node", "an-node")


@pytest.fixture(scope="session")
def simulator():
    simulator = Simulator()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory, simulator):
    gateway = Gateway(tmp_path_factory.mktemp("gateway")).start()
    gateway.node("openai", f"{simulator.url}/v1", prefix="oa-node")
    gateway.node("anthropic", f"{simulator.url}/v1", prefix="an-node")
    for dialect, node in NODES.items():
        gateway.node(node.kind, simulator.url + node.base, prefix=f"up-{dialect}", **node.fields)
    yield gateway
    gateway.stop()


@pytest.fixture
def own_gateway(tmp_path):
    """Starts gateways that belong to one case."""
    started = []

    def start(**environment: str) -> Gateway:
        folder = tmp_path / f"gateway-{len(started)}"
        folder.mkdir()
        gateway = Gateway(folder, **environment)
        started.append(gateway)
        return gateway.start()

    yield start
    for gateway in started:
        gateway.stop()


@pytest.fixture(params=UPSTREAMS)
def upstream(request):
    """The prefix of a model's name."""
    return request.param


@pytest.fixture(scope="session")
def libraries():
    """Makes client libraries; each once for an address and a key."""
    made = {}

    def make(name: str, *where: str):
        if (name, where) not in made:
            made[name, where] = CLIENTS[name](*where)
        return made[name, where]

    yield make
    Process.stop_all()


@pytest.fixture(params=pairs())
def place(request, libraries, simulator, gateway):
    """A client library on an upstream."""
    name, upstream = request.param
    if upstream is None:
        return Place(libraries(name, simulator.url), CLIENTS[name].dialect, "")
    return Place(libraries(name, gateway.url), upstream, f"up-{upstream}/")


@pytest.fixture
def quick(gateway):
    """Failures are told at once instead of after a wait for the end of a cooldown."""
    gateway.call("PATCH", "/settings", json={"requestRetry": 0})
    yield
    gateway.call("PATCH", "/settings", json={"requestRetry": 1})


def openai_client(gateway, key="sk-anything", **options) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, **({"max_retries": 0, "timeout": 30} | options))


def anthropic_client(gateway, key="sk-anything", **options) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key=key, **({"max_retries": 0, "timeout": 30} | options))


@pytest.fixture(scope="session")
def oa(gateway):
    return openai_client(gateway)


@pytest.fixture(scope="session")
def an(gateway):
    return anthropic_client(gateway)


@pytest.fixture(scope="session")
def plain(gateway):
    """No client library: for what they hide."""
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client
