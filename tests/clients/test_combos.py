"""Combos and aliases: one name for several targets, as client libraries see it."""

import json
import secrets

import openai
import pytest
from conftest import anthropic_client, openai_client
from sample import user

LIMITED = "sim/error-429-retry-30s"
CUT = "oa-node/cut-0"


def combo(gateway, *models, **fields) -> str:
    """A new combo of these models; its name."""
    name = f"combo-{secrets.token_hex(4)}"
    # Names of models are lasting; what one case does to an account must not touch the next.
    body = {"name": name, "models": list(models), "config": {"maxRetries": 0}} | fields
    gateway.call("POST", "/combos", 201, json=body)
    return name


def streamed(chunks) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("last", ["sim/echo", "oa-node/echo", "an-node/echo", "up-responses/echo", "up-gemini/echo"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_the_first_is_limited_the_second_cut_the_third_answers(gateway, last, is_stream):
    # Of its own, since a model that failed a moment ago is not asked again.
    own = secrets.randbelow(9_000)
    name = combo(gateway, f"{LIMITED}-size-{own + 1}", f"{CUT}-size-{own + 10_000}", last)
    raw = openai_client(gateway).chat.completions.with_raw_response.create(
        model=name, messages=user("still served"), stream=is_stream
    )
    answer = raw.parse()
    text = streamed(answer) if is_stream else answer.choices[0].message.content
    assert text == "still served"
    assert raw.headers["x-omniroute-combo"] == name
    assert raw.headers["x-omniroute-model"] == "echo"
    if not is_stream:
        assert answer.model == name
    metrics = gateway.call("GET", "/combos/metrics", params={"combo": name})["metrics"][name]
    assert (metrics["totalSuccesses"], metrics["totalFallbacks"]) == (1, 1)
    assert metrics["byModel"][last]["lastStatus"] == "ok"


@pytest.mark.parametrize("is_stream", [False, True])
def test_claude_clients_are_served_by_combos(gateway, is_stream):
    name = combo(gateway, "sim/error-529", "an-node/error-500", "oa-node/echo")
    messages = anthropic_client(gateway).messages
    if is_stream:
        with messages.stream(model=name, messages=user("a b c"), max_tokens=50) as stream:
            text = "".join(stream.text_stream)
            assert stream.response.headers["x-omniroute-combo"] == name
            assert stream.get_final_message().model == name
    else:
        answer = messages.create(model=name, messages=user("a b c"), max_tokens=50)
        text = answer.content[0].text
        assert answer.model == name
    assert text == "a b c"


def test_when_all_fail_each_attempt_is_told(gateway):
    name = combo(gateway, "sim/error-500", "oa-node/error-429-retry-7s")
    with pytest.raises(openai.RateLimitError) as caught:
        openai_client(gateway).chat.completions.create(model=name, messages=user("hi"))
    response = caught.value.response
    body = response.json()["error"]
    assert f"all 2 targets of combo `{name}` failed" in body["message"]
    # The first is free again before the second, is waited for, and fails once more.
    assert [attempt["status"] for attempt in body["omniroute"]["attempts"]] == [500, 429, 500]
    assert 1 <= int(response.headers["retry-after"]) <= 7


def test_round_robin_over_http(gateway):
    name = combo(gateway, "sim/echo", "oa-node/echo", "an-node/echo", strategy="round-robin")
    client = openai_client(gateway)
    seen = [
        client.chat.completions.with_raw_response.create(model=name, messages=user("hi")).headers[
            "x-omniroute-provider"
        ]
        for _ in range(6)
    ]
    assert seen[:3] == seen[3:] and len(set(seen)) == 3


def test_steps_are_chosen_by_what_is_asked(gateway):
    when = {"hasTools": True}
    name = combo(gateway, {"model": "sim/tools", "when": when}, {"model": "sim/echo", "when": {"hasTools": False}})
    client = openai_client(gateway)
    plain = client.chat.completions.create(model=name, messages=user("hi"))
    assert plain.choices[0].message.content == "hi"
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    called = client.chat.completions.create(model=name, messages=user("hi"), tools=tools)
    assert json.loads(called.choices[0].message.tool_calls[0].function.arguments)["city"]


def test_lists_name_combos_first(gateway):
    name = combo(gateway, "sim/echo")
    hidden = combo(gateway, "sim/echo", isHidden=True)
    listed = [model.id for model in openai_client(gateway).models.list()]
    assert name in listed and hidden not in listed
    assert not any("/" in model for model in listed[: listed.index(name)])
    assert openai_client(gateway).models.retrieve(name).owned_by == "combo"
    assert openai_client(gateway).chat.completions.create(model=hidden, messages=user("x")).choices


def test_an_alias_is_echoed_and_led_by_patterns(gateway):
    alias = f"alias-{secrets.token_hex(4)}"
    gateway.call("PUT", "/models/alias", json={"alias": alias, "model": "oa-node/echo"})
    gateway.call("PUT", "/models/alias", json={"alias": f"{alias}-*", "model": "sim/*"})
    client = openai_client(gateway)
    raw = client.chat.completions.with_raw_response.create(model=alias, messages=user("hi"))
    assert raw.parse().model == alias
    assert raw.headers["x-omniroute-model"] == "echo"
    lorem = client.chat.completions.create(model=f"{alias}-lorem", messages=user("hi"))
    assert lorem.choices[0].message.content.startswith("Lorem")


def test_combos_and_aliases_survive_a_restart(own_gateway):
    gateway = own_gateway()
    name = combo(gateway, "sim/error-500", "sim/echo")
    gateway.call("PUT", "/models/alias", json={"alias": "short", "model": name})
    gateway.kill()
    gateway.start()
    answer = openai_client(gateway).chat.completions.create(model="short", messages=user("still there"))
    assert answer.choices[0].message.content == "still there"


def test_a_combo_is_tested_without_harm(gateway):
    name = combo(gateway, "sim/error-500", "oa-node/echo")
    tested = gateway.call("POST", "/combos/test", json={"comboName": name})
    assert [row["status"] for row in tested["results"]] == ["error", "ok"], tested
    assert tested["resolvedBy"] == "oa-node/echo"


def test_what_would_become_of_a_request_is_told_and_comes_true(gateway):
    own = secrets.randbelow(9_000) + 1
    name = combo(gateway, f"sim/error-429-retry-30s-chunks-{own}", {"model": "sim/echo", "when": {"stream": True}}, "oa-node/echo")
    body = {"model": name, "messages": user("hi")}
    question = {"path": "/v1/chat/completions", "body": body}
    before = gateway.call("POST", "/route/explain", json=question)
    assert (before["via"], before["combo"], before["strategy"]) == ("combo", name, "priority")
    assert [(row["model"], row["action"], row["rule"]) for row in before["candidates"]] == [
        (f"error-429-retry-30s-chunks-{own}", "try", None),
        ("echo", "try", None),
        ("echo", "skip", "condition"),
    ]
    assert before["candidates"][2]["provider"] == "sim"
    openai_client(gateway).chat.completions.create(**body)
    after = gateway.call("POST", "/route/explain", json=question)["candidates"]
    assert [(row["action"], row["rule"]) for row in after] == [("try", None), ("skip", "model_lock"), ("skip", "condition")]
    assert after[1]["until"] and after[1]["reason"] == "rate_limit"
    claude = {"path": "/v1/messages", "body": {"model": "nobody/x", "messages": user("hi"), "max_tokens": 5}}
    assert gateway.call("POST", "/route/explain", json=claude)["error"]["code"] == "unknown_provider"
    gateway.call("POST", "/route/explain", 400, json={"path": "/v1/models", "body": {}})
    gateway.call("POST", "/route/explain", 400, json={"path": "/v1/messages", "body": {"messages": []}})


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_faster_of_a_race_answers(gateway, is_stream):
    name = combo(gateway, "oa-node/delay-20s-echo", "an-node/echo", "sim/lorem", strategy="race")
    raw = openai_client(gateway).chat.completions.with_raw_response.create(
        model=name, messages=user("first past the post"), stream=is_stream
    )
    answer = raw.parse()
    text = streamed(answer) if is_stream else answer.choices[0].message.content
    assert text == "first past the post"
    assert (raw.headers["x-omniroute-model"], raw.headers["x-omniroute-attempts"]) == ("echo", "2")
    metrics = gateway.call("GET", "/combos/metrics", params={"combo": name})["metrics"][name]
    assert metrics["totalSuccesses"] == 1, "who lost is not counted"


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_judge_is_told_what_others_answered(gateway, is_stream):
    # The judge repeats what it was asked, so that it can be seen.
    config = {"judgeModel": "sim/echo", "maxRetries": 0}
    own = secrets.randbelow(9_000)
    models = ("oa-node/echo", f"an-node/error-500-size-{own}", "up-gemini/lorem")
    name = combo(gateway, *models, strategy="fusion", config=config)
    messages = anthropic_client(gateway).messages
    if is_stream:
        with messages.stream(model=name, messages=user("who is right?"), max_tokens=2_000) as stream:
            text = "".join(stream.text_stream)
            assert stream.get_final_message().model == name
    else:
        text = messages.create(model=name, messages=user("who is right?"), max_tokens=2_000).content[0].text
    assert "[1]\nwho is right?" in text and "[2]\nLorem ipsum" in text and "[3]" not in text


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_pipeline_hands_on_what_was_answered(gateway, is_stream):
    template = "{{input}} was answered with: {{output}}"
    name = combo(gateway, "an-node/echo", {"model": "oa-node/echo", "template": template}, strategy="pipeline")
    answer = openai_client(gateway).chat.completions.create(model=name, messages=user("ping"), stream=is_stream)
    text = streamed(answer) if is_stream else answer.choices[0].message.content
    assert text == "ping was answered with: ping"


def test_an_answer_that_breaks_the_rules_is_not_given(gateway):
    rules = {"responseValidation": {"mustNotMatch": "Lorem"}, "maxRetries": 0}
    name = combo(gateway, "oa-node/lorem", "an-node/echo", config=rules)
    answer = openai_client(gateway).chat.completions.create(model=name, messages=user("plain words"))
    assert answer.choices[0].message.content == "plain words"
