"""What a run must have led to, on both sides."""

import secrets

from command import Answer, Client, Place
from upstream import Received, Upstream


def new_word() -> str:
    """A word that nothing contains by accident."""
    return f"harbour-{secrets.token_hex(4)}"


def plain_answer(client: Client, place: Place, upstream: Upstream, url: str, model: str) -> list[Received]:
    """The client repeats a word that only the upstream's answer can have brought. Returns what arrived upstream."""
    word = new_word()
    answer = client.ask(place, url, model, f"Answer with the word {word} and nothing else.")
    check_answer(answer, f"The word is {word}.", upstream)
    return asked_with_tools(client, upstream, 1)


def tool_round_trip(client: Client, place: Place, upstream: Upstream, url: str, model: str) -> list[Received]:
    """The client reads a file because the upstream told it to, and repeats what the upstream made of it."""
    word = new_word()
    note = place.work / "note.txt"
    note.write_text(f"The ship leaves from {word}.\n")
    answer = client.ask(place, url, model, f"Read the file {note} and say what it says.")
    check_answer(answer, f"The ship leaves from {word}.", upstream)
    asked = asked_with_tools(client, upstream, 2)
    assert [len(received.ask.results) for received in asked] == [0, 1]
    assert word in asked[1].ask.results[0]
    return asked


def check_answer(answer: Answer, expected: str, upstream: Upstream):
    refused = [received.refused for received in upstream.received if received.refused]
    assert not refused, f"the upstream refused a request: {refused}\n{answer.transcript}"
    assert answer.status == 0, answer.transcript
    assert expected in answer.text, answer.transcript


def asked_with_tools(client: Client, upstream: Upstream, count: int) -> list[Received]:
    """The requests of the conversation itself; some clients also ask for a title, without tools."""
    asked = [received for received in upstream.received if received.ask.tools]
    assert len(asked) == count, [(received.path, received.ask) for received in upstream.received]
    for received in asked:
        assert received.ask.streamed
        names = [tool.name for tool in received.ask.tools]
        assert client.tool in names and len(names) >= client.tools, names
        assert client.introduction in "\n".join(received.ask.instructions), received.ask.instructions
        # Where the dialect has no place for it, it is said in the user's name.
        assert client.reminder in "\n".join(received.ask.instructions + received.ask.prompts)
    return asked
