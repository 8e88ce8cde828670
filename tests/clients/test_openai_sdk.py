"""The OpenAI SDK, against upstreams of its own dialect and, through translation, of the other."""

import json

import pytest
from sample import OPENAI_TOOLS, png, user


def test_chat(oa, upstream):
    answer = oa.chat.completions.create(model=f"{upstream}/echo", messages=user("hello there"), max_tokens=50)
    assert answer.object == "chat.completion"
    assert answer.model == f"{upstream}/echo"
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hello there", "stop")
    assert not choice.message.tool_calls
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_system_and_history(oa, upstream):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "three"}]},
    ]
    answer = oa.chat.completions.create(model=f"{upstream}/echo", messages=messages)
    assert answer.choices[0].message.content == "three"


def test_text_arrives_unharmed(oa, upstream):
    text = "naïve — 漢字 🦀 \"quoted\" \\ \u2028 tab\t and </script>"
    answer = oa.chat.completions.create(model=f"{upstream}/echo", messages=user(text))
    assert answer.choices[0].message.content == text
    stream = oa.chat.completions.create(model=f"{upstream}/echo-chunks-7", messages=user(text), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == text


def test_length_and_stop(oa, upstream):
    answer = oa.chat.completions.create(model=f"{upstream}/lorem", messages=user("go on"), max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    answer = oa.chat.completions.create(model=f"{upstream}/echo", messages=user("one END two"), stop=["END"])
    assert (answer.choices[0].message.content.strip(), answer.choices[0].finish_reason) == ("one", "stop")


@pytest.mark.parametrize("asked", [False, True])
def test_stream(oa, upstream, asked):
    options = {"stream_options": {"include_usage": True}} if asked else {}
    chunks = list(
        oa.chat.completions.create(
            model=f"{upstream}/echo-chunks-5", messages=user("one two three four five"), stream=True, **options
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {f"{upstream}/echo-chunks-5"}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "one two three four five"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert reasons == ["stop"]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    if asked:
        assert len(usages) == 1 and chunks[-1].choices == [] and chunks[-1].usage
        assert usages[0].prompt_tokens > 0 and usages[0].completion_tokens > 0
    else:
        assert usages == [] and all(chunk.choices for chunk in chunks)


def test_stream_helper(oa, upstream):
    with oa.chat.completions.stream(
        model=f"{upstream}/echo-chunks-4", messages=user("a b c d"), stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds and "content.done" in kinds
    assert final.choices[0].message.content == "a b c d"
    assert final.usage.completion_tokens > 0


def test_the_wire_form_of_a_stream(plain, upstream):
    body = {"model": f"{upstream}/echo-chunks-3", "messages": user("a b c"), "stream": True}
    answer = plain.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\n\n") if block]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks), answer.text
    assert blocks[-1] == "data: [DONE]" and blocks.count("data: [DONE]") == 1
    assert all(json.loads(block[6:])["object"] == "chat.completion.chunk" for block in blocks[:-1])


@pytest.mark.parametrize("calls", [0, 1, 2])
@pytest.mark.parametrize("streamed", [False, True])
def test_tools_round_trip(oa, upstream, calls, streamed):
    model = f"{upstream}/echo" if calls == 0 else f"{upstream}/tools-{calls}"
    messages = user("how is the weather, and what time is it?")
    if streamed:
        with oa.chat.completions.stream(model=model, messages=messages, tools=OPENAI_TOOLS) as stream:
            list(stream)
            choice = stream.get_final_completion().choices[0]
    else:
        choice = oa.chat.completions.create(model=model, messages=messages, tools=OPENAI_TOOLS).choices[0]
    made = choice.message.tool_calls or []
    assert len(made) == calls
    assert choice.finish_reason == ("tool_calls" if calls else "stop")
    if not calls:
        return
    assert [call.function.name for call in made] == ["weather", "time"][:calls]
    assert len({call.id for call in made}) == calls
    assert "city" in json.loads(made[0].function.arguments)
    messages += [
        {
            "role": "assistant",
            "content": choice.message.content,
            "tool_calls": [
                {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments}}
                for call in made
            ],
        }
    ]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": f"result {at}"} for at, call in enumerate(made)]
    answer = oa.chat.completions.create(model=model, messages=messages, tools=OPENAI_TOOLS)
    text = answer.choices[0].message.content
    assert text.startswith("The tool said:") and all(f"result {at}" in text for at in range(calls))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_without_arguments(oa, upstream, streamed):
    arguments = {"model": f"{upstream}/tools-noargs", "messages": user("what time is it?"), "tools": OPENAI_TOOLS[1:]}
    if streamed:
        with oa.chat.completions.stream(**arguments) as stream:
            list(stream)
            [call] = stream.get_final_completion().choices[0].message.tool_calls
    else:
        [call] = oa.chat.completions.create(**arguments).choices[0].message.tool_calls
    assert call.function.name == "time"
    assert json.loads(call.function.arguments or "{}") == {}


def test_tool_choice(oa, upstream):
    ask = {"model": f"{upstream}/tools-2", "messages": user("go"), "tools": OPENAI_TOOLS}
    assert not oa.chat.completions.create(**ask, tool_choice="none").choices[0].message.tool_calls
    chosen = {"type": "function", "function": {"name": "time"}}
    calls = oa.chat.completions.create(**ask, tool_choice=chosen).choices[0].message.tool_calls
    assert {call.function.name for call in calls} == {"time"}
    calls = oa.chat.completions.create(**ask, parallel_tool_calls=False).choices[0].message.tool_calls
    assert len(calls) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_images(oa, upstream, count):
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png()}"}}
    content = [{"type": "text", "text": "what is this?"}] + [picture] * count
    answer = oa.chat.completions.create(model=f"{upstream}/image", messages=[{"role": "user", "content": content}])
    assert str(count) in answer.choices[0].message.content


def test_reasoning_is_not_content(oa, upstream):
    answer = oa.chat.completions.create(model=f"{upstream}/echo-reasoning", messages=user("think"))
    assert answer.choices[0].message.content == "think"


def test_diagnostic_headers(oa, upstream):
    for streamed in (False, True):
        raw = oa.chat.completions.with_raw_response.create(
            model=f"{upstream}/echo", messages=user("hi"), stream=streamed, extra_headers={"x-request-id": "asked-by-me"}
        )
        headers = raw.headers
        assert headers["x-omniroute-attempts"] == "1"
        assert headers["x-omniroute-model"].endswith("echo")
        assert headers["x-omniroute-provider"]
        assert headers["x-request-id"] == "asked-by-me"
        if streamed:
            list(raw.parse())


def test_provider_route(gateway, upstream):
    from conftest import openai_client

    client = openai_client(gateway).with_options(base_url=f"{gateway.url}/v1/providers/{upstream}")
    for name in ("echo", f"{upstream}/echo"):
        answer = client.chat.completions.create(model=name, messages=user("pinned"))
        assert (answer.choices[0].message.content, answer.model) == ("pinned", name)


def test_models_list_and_retrieve(gateway, oa):
    gateway.call("POST", "/provider-models", json={"provider": "oa-node", "modelId": "echo", "modelName": "Echo"})
    listed = {model.id: model for model in oa.models.list()}
    assert "oa-node/echo" in listed
    assert listed["oa-node/echo"].object == "model" and listed["oa-node/echo"].created > 0
    assert oa.models.retrieve("oa-node/echo").id == "oa-node/echo"


def test_a_fresh_gateway_lists_what_there_could_be(own_gateway):
    from conftest import openai_client

    listed = {model.id for model in openai_client(own_gateway()).models.list()}
    assert "sim/echo" in listed and len(listed) > 50


def test_json_output(oa, upstream):
    answer = oa.chat.completions.create(
        model=f"{upstream}/echo", messages=user("as json, please"), response_format={"type": "json_object"}
    )
    assert answer.choices[0].message.content


def test_a_large_prompt(oa, upstream):
    text = "many words " * 20_000
    answer = oa.chat.completions.create(model=f"{upstream}/size-10", messages=user(text))
    assert len(answer.choices[0].message.content) == 10
