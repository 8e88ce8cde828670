"""Recordings through the OpenAI SDK: to upstreams of its own form, to Deepgram and to AssemblyAI."""

import io
import json
import re
import threading
import time

import httpx
import openai
import pytest
from conftest import openai_client
from gateway import Gateway, until
from recordings import checksum, seconds, silence, speak

# Where recordings go, and which model there.
PLACES = {
    "oa-media": "whisper-1",
    "groq": "whisper-large-v3-turbo",
    "deepgram": "nova-3",
    "assemblyai": "best",
}
ENDINGS = ("wav", "flac", "ogg", "mp3", "opus", "m4a", "mp4", "webm", "aac")
# What the simulator calls them, where that is not the name's ending.
KINDS = {"opus": "ogg", "m4a": "mp4"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """One of its own: accounts at vendors of the catalogue would show up in the lists of other cases."""
    gateway = Gateway(tmp_path_factory.mktemp("gateway")).start()
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def oa(gateway):
    return openai_client(gateway)


@pytest.fixture(scope="module")
def plain(gateway):
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return speak(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def listeners(gateway, simulator):
    """Accounts at all of them, each at the simulator."""
    here = {"allowPrivate": True}
    gateway.node("openai", f"{simulator.url}/v1", prefix="oa-media")
    for provider, base in (("groq", "/groq/v1"), ("deepgram", "/v1"), ("assemblyai", "/v2")):
        data = {"baseUrl": simulator.url + base} | here
        gateway.connection(provider, f"{provider} here", f"key-{provider}", providerSpecificData=data)
    return PLACES


@pytest.fixture(params=list(PLACES))
def listener(request, listeners):
    return f"{request.param}/{listeners[request.param]}"


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_byte_of_every_container_arrives(oa, listener, recordings, ending):
    content = recordings[ending].read_bytes()
    kind = KINDS.get(ending, ending)
    if ending == "aac" and listener.startswith(("oa-media", "groq")):
        # These vendors want a container around it, and say so.
        with pytest.raises(openai.BadRequestError, match="invalid file format"):
            oa.audio.transcriptions.create(model=listener, file=recordings[ending])
        return
    heard = oa.audio.transcriptions.create(model=listener, file=recordings[ending])
    assert heard.text == f"I heard {len(content)} bytes of {kind} with the sum {checksum(content)}."
    told = heard.model_dump()
    assert (told["task"], set(told) >= {"language", "duration"}) == ("transcribe", True)


@pytest.mark.parametrize("ending", ("m4a", "webm", "aac"))
def test_recordings_are_known_by_what_is_in_them(oa, listener, recordings, ending):
    """Browsers and telephones name them as they like."""
    content = recordings[ending].read_bytes()
    if ending == "aac" and listener.startswith(("oa-media", "groq")):
        return
    for file in (("blob", content), ("speech.wav", content, "video/mp4" if ending == "m4a" else None)):
        heard = oa.audio.transcriptions.create(model=listener, file=file)
        assert heard.text == (
            f"I heard {len(content)} bytes of {KINDS.get(ending, ending)} with the sum {checksum(content)}."
        )


def test_every_format(oa, listener, recordings):
    wav = recordings["wav"]
    length = seconds(wav)
    verbose = oa.audio.transcriptions.create(
        model=listener, file=wav, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert abs(float(verbose.duration) - length) < 1
    assert verbose.segments and verbose.words
    assert verbose.segments[0].start == 0 and abs(verbose.segments[-1].end - length) < 0.1
    assert verbose.words[0].word == "I" and verbose.words[-1].end >= verbose.words[-1].start
    words = oa.audio.transcriptions.create(
        model=listener, file=wav, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert words.words and not words.segments
    text = oa.audio.transcriptions.create(model=listener, file=wav, response_format="text")
    assert text.startswith("I heard") and text.endswith("\n")
    for kind, point in (("srt", ","), ("vtt", ".")):
        subtitles = oa.audio.transcriptions.create(model=listener, file=wav, response_format=kind)
        assert subtitles.startswith("1\n00:00:00" if kind == "srt" else "WEBVTT\n\n00:00:00"), subtitles
        times = re.findall(rf"(\d\d):(\d\d):(\d\d)\{point}(\d\d\d) --> ", subtitles)
        assert times and times == sorted(times)
        if not listener.startswith("oa-media"):
            lines = [line for line in subtitles.splitlines() if line and "-->" not in line and not line.isdigit()]
            assert all(len(line) <= 42 for line in lines), lines


def test_silence_is_an_answer(oa, listener, tmp_path):
    path = silence(tmp_path)
    assert oa.audio.transcriptions.create(model=listener, file=path).text == ""
    assert oa.audio.transcriptions.create(model=listener, file=path, response_format="srt").strip() == ""


def test_speakers(oa, listeners, recordings):
    for place in ("deepgram", "assemblyai"):
        heard = oa.audio.transcriptions.create(
            model=f"{place}/{listeners[place]}", file=recordings["wav"], response_format="diarized_json"
        )
        assert [turn.speaker for turn in heard.segments] == ["A"]


def test_translations_and_speech(oa, listeners, recordings):
    english = oa.audio.translations.create(model="oa-media/whisper-1", file=recordings["wav"])
    assert english.text.startswith("I heard")
    with pytest.raises(openai.BadRequestError, match="does not translate"):
        oa.audio.translations.create(model="deepgram/nova-3", file=recordings["wav"])
    spoken = oa.audio.speech.create(model="oa-media/tts-1", voice="alloy", input="Hello there", response_format="wav")
    assert spoken.content.startswith(b"RIFF") and spoken.response.headers["content-type"] == "audio/wav"
    heard = oa.audio.transcriptions.create(model="deepgram/nova-3", file=("spoken.wav", spoken.content))
    assert f"{len(spoken.content)} bytes of wav" in heard.text


def test_a_large_file_reaches_the_second_account(gateway, simulator, recordings):
    prefix = gateway.node("openai", f"{simulator.url}/v1", keys=["sk-limited-a", "sk-good-a"])
    content = recordings["wav"].read_bytes() + bytes(9 * 1024 * 1024)
    client = openai_client(gateway)
    raw = client.audio.transcriptions.with_raw_response.create(
        model=f"{prefix}/whisper-1", file=("long.wav", content, "audio/wav")
    )
    assert raw.headers["x-omniroute-attempts"] == "2"
    assert checksum(content[:1000]) and f"{len(content)} bytes of wav" in raw.parse().text


def test_what_is_wrong_is_said(plain, oa, listeners, recordings):
    wav = recordings["wav"].read_bytes()
    url = "/v1/audio/transcriptions"
    cases = [
        (dict(files={"file": ("a.wav", wav)}), "model"),
        (dict(files={"file": ("a.wav", b"")}, data={"model": "deepgram/nova-3"}), "no bytes"),
        (dict(files={"x": ("a.wav", wav)}, data={"model": "deepgram/nova-3"}), "file"),
        (dict(files={"file": ("a.png", b"\x89PNG\r\n\x1a\n")}, data={"model": "deepgram/nova-3"}), "unsupported_content"),
        (dict(files={"file": ("a.wav", wav)}, data={"model": "nowhere/nova-3"}), "nowhere"),
        (dict(files={"file": ("a.wav", wav)}, data={"model": "deepgram/nova-3", "response_format": "xml"}), "response_format"),
        (dict(json={"model": "deepgram/nova-3"}), "multipart/form-data"),
        (dict(content=b"--B\r\nbroken", headers={"content-type": "multipart/form-data; boundary=B"}), "form"),
    ]
    for arguments, says in cases:
        answer = plain.post(url, **arguments)
        assert answer.status_code == 400, answer.text
        assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
        assert says in answer.text, answer.text
    with pytest.raises(openai.APIStatusError) as told:
        oa.audio.transcriptions.create(model="deepgram/nova-9", file=recordings["wav"])
    assert "No such model" in told.value.message


def test_who_hangs_up_leaves_nothing_behind(gateway, simulator, plain, recordings, listeners):
    """The transcript that nobody waits for is deleted."""
    def ordered():
        there = httpx.get(f"{simulator.url}/v2/transcript", headers={"authorization": "key-assemblyai"}).json()
        return {it["id"] for it in there["transcripts"]}

    before = ordered()
    client = openai_client(gateway, timeout=3)
    with pytest.raises(openai.APITimeoutError):
        client.audio.transcriptions.create(model="assemblyai/stall-0", file=recordings["wav"])
    until(lambda: ordered() == before, "the order was deleted", 5)


def test_a_repetition_with_a_key_gets_the_same(gateway, plain, listeners, recordings):
    form = dict(files={"file": ("a.wav", recordings["wav"].read_bytes())}, data={"model": "oa-media/whisper-1"})
    headers = {"idempotency-key": "audio-1"}
    first = plain.post("/v1/audio/transcriptions", headers=headers, **form)
    again = plain.post("/v1/audio/transcriptions", headers=headers, **form)
    assert again.headers.get("x-omniroute-idempotent") == "true" and again.content == first.content
    logged = gateway.call_logs(limit=50)
    assert any("audio/transcriptions" in json.dumps(row) for row in logged)


def test_many_at_once(gateway, listeners, recordings):
    client, said = openai_client(gateway), []

    def ask():
        said.append(client.audio.transcriptions.create(model="deepgram/nova-3", file=recordings["mp3"]).text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(said) == 8 and len(set(said)) == 1 and time.monotonic() - began < 20


def test_forms_of_other_hands(oa, listeners, recordings):
    """A file without a name's ending, and bytes from memory."""
    content = recordings["flac"].read_bytes()
    for file in (("blob", content), ("speech", io.BytesIO(content), "audio/x-flac")):
        assert "of flac" in oa.audio.transcriptions.create(model="oa-media/whisper-1", file=file).text
