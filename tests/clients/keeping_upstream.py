"""An upstream that speaks Responses and keeps what it answered, for each account by itself."""

import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
USAGE |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
ABOUT_ONE = re.compile(r"/v1/responses/([^/]+)(/cancel|/input_items)?$")


class KeepingUpstream:
    """Only an account that made an answer can find it. Answers in the background are never done."""

    def __init__(self):
        # Answers by account and id.
        self.kept: dict[tuple[str, str], dict] = {}
        self.inputs: dict[str, list] = {}
        # Which account was asked for what.
        self.asked: list[tuple[str, str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.answer("POST")

            def do_GET(self):
                self.answer("GET")

            def do_DELETE(self):
                self.answer("DELETE")

            def answer(self, method: str):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                account = self.headers["authorization"]
                status, answer = outer.respond(account, method, urlsplit(self.path), body)
                is_stream = isinstance(answer, bytes)
                sent = answer if is_stream else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "text/event-stream" if is_stream else "application/json")
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def respond(self, account: str, method: str, url, body: bytes) -> tuple[int, dict | bytes]:
        self.asked.append((account, method, url.path))
        if (method, url.path) == ("POST", "/v1/responses"):
            return 200, self.make(account, json.loads(body))
        found = ABOUT_ONE.match(url.path)
        one = found and self.kept.get((account, found[1]))
        if not one:
            message = f"Response with id '{found[1]}' not found." if found else "no such path"
            return 404, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        query = parse_qs(url.query)
        match method, found[2]:
            case "GET", None if query.get("stream") == ["true"]:
                return 200, stream(one, int(query.get("starting_after", ["-1"])[0]))
            case "GET", None:
                return 200, one
            case "DELETE", None:
                del self.kept[account, one["id"]]
                return 200, {"id": one["id"], "object": "response", "deleted": True}
            case "POST", "/cancel":
                one["status"] = "cancelled"
                return 200, one
            case _:
                items = self.inputs[one["id"]][: int(query.get("limit", ["20"])[0])]
                ids = {"first_id": items[0]["id"], "last_id": items[-1]["id"], "has_more": False}
                return 200, {"object": "list", "data": items} | ids

    def make(self, account: str, asked: dict) -> dict:
        id = f"resp_{uuid.uuid4().hex}"
        in_background = asked.get("background", False)
        text = {"type": "output_text", "text": f"answer to {asked['input']}", "annotations": [], "logprobs": []}
        said = {"type": "message", "id": f"msg_{id}", "role": "assistant", "status": "completed", "content": [text]}
        one = {
            "id": id,
            "object": "response",
            "created_at": 1,
            "status": "queued" if in_background else "completed",
            "background": in_background,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": asked["model"],
            "output": [] if in_background else [said],
            "parallel_tool_calls": True,
            "previous_response_id": asked.get("previous_response_id"),
            "store": asked.get("store", True),
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": None if in_background else USAGE,
        }
        if one["store"]:
            self.kept[account, id] = one
            content = [{"type": "input_text", "text": asked["input"]}]
            self.inputs[id] = [{"type": "message", "id": f"msg_of_{id}", "role": "user", "content": content}]
        return one

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def stream(one: dict, after: int) -> bytes:
    """The events of an answer that stand behind the one with this number."""
    [said] = one["output"]
    at = {"item_id": said["id"], "output_index": 0, "content_index": 0}
    text = said["content"][0]["text"]
    events = [
        {"type": "response.created", "response": one | {"status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": said | {"content": []}},
        {"type": "response.content_part.added", **at, "part": said["content"][0] | {"text": ""}},
        {"type": "response.output_text.delta", **at, "delta": text, "logprobs": []},
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": said["content"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": said},
        {"type": "response.completed", "response": one},
    ]
    numbered = [event | {"sequence_number": at} for at, event in enumerate(events)][after + 1 :]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in numbered)
