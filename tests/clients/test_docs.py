"""The commands of the docs pages, run as they stand there: each succeeds and says what the page shows."""

import base64
import re
import subprocess
from pathlib import Path

import pytest
from gateway import TOKEN, clean_environment

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("audio", "cache", "embeddings", "idempotency", "images", "progress")
# A picture of one point.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
# What is another number each time.
VARIES = re.compile(r'("elapsed_ms":|"tokens_generated":|"dbSize":|img-sim)\d+')


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Commands, and what is shown below each."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.S):
        goes_on = False
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif goes_on:
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            else:
                found[-1][1].append(line)
            goes_on = line.endswith("\\") or (goes_on and line.endswith("\\"))
    return found


def shown(text: str) -> str:
    return VARIES.sub(r"\1#", text.strip())


@pytest.mark.parametrize("page", PAGES)
def test_commands_do_what_the_page_says(page, own_gateway, tmp_path):
    gateway = own_gateway()
    asked = commands(page)
    assert asked, f"docs/{page}.md has no commands"
    (tmp_path / "cat.png").write_bytes(base64.b64decode(PNG))
    script = []
    for at, (command, _) in enumerate(asked):
        script.append(re.sub(r"(http://)?(127\.0\.0\.1|localhost):20128", gateway.url, command))
        script.append(f'status=$?; echo; echo "<<{at} $status>>"')
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=clean_environment({"MANAGEMENT_TOKEN": TOKEN}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    rest = ran.stdout.decode(errors="replace").replace("\r", "")
    for at, (command, wanted) in enumerate(asked):
        said, mark, rest = re.split(rf"\n<<{at} (\d+)>>\n", rest, maxsplit=1)
        assert mark == "0", f"{command}\n{said}\n{ran.stderr.decode(errors='replace')}"
        assert '"error"' not in said, f"{command}\n{said}"
        lines = iter([shown(line) for line in said.splitlines()])
        for line in wanted:
            gap_or_blank = line.strip() in ("…", "")
            assert gap_or_blank or shown(line) in lines, f"{command}\nshows {line!r}, said:\n{said}"
