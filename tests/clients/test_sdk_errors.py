"""Failures of every upstream arrive in every client library as the exception that it has for them."""

import dataclasses

import pytest
from gateway import Gateway
from matrix import NODES, clients
from sdk import Ask, Failure, user


@pytest.fixture
def fresh(place, gateway, simulator):
    """The same on an upstream that nobody else's failures have put on cooldown."""
    if not place.prefix:
        return place
    node = NODES[place.upstream]
    return dataclasses.replace(place, prefix=gateway.node(node.kind, simulator.url + node.base, **node.fields) + "/")


def failure(client, model: str, **ask) -> Failure:
    with pytest.raises(Failure) as caught:
        client.ask(Ask(model, [user("one two three four five")], **ask))
    return caught.value


def check(error: Failure, client, status: int):
    assert error.name == client.errors[status], repr(error)
    assert error.status in (status, None), repr(error)
    if client.tells_status:
        assert error.status == status


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("words,status", [("error-400", 400), ("nonsense", 404)], ids=["400", "404"])
def test_refused(place, quick, words, status, stream):
    check(failure(place.client, place.model(words), stream=stream), place.client, status)


def test_broken(fresh, quick):
    check(failure(fresh.client, fresh.model("error-500")), fresh.client, 500)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_limited(fresh, quick, stream):
    error = failure(fresh.client, fresh.model("error-429-retry-50s"), stream=stream)
    check(error, fresh.client, 429)
    # Google says it in the body, and straight from it there is no header.
    if fresh.can("retry-after") and (fresh.prefix or fresh.upstream != "gemini"):
        assert 45 <= int(error.retry_after) <= 60


def test_within_a_stream(fresh):
    if not fresh.can("error within a stream"):
        pytest.skip("the library does not tell")
    error = failure(fresh.client, fresh.model("echo-error-after-2"), stream=True)
    assert error.name == fresh.client.errors["stream"], repr(error)
    if fresh.can("text before an error"):
        assert error.so_far.startswith("one two")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A gateway that wants keys."""
    gateway = Gateway(tmp_path_factory.mktemp("guarded"), REQUIRE_API_KEY="true").start()
    yield gateway
    gateway.stop()


@pytest.mark.parametrize("name", clients())
def test_keys(name, libraries, guarded):
    client = libraries(name, guarded.url)
    check(failure(client, "sim/echo"), client, 401)
    key, _ = guarded.key()
    assert libraries(name, guarded.url, key).ask(Ask("sim/echo", [user("let in")])).text == "let in"


@pytest.mark.parametrize("name", clients())
def test_no_such_model(name, libraries, gateway):
    client = libraries(name, gateway.url)
    error = failure(client, "no-such-model-anywhere")
    check(error, client, 404)
    assert "no-such-model-anywhere" in error.message


@pytest.mark.parametrize("name", clients())
def test_a_request_without_sense(name, libraries, gateway):
    client = libraries(name, gateway.url)
    check(failure(client, "no-such-provider/m"), client, 400)
