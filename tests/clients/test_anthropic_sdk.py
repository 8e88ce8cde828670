"""The Anthropic SDK, against upstreams of its own dialect and, through translation, of the other."""

import pytest
from conftest import anthropic_client
from sample import ANTHROPIC_TOOLS, png, user


def text_of(message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_message(an, upstream):
    answer = an.messages.create(model=f"{upstream}/echo", messages=user("hello there"), max_tokens=50)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", f"{upstream}/echo")
    assert (text_of(answer), answer.stop_reason, answer.stop_sequence) == ("hello there", "end_turn", None)
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0


def test_system_and_history(an, upstream):
    answer = an.messages.create(
        model=f"{upstream}/echo",
        max_tokens=50,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": [{"type": "text", "text": "three"}]},
        ],
    )
    assert text_of(answer) == "three"


def test_length_and_stop(an, upstream):
    answer = an.messages.create(model=f"{upstream}/lorem", messages=user("go on"), max_tokens=5)
    assert answer.stop_reason == "max_tokens"
    answer = an.messages.create(
        model=f"{upstream}/echo", messages=user("one END two"), max_tokens=50, stop_sequences=["END"]
    )
    assert text_of(answer).strip() == "one"
    assert answer.stop_reason in ("stop_sequence", "end_turn")


def test_stream_helper(an, upstream):
    with an.messages.stream(
        model=f"{upstream}/echo-chunks-5", messages=user("one two three four five"), max_tokens=50
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == "one two three four five" and len(pieces) > 1
    assert (text_of(final), final.stop_reason, final.model) == (
        "one two three four five",
        "end_turn",
        f"{upstream}/echo-chunks-5",
    )
    assert final.usage.input_tokens > 0 and final.usage.output_tokens > 0


def test_stream_events_are_in_order(an, upstream):
    events = list(
        an.messages.create(model=f"{upstream}/echo-chunks-3", messages=user("a b c"), max_tokens=50, stream=True)
    )
    kinds = [event.type for event in events if event.type != "ping"]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds[1] == "content_block_start" and kinds[-3] == "content_block_stop"
    assert events[0].message.usage.input_tokens > 0, "clients size their context by it"


def test_text_arrives_unharmed(an, upstream):
    text = "naïve — 漢字 🦀 \"quoted\" \\ \u2028 tab\t and </script>"
    with an.messages.stream(model=f"{upstream}/echo-chunks-9", messages=user(text), max_tokens=500) as stream:
        assert text_of(stream.get_final_message()) == text


@pytest.mark.parametrize("calls", [0, 1, 2])
@pytest.mark.parametrize("streamed", [False, True])
def test_tools_round_trip(an, upstream, calls, streamed):
    model = f"{upstream}/echo" if calls == 0 else f"{upstream}/tools-{calls}"
    ask = {"model": model, "max_tokens": 200, "tools": ANTHROPIC_TOOLS}
    messages = user("how is the weather, and what time is it?")
    if streamed:
        with an.messages.stream(**ask, messages=messages) as stream:
            answer = stream.get_final_message()
    else:
        answer = an.messages.create(**ask, messages=messages)
    made = [block for block in answer.content if block.type == "tool_use"]
    assert len(made) == calls
    assert answer.stop_reason == ("tool_use" if calls else "end_turn")
    if not calls:
        return
    assert [call.name for call in made] == ["weather", "time"][:calls]
    assert "city" in made[0].input
    messages += [
        {"role": "assistant", "content": [block.model_dump(include={"type", "id", "name", "input", "text"}, exclude_none=True) for block in answer.content]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": call.id, "content": f"result {at}"} for at, call in enumerate(made)
            ],
        },
    ]
    text = text_of(an.messages.create(**ask, messages=messages))
    assert text.startswith("The tool said:") and all(f"result {at}" in text for at in range(calls))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_without_arguments(an, upstream, streamed):
    ask = {
        "model": f"{upstream}/tools-noargs",
        "max_tokens": 200,
        "messages": user("what time is it?"),
        "tools": ANTHROPIC_TOOLS[1:],
    }
    if streamed:
        with an.messages.stream(**ask) as stream:
            answer = stream.get_final_message()
    else:
        answer = an.messages.create(**ask)
    [call] = [block for block in answer.content if block.type == "tool_use"]
    assert (call.name, call.input) == ("time", {})


def test_tool_choice(an, upstream):
    ask = {"model": f"{upstream}/tools-2", "max_tokens": 200, "messages": user("go"), "tools": ANTHROPIC_TOOLS}

    def calls(choice):
        answer = an.messages.create(**ask, tool_choice=choice)
        return [block.name for block in answer.content if block.type == "tool_use"]

    assert calls({"type": "none"}) == []
    assert set(calls({"type": "tool", "name": "time"})) == {"time"}
    assert len(calls({"type": "auto", "disable_parallel_tool_use": True})) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_images(an, upstream, count):
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png()}}
    content = [{"type": "text", "text": "what is this?"}] + [picture] * count
    answer = an.messages.create(
        model=f"{upstream}/image", max_tokens=50, messages=[{"role": "user", "content": content}]
    )
    assert str(count) in text_of(answer)


def test_diagnostic_headers(an, upstream):
    raw = an.messages.with_raw_response.create(model=f"{upstream}/echo", max_tokens=50, messages=user("hi"))
    assert raw.headers["x-omniroute-attempts"] == "1"
    assert raw.headers["x-omniroute-model"].endswith("echo")
    assert raw.parse().model == f"{upstream}/echo"


def test_bearer_instead_of_x_api_key(gateway, upstream):
    client = anthropic_client(gateway, key=None, auth_token="sk-whatever")
    assert text_of(client.messages.create(model=f"{upstream}/echo", max_tokens=9, messages=user("hi"))) == "hi"


def test_unknown_betas_and_queries_do_no_harm(an, upstream):
    answer = an.messages.create(
        model=f"{upstream}/echo",
        max_tokens=9,
        messages=user("hi"),
        extra_query={"beta": "true"},
        extra_headers={"anthropic-beta": "prompt-caching-2024-07-31,not-known-yet-2099-01-01"},
    )
    assert text_of(answer) == "hi"
