"""Streams with something odd in them, made out of one proper stream per dialect, and a server that sends them."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT_TYPES = {"ollama": "application/x-ndjson"}


def sse(*events, name: bool = False) -> bytes:
    """Events as `data:`; with `name` their type stands before them."""
    return b"".join((f"event: {event['type']}\n" if name else "").encode() + data(event) for event in events)


def data(event) -> bytes:
    return f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()


def lines(*documents) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


# Chat Completions.


def chunk(delta: dict | None = None, finish: str | None = None, **fields) -> dict:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices} | fields


HELLO = [chunk({"role": "assistant", "content": ""}), chunk({"content": "hi "}), chunk({"content": "there"})]
STOP = [chunk({}, "stop"), "[DONE]"]
CHAT = sse(*HELLO, *STOP)


def chat_call(index: int, first: dict, then: dict) -> bytes:
    pieces = [
        {"index": index, "function": {"name": "weather", "arguments": '{"a"'}} | first,
        {"index": index, "function": {"arguments": ":1}"} | then.pop("function", {})} | then,
    ]
    calls = [chunk({"tool_calls": [piece]}) for piece in pieces]
    return sse(HELLO[0], *calls, chunk({}, "tool_calls"), "[DONE]")


FIRST = {"id": "call_1", "type": "function"}
HALF = FIRST | {"index": 0, "function": {"name": "weather", "arguments": '{"a"'}}
CUT_OFF_CALL = sse(HELLO[0], chunk({"tool_calls": [HALF]}), chunk({}, "length"), "[DONE]")
AGAIN = FIRST | {"function": {"name": "weather"}}

# Messages.


def message_start(id: str = "msg_1") -> dict:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": id, "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    return {"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None}}


def block(index: int, start: dict, *deltas: dict) -> list[dict]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text_block(index: int) -> list[dict]:
    deltas = [{"type": "text_delta", "text": text} for text in ("hi ", "there")]
    return block(index, {"type": "text", "text": ""}, *deltas)


def tool_block(*fragments: str, **fields) -> list[dict]:
    deltas = [{"type": "input_json_delta", "partial_json": fragment} for fragment in fragments]
    return block(0, {"type": "tool_use", "id": "toolu_1", "name": "weather"} | fields, *deltas)


def message_end(reason: str = "end_turn") -> list[dict]:
    delta = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 2}}
    return [delta, {"type": "message_stop"}]


def messages(*events) -> bytes:
    return sse(*events, name=True)


PING = {"type": "ping"}
PROPER_MESSAGE = messages(message_start(), *text_block(0), *message_end())

# Responses.


def response(status: str = "in_progress", output: tuple = (), **fields) -> dict:
    base = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "error": None, "metadata": {}}
    base |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "instructions": None, "incomplete_details": None}
    return base | {"status": status, "output": list(output)} | fields


def item(status: str, *content: dict) -> dict:
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": list(content)}


def output_text(text: str) -> dict:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


AT = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
SAID = item("completed", output_text("hi there"))
CREATED = {"type": "response.created", "response": response()}
BEGUN = {"type": "response.in_progress", "response": response()}
ADDED = {"type": "response.output_item.added", "output_index": 0, "item": item("in_progress")}
PART = {"type": "response.content_part.added", **AT, "part": output_text("")}
DELTAS = [{"type": "response.output_text.delta", **AT, "delta": text, "logprobs": []} for text in ("hi ", "there")]
DONE = [
    {"type": "response.output_text.done", **AT, "text": "hi there", "logprobs": []},
    {"type": "response.content_part.done", **AT, "part": output_text("hi there")},
    {"type": "response.output_item.done", "output_index": 0, "item": SAID},
]
TOKENS = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
TOKENS |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
COMPLETED = {"type": "response.completed", "response": response("completed", (SAID,), usage=TOKENS)}
CUT_SHORT = response("incomplete", (SAID,), incomplete_details={"reason": "max_output_tokens"}, usage=TOKENS)
BROKE = {"code": "server_error", "message": "no more"}
FAILED = {"type": "response.failed", "response": response("failed", error=BROKE)}
RESPONSE = [CREATED, BEGUN, ADDED, PART, *DELTAS, *DONE, COMPLETED]


def responses(*events, numbered: bool = True) -> bytes:
    numbers = [{"sequence_number": at} if numbered else {} for at in range(len(events))]
    return sse(*(event | number for event, number in zip(events, numbers, strict=True)), name=True)


# Gemini.


def candidate(text: str, **fields) -> dict:
    part = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0} | fields
    return {"candidates": [part], "responseId": "r1", "modelVersion": "m"}


GEMINI = [candidate("hi "), candidate("there", finishReason="STOP") | {"usageMetadata": {"totalTokenCount": 3}}]
WITHOUT_CANDIDATES = {"responseId": "", "modelVersion": "m"}
UNAVAILABLE = {"error": {"code": 503, "message": "no more", "status": "UNAVAILABLE"}}

# Ollama.


COUNTS = {"total_duration": 3, "load_duration": 0, "prompt_eval_count": 1, "prompt_eval_duration": 1}
END = COUNTS | {"eval_count": 2, "eval_duration": 2, "done": True, "done_reason": "stop"}


def line(text: str, done: bool = False) -> dict:
    base = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": text}}
    return base | (END if done else {"done": False})


OLLAMA = [line("hi "), line("there"), line("", done=True)]


class Server:
    """Answers each request with the bytes that belong to the name of the model it asks for, as they are."""

    def __init__(self, streams: dict[str, tuple[str, bytes]]):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                in_path = re.search(r"/models/([^:]+):", self.path)
                dialect, sent = streams[in_path[1] if in_path else json.loads(body)["model"]]
                self.send_response(200)
                self.send_header("content-type", CONTENT_TYPES.get(dialect, "text/event-stream"))
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
