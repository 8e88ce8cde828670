"""An operator ends running requests: what the official SDKs make of it."""

import threading

import anthropic
import openai
import pytest
from gateway import WatchedUpstream, until
from sample import user


@pytest.fixture
def held(own_gateway):
    """A gateway and an upstream that never ends its answers."""
    upstreams = []

    def hold(stream_begins: bool):
        gateway, upstream = own_gateway(), WatchedUpstream(stream_begins)
        upstreams.append(upstream)
        return gateway, upstream, gateway.node("openai", upstream.url)

    yield hold
    for upstream in upstreams:
        upstream.stop()


def running(gateway) -> list[dict]:
    return gateway.call("GET", "/logs/active")["activeRequests"]


def cancel(gateway):
    [request] = until(lambda: running(gateway), "the request is listed")
    gateway.call("DELETE", f"/logs/active/{request['id']}", 200)


def last_row(gateway) -> dict:
    return until(lambda: gateway.call_logs(), "the request is in the log")[0]


def openai_of(gateway):
    # With the retries of its makers: there must be none.
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", timeout=20)


def test_a_whole_answer_that_is_cancelled_is_not_asked_for_again(held):
    gateway, upstream, prefix = held(stream_begins=False)
    threading.Thread(target=lambda: upstream.asked.wait(10) and cancel(gateway), daemon=True).start()
    with pytest.raises(openai.APIStatusError) as caught:
        openai_of(gateway).chat.completions.create(model=f"{prefix}/m", messages=user("hello"))
    assert caught.value.status_code == 499 and caught.value.code == "request_cancelled"
    assert "an operator of the gateway cancelled this request" in str(caught.value)
    assert upstream.closed.wait(2), "the upstream call is dropped"
    row = last_row(gateway)
    assert row["status"] == 499 and len(gateway.call_logs()) == 1, "it was sent once"
    assert running(gateway) == []


def test_a_stream_that_is_cancelled_raises_and_has_no_end(held):
    gateway, upstream, prefix = held(stream_begins=True)
    client = openai_of(gateway)
    stream = client.chat.completions.create(model=f"{prefix}/m", messages=user("hello"), stream=True)
    said, reasons = [], []
    with pytest.raises(openai.APIError) as caught:
        for chunk in stream:
            said.append(chunk.choices[0].delta.content)
            reasons.append(chunk.choices[0].finish_reason)
            [request] = running(gateway)
            assert request["stream"] and request["tokensSoFar"] == 2
            cancel(gateway)
    assert said == ["so far"] and reasons == [None]
    assert "an operator of the gateway cancelled this request" in str(caught.value)
    assert upstream.closed.wait(2), "the upstream call is dropped"
    row = last_row(gateway)
    assert row["status"] == 499 and row["tokens"]["out"] == 2 and row["estimated"]
    assert len(gateway.call_logs()) == 1


def test_anthropics_sdk_hears_of_it_too(held):
    gateway, upstream, prefix = held(stream_begins=False)
    client = anthropic.Anthropic(base_url=gateway.url, api_key="any", timeout=20)
    threading.Thread(target=lambda: upstream.asked.wait(10) and cancel(gateway), daemon=True).start()
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model=f"{prefix}/m", max_tokens=50, messages=user("hello"))
    assert caught.value.status_code == 499 and "cancelled this request" in str(caught.value)
    assert len(until(gateway.call_logs, "the request is in the log")) == 1


def test_ids_that_nobody_has_are_told(held):
    gateway, _, _ = held(stream_begins=False)
    answer = gateway.call("DELETE", "/logs/active/req_nobody", 404)
    assert "in this process" in str(answer)
