"""Real recordings: a sentence that is spoken, in every container that the tools of this machine can write."""

import os
import shutil
import subprocess
import wave
from pathlib import Path

import pytest

SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody minds at all."
TOOLS = ("espeak-ng", "sox", "opusenc")
# What sox writes by a name's ending.
BY_SOX = ("wav", "flac", "ogg", "mp3")


def need_tools():
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing and os.environ.get("CI"):
        pytest.fail(f"missing: {', '.join(missing)}; .ci/run installs them")
    if missing:
        pytest.skip(f"missing: {', '.join(missing)} (apt-get install espeak-ng sox libsox-fmt-mp3 opus-tools)")


def speak(folder: Path) -> dict[str, Path]:
    """The sentence, by the ending of its file's name."""
    need_tools()
    source = folder / "spoken.wav"
    subprocess.run(["espeak-ng", "-w", source, SENTENCE], check=True, timeout=30)
    made = {}
    for ending in BY_SOX:
        made[ending] = folder / f"speech.{ending}"
        subprocess.run(["sox", source, "-r", "16000", made[ending]], check=True, timeout=30)
    made["opus"] = folder / "speech.opus"
    subprocess.run(["opusenc", "--quiet", source, made["opus"]], check=True, timeout=30)
    return made


def silence(folder: Path, seconds: int = 1) -> Path:
    path = folder / "silence.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"\0\0" * 16000 * seconds)
    return path


def seconds(path: Path) -> float:
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()


def checksum(content: bytes) -> str:
    """FNV-1a, as the simulator writes it into what it heard."""
    result = 0x811C9DC5
    for byte in content:
        result = ((result ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{result:08x}"
