"""What the cases ask for."""

import base64
import struct
import zlib

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city"],
}
TIME = {"type": "object", "properties": {}}

OPENAI_TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "the weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "time", "description": "the time", "parameters": TIME}},
]
ANTHROPIC_TOOLS = [
    {"name": "weather", "description": "the weather", "input_schema": WEATHER},
    {"name": "time", "description": "the time", "input_schema": TIME},
]


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def png() -> str:
    """A picture of one red dot, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    dot = zlib.compress(b"\x00\xff\x00\x00")
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", dot) + chunk(b"IEND", b"")
    return base64.b64encode(picture).decode()
