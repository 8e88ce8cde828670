"""Server-sent events, as strictly as the strictest SDK of a dialect wants them."""


def events(sent: bytes, *fields: str, comments: bool) -> list[dict[str, str]]:
    """The events, which must have just these fields. `comments` tells whether the SDKs know comments."""
    assert sent.endswith((b"\n\n", b"\r\n\r\n")), "the last event has no end"
    found = []
    for block in sent.decode().replace("\r\n", "\n").removesuffix("\n\n").split("\n\n"):
        rows = [row for row in block.split("\n") if not (comments and row.startswith(":"))]
        event: dict[str, str] = {}
        for row in rows:
            name, colon, value = row.partition(": ")
            assert colon and name in fields, f"not a line of an event: {row!r}"
            # SDKs that know comments also join data of several lines; an upstream's are passed on as they came.
            assert name not in event or (comments and name == "data"), f"a second {name}: {block!r}"
            event[name] = f"{event[name]}\n{value}" if name in event else value
        assert not event or list(event) == list(fields), f"not the lines of an event: {block!r}"
        if event:
            found.append(event)
    assert found, "nothing but comments"
    return found
