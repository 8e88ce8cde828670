"""How the pinned SDKs react to odd bytes in a stream."""

from dataclasses import dataclass

from odd_streams import *  # noqa: F403


@dataclass
class Row:
    """A stream, the SDK's function that reads it, and what the SDK for Python and that for Node.js make of it."""

    dialect: str
    way: str
    what: str
    sent: bytes
    python: dict
    node: dict
    # Whether the gateway may send a stream of this form.
    is_ours: bool

    @property
    def model(self) -> str:
        return "-".join([self.dialect, self.way, *"".join(c if c.isalnum() else " " for c in self.what).split()])


def fails(error: str, **before) -> dict:
    return before | {"error": error}


def separated(sent: bytes) -> bytes:
    """With what Unicode takes for an end of a line within its text, unescaped."""
    return sent.replace(b"hi ", "hi\u2028".encode())


FINE = {"text": "hi there", "finish": "stop"}
APART_TEXT = {"text": "hi\u2028there"}
APART = FINE | APART_TEXT
DOUBLED = {"finish": "tool_calls", "calls": [["call_1call_1", "weatherweather", '{"a":1}']]}
CALLED = {"finish": "tool_calls", "calls": [["call_1", "weather", '{"a":1}']]}
MESSAGE = {"text": "hi there", "finish": "end_turn", "id": "msg_1"}
USED = {"finish": "tool_use", "calls": [["toolu_1", "weather", {"a": 1}]], "id": "msg_1"}
TEXT = {"text": "hi there", "finish": "completed"}
GENERATED = {"text": "hi there", "finish": "STOP"}

ERROR = {"error": {"message": "no more", "type": "server_error", "code": None, "param": None}}
PROGRESS = {"id": "p", "object": "progress", "done": 1}
COMMENT = b": keep-alive\n\n"
FIRST_CHUNK, LATER_CHUNKS = sse(*HELLO[:2]), sse(HELLO[2], *STOP)
THOUGHT = [chunk({"reasoning_content": text}) for text in ("so ", "what")]
CALL_ENDS = message_end("tool_use")
A_ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "no more"}, "request_id": "req_1"}
G1, G2 = (sse(event) for event in GEMINI)
O1, *O_REST = OLLAMA
TIMELESS = {name: value for name, value in line("").items() if name != "created_at"}
R_ERROR = {"type": "error", "code": "server_error", "message": "no more", "param": None}

