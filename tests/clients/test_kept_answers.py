"""Answers that a vendor keeps: OpenAI's libraries read, delete and cancel them through the gateway."""

import subprocess
from pathlib import Path

import openai
import pytest
from conftest import openai_client

from gateway import clean_environment
from keeping_upstream import KeepingUpstream


@pytest.fixture
def keeping():
    upstream = KeepingUpstream()
    yield upstream
    upstream.stop()


@pytest.fixture
def prefix(gateway, keeping):
    """A node with two accounts, each of which has its own answers."""
    return gateway.node("openai", keeping.url, keys=["sk-keeps-1", "sk-keeps-2"], apiType="responses")


def test_an_answer_is_read_listed_and_deleted(oa, keeping, prefix):
    asked = {"model": f"{prefix}/m", "input": "one", "store": True}
    made = oa.responses.create(**asked)
    read = oa.responses.retrieve(made.id)
    assert (read.output_text, read.model, read.status) == ("answer to one", f"{prefix}/m", "completed")
    [item] = oa.responses.input_items.list(made.id, limit=1).data
    assert item.content[0].text == "one"
    # The account that made it is the one that goes on with it, and the only one that was asked about it.
    assert oa.responses.create(**asked | {"input": "two", "previous_response_id": made.id}).previous_response_id == made.id
    assert len({account for account, *_ in keeping.asked}) == 1
    oa.responses.delete(made.id)
    assert not any(id == made.id for _, id in keeping.kept)
    with pytest.raises(openai.NotFoundError):
        oa.responses.retrieve(made.id)


def test_an_answer_in_the_background_is_cancelled(oa, prefix):
    made = oa.responses.create(model=f"{prefix}/m", input="long", background=True, store=True)
    assert made.status == "queued"
    assert oa.responses.retrieve(made.id).status == "queued"
    assert oa.responses.cancel(made.id).status == "cancelled"


def test_an_answer_is_streamed_again(gateway, oa, prefix):
    made = oa.responses.create(model=f"{prefix}/m", input="one", store=True)
    before = gateway.history()
    events = list(oa.responses.retrieve(made.id, stream=True))
    assert [event.sequence_number for event in events] == list(range(8))
    assert events[-1].type == "response.completed" and events[-1].response.model == f"{prefix}/m"
    rest = list(oa.responses.retrieve(made.id, stream=True, starting_after=4))
    assert [event.sequence_number for event in rest] == [5, 6, 7]
    after = gateway.history()
    assert before.get("totalTokens") == after.get("totalTokens"), "it was paid for when it was made"


def test_nobody_else_finds_it(gateway, oa, prefix):
    made = oa.responses.create(model=f"{prefix}/m", input="one", store=True)
    text, _ = gateway.key()
    other = openai_client(gateway, text)
    for client, id in [(other, made.id), (oa, "resp_unknown"), (oa, oa.responses.create(model="sim/echo", input="x").id)]:
        for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
            with pytest.raises(openai.NotFoundError) as raised:
                call(id)
            assert "not known here" in raised.value.message and raised.value.code == "not_found"
        with pytest.raises(openai.NotFoundError):
            client.responses.input_items.list(id)
    # The key may be kept from the route, as from any other.
    text, _ = gateway.key(allowedEndpoints=["chat"])
    with pytest.raises(openai.PermissionDeniedError):
        openai_client(gateway, text).responses.retrieve(made.id)


def test_the_library_for_node(gateway, prefix):
    ended = subprocess.run(
        ["node", "--test", "--test-reporter=spec", "kept.test.mjs"],
        cwd=Path(__file__).parent / "node",
        env=clean_environment({"GATEWAY_URL": gateway.url, "MODEL": f"{prefix}/m"}),
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
