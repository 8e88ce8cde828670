"""Real recordings: a sentence that is spoken, in every container that the tools of this machine can write."""

import os
import shutil
import subprocess
import wave
from pathlib import Path

import av
import pytest

SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody minds at all."
TOOLS = ("espeak-ng", "sox", "opusenc")
# What sox writes by a name's ending.
BY_SOX = ("wav", "flac", "ogg", "mp3")
# What PyAV writes by a name's ending: the container, and how the sound in it is written.
BY_AV = {
    "m4a": ("ipod", "aac"),
    "mp4": ("mp4", "aac"),
    "webm": ("webm", "libopus"),
    "aac": ("adts", "aac"),
}


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
    for ending, (container, codec) in BY_AV.items():
        made[ending] = folder / f"speech.{ending}"
        rewrite(made["wav"], made[ending], container, codec)
    return made


def rewrite(source: Path, goal: Path, container: str, codec: str):
    """The same sound in another container."""
    with av.open(str(source)) as given, av.open(str(goal), "w", format=container) as written:
        stream = written.add_stream(codec, rate=48000)
        stream.layout = "mono"
        # Frames of the length that the codec takes.
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48000)
        queue = av.AudioFifo()
        for frame in given.decode(audio=0):
            for piece in resampler.resample(frame):
                queue.write(piece)
        for piece in resampler.resample(None):
            queue.write(piece)
        # The codec says so only after it was opened.
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 4096
        while piece := queue.read(size, partial=True):
            written.mux(stream.encode(piece))
        written.mux(stream.encode(None))


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


def length(path: Path) -> float:
    """Seconds of any recording, by somebody else's reading."""
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
        return sum(frame.samples / frame.sample_rate for frame in frames)


def checksum(content: bytes) -> str:
    """FNV-1a, as the simulator writes it into what it heard."""
    result = 0x811C9DC5
    for byte in content:
        result = ((result ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{result:08x}"