ROWS = [
    # Chat Completions.
    Row("openai", "helper", "nothing odd", CHAT, FINE, FINE, True),
    Row("openai", "raw", "comments", COMMENT + FIRST_CHUNK + COMMENT + LATER_CHUNKS, FINE, FINE, True),
    Row("openai", "helper", "comments", COMMENT + FIRST_CHUNK + COMMENT + LATER_CHUNKS, FINE, FINE, True),
    Row("openai", "raw", "event without choices", FIRST_CHUNK + b"event: progress\n" + sse(PROGRESS) + LATER_CHUNKS,
        fails("TypeError", text="hi "), fails("TypeError", text="hi "), False),
    Row("openai", "helper", "event without choices", FIRST_CHUNK + b"event: progress\n" + sse(PROGRESS) + LATER_CHUNKS,
        FINE, fails("OpenAIError"), False),
    Row("openai", "raw", "event with no choice", FIRST_CHUNK + b"event: progress\n" + sse(chunk()) + LATER_CHUNKS, FINE, FINE, False),
    Row("openai", "helper", "chunk with no choice", FIRST_CHUNK + sse(chunk()) + LATER_CHUNKS, FINE, FINE, True),
    Row("openai", "raw", "retry", FIRST_CHUNK + b"retry: 100\n\n" + LATER_CHUNKS, fails("JSONDecodeError", text="hi "), FINE, False),
    Row("openai", "raw", "id and then a comment", b"id: 1\n" + FIRST_CHUNK + COMMENT + LATER_CHUNKS, fails("JSONDecodeError", text="hi "), FINE, False),
    Row("openai", "helper", "call with index 0", chat_call(0, FIRST, {}), CALLED, CALLED, True),
    Row("openai", "helper", "call with index 1", chat_call(1, FIRST, {}), fails("IndexError"), fails("OpenAIError"), False),
    # Python glues equal ids and names together; in Node.js the last ones win.
    Row("openai", "helper", "id and name in every piece of a call", chat_call(0, FIRST, dict(AGAIN)), DOUBLED, CALLED, False),
    Row("openai", "helper", "no finish reason", sse(*HELLO, "[DONE]"), {"text": "hi there"}, fails("OpenAIError"), False),
    # Node.js keeps the last piece alone. There is no other place for them, so they are sent nevertheless.
    Row("openai", "helper", "thoughts", sse(HELLO[0], *THOUGHT, *HELLO[1:], *STOP), FINE | {"thoughts": "so what"}, FINE | {"thoughts": "what"}, True),
    Row("openai", "raw", "error", FIRST_CHUNK + sse(ERROR), fails("APIError", text="hi "), fails("APIError", text="hi "), True),
    Row("openai", "helper", "error", FIRST_CHUNK + sse(ERROR), fails("APIError"), fails("APIError"), True),
    Row("openai", "raw", "error and nothing else", sse(ERROR), fails("APIError"), fails("APIError"), True),
    Row("openai", "raw", "line separator within a text", separated(CHAT), APART, APART, True),
    # Messages.
    Row("anthropic", "helper", "nothing odd", PROPER_MESSAGE, MESSAGE, MESSAGE, True),
    # Lost in silence.
    Row("anthropic", "helper", "data without event", messages(message_start(), *text_block(0)[:2]) + sse(text_block(0)[2])
        + messages(text_block(0)[3], *message_end()), MESSAGE | {"text": "hi "}, MESSAGE | {"text": "hi "}, False),
    Row("anthropic", "helper", "comments", COMMENT + PROPER_MESSAGE, MESSAGE, MESSAGE, True),
    Row("anthropic", "helper", "ping before message_start", messages(PING) + PROPER_MESSAGE, MESSAGE, MESSAGE, True),
    Row("anthropic", "helper", "unknown event", messages({"type": "progress"}) + PROPER_MESSAGE, MESSAGE, MESSAGE, False),
    # In Node.js the text is lost in silence.
    Row("anthropic", "helper", "blocks begin at 1", messages(message_start(), *text_block(1), *message_end()),
        fails("IndexError"), {"finish": "end_turn", "id": "msg_1"}, False),
    # Python keeps the first and says nothing; older versions went on with the second.
    Row("anthropic", "helper", "second message_start", messages(message_start(), message_start("msg_2"), *text_block(0), *message_end()),
        MESSAGE, fails("AnthropicError"), False),
    Row("anthropic", "helper", "no message_stop", messages(message_start(), *text_block(0), message_end()[0]), MESSAGE, fails("AnthropicError"), False),
    Row("anthropic", "helper", "call", messages(message_start(), *tool_block('{"a"', ":1}", input={}), *CALL_ENDS), USED, USED, True),
    # The input is `None`, and `undefined`.
    Row("anthropic", "helper", "call without input", messages(message_start(), *tool_block(), *CALL_ENDS), USED | {"calls": [["toolu_1", "weather", None]]}, USED | {"calls": [["toolu_1", "weather", None]]}, False),
    Row("anthropic", "helper", "more after the arguments", messages(message_start(), *tool_block('{"a":1}', "}{", input={}), *CALL_ENDS),
        USED, fails("AnthropicError"), False),
    Row("anthropic", "helper", "error", messages(message_start(), *text_block(0)[:2], A_ERROR), fails("APIStatusError"), fails("APIError"), True),
    Row("anthropic", "helper", "line separator within a text", separated(PROPER_MESSAGE), MESSAGE | APART_TEXT, MESSAGE | APART_TEXT, True),
    Row("anthropic", "helper", "error and nothing else", messages(A_ERROR), fails("APIStatusError"), fails("APIError"), True),
    # Responses.
    Row("responses", "helper", "nothing odd", responses(*RESPONSE), TEXT, TEXT, True),
    Row("responses", "helper", "comments", COMMENT + responses(*RESPONSE), TEXT, TEXT, True),
    Row("responses", "raw", "DONE at the end", responses(*RESPONSE) + data("[DONE]"), TEXT, TEXT, False),
    Row("responses", "raw", "unknown event", responses(CREATED, {"type": "response.progress"}, *RESPONSE[1:]), TEXT, TEXT, False),
    Row("responses", "helper", "unknown event", responses(CREATED, {"type": "response.progress"}, *RESPONSE[1:]), TEXT, fails("OpenAIError"), False),
    # Before 3.0 an `IndexError` in Python.
    Row("responses", "helper", "delta without its item", responses(CREATED, *DELTAS, COMPLETED), fails("RuntimeError"), fails("OpenAIError"), False),
    Row("responses", "helper", "response not wrapped", responses({"type": "response.created"} | response(), *RESPONSE[1:]),
        fails("AttributeError"), fails("OpenAIError"), False),
    Row("responses", "raw", "incomplete", responses(*RESPONSE[:-1], {"type": "response.incomplete", "response": CUT_SHORT}),
        TEXT | {"finish": "incomplete"}, TEXT | {"finish": "incomplete"}, True),
    # Python's helper knows no final response but a completed one.
    Row("responses", "helper", "incomplete", responses(*RESPONSE[:-1], {"type": "response.incomplete", "response": CUT_SHORT}),
        fails("RuntimeError"), TEXT | {"finish": "incomplete"}, True),
    Row("responses", "helper", "no sequence_number", responses(*RESPONSE, numbered=False), TEXT, TEXT, False),
    Row("responses", "raw", "line separator within a text", separated(responses(*RESPONSE)), TEXT | APART_TEXT, TEXT | APART_TEXT, True),
    Row("responses", "raw", "failed", responses(CREATED, BEGUN, FAILED), {"finish": "failed"}, {"finish": "failed"}, True),
    Row("responses", "helper", "failed", responses(CREATED, BEGUN, FAILED), fails("RuntimeError"), {"finish": "failed"}, True),
    Row("responses", "raw", "error and nothing else", responses(R_ERROR), {"finish": "error"}, fails("APIError"), True),
    # Gemini.
    Row("gemini", "raw", "nothing odd", G1 + G2, GENERATED, GENERATED, True),
    Row("gemini", "raw", "comments", G1 + COMMENT + G2, fails("UnknownApiResponseError", text="hi "), GENERATED, False),
    # In Node.js the chunk is lost in silence.
    Row("gemini", "raw", "event before data", b"event: message\n" + G1 + G2, fails("UnknownApiResponseError"), GENERATED | {"text": "there"}, False),
    Row("gemini", "raw", "DONE at the end", G1 + G2 + data("[DONE]"), fails("UnknownApiResponseError", **GENERATED), fails("SyntaxError", **GENERATED), False),
    Row("gemini", "raw", "no space after the colon", (G1 + G2).replace(b"data: ", b"data:"), fails("UnknownApiResponseError"), GENERATED, False),
    Row("gemini", "raw", "error", G1 + sse(UNAVAILABLE), fails("ServerError", text="hi "), fails("ApiError", text="hi "), True),
    # Python ignores it in silence.
    Row("gemini", "raw", "error that does not come first", G1 + sse({"responseId": "r1"} | UNAVAILABLE), {"text": "hi "}, fails("ApiError", text="hi "), False),
    Row("gemini", "raw", "chunk without candidates", sse(WITHOUT_CANDIDATES) + G1 + sse(WITHOUT_CANDIDATES) + G2,
        GENERATED, GENERATED, True),
    Row("gemini", "raw", "CRLF", (G1 + G2).replace(b"\n", b"\r\n"), GENERATED, GENERATED, True),
    Row("gemini", "raw", "line separator within a text", separated(G1 + G2), GENERATED | APART_TEXT, GENERATED | APART_TEXT, True),
    # Ollama.
    Row("ollama", "raw", "nothing odd", lines(*OLLAMA), FINE, FINE, True),
    # Node.js complains on its console and goes on.
    Row("ollama", "raw", "blank line", lines(O1) + b"\n" + lines(*O_REST), fails("JSONDecodeError", text="hi "), FINE, False),
    Row("ollama", "raw", "line without text", lines(line(""), O1, line(""), *O_REST), FINE, FINE, True),
    # Other clients want all members of a line.
    Row("ollama", "raw", "line without time", lines(O1, TIMELESS, *O_REST), FINE, FINE, False),
    Row("ollama", "raw", "line separator within a text", separated(lines(*OLLAMA)), fails("JSONDecodeError"), APART, False),
    Row("ollama", "raw", "error and nothing else", lines({"error": "no more"}), fails("ResponseError"), fails("Error"), True),
    Row("ollama", "raw", "error", lines(O1, {"error": "no more"}), fails("ResponseError", text="hi "), fails("Error", text="hi "), True),
]
