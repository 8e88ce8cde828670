"""What the documents tell to type can be typed: their commands are run, in their order, and none is refused."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from gateway import TOKEN, Gateway

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md") if re.search(r"^\$ .*curl", page.read_text(), re.M))
# Followed by hand, with a browser and with a model of one's own.
BY_HAND = {"first-run.md"}
# The gateway's own ports in the documents.
ADDRESS = re.compile(r"(?:http://)?(?:localhost|127\.0\.0\.1):20128")
# Who is in the examples. Nobody calls them: their commands only configure.
ACCOUNTS = ("openai", "anthropic", "groq", "gemini", "openrouter", "cerebras", "xai")
# `curl` as in the documents, but each of its answers is written down with its status.
SHELL = r"""
curl() {
  printf '\n<<<%s\n' "$*" >> "$LOG"
  local into=(-o "$LOG.body")
  for argument in "$@"; do case $argument in -o) into=(); echo '(in a file)' > "$LOG.body";; esac; done
  command curl -sS --max-time 20 "${into[@]}" -D "$LOG.head" -w '%{http_code}' "$@" > "$LOG.status" 2>> "$LOG"
  printf '%s ' "$(cat "$LOG.status")" >> "$LOG"; head -c 65536 "$LOG.body" >> "$LOG"
  for argument in "$@"; do case $argument in -i|-si|-sSi) cat "$LOG.head";; esac; done
  cat "$LOG.body"
}
"""


@dataclass
class Answer:
    """What a command of a document was answered."""

    command: str
    status: int
    body: str


def commands(page: str) -> list[str]:
    """Everything behind a `$` in the blocks of a page, with its further lines."""
    found: list[str] = []
    for block in re.findall(r"^```console\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S):
        whole = ""
        for line in block.splitlines():
            if line.startswith("$ "):
                whole = line[2:]
            elif whole:
                whole += "\n" + line
            else:
                continue
            if is_whole(whole):
                found.append(whole)
                whole = ""
    return found


def is_whole(text: str) -> bool:
    """Whether a shell would not wait for more."""
    return not text.endswith("\\") and subprocess.run(["bash", "-nc", text], capture_output=True).returncode == 0


def run(gateway: Gateway, page: str, names: dict[str, str]) -> list[Answer]:
    log = gateway.folder / f"{page}.log"
    log.touch()
    script = SHELL
    for command in commands(page):
        if calls_a_vendor(command):
            continue
        if "jq" in command and not shutil.which("jq"):
            assert not os.environ.get("CI"), "the commands of the pages need jq"
            continue
        # Ids that a reader puts in.
        for place, value in names.items():
            command = re.sub(place, value, command)
        script += ADDRESS.sub(gateway.url, command) + "\n"
    environment = {"PATH": os.environ["PATH"], "LOG": str(log), "auth": f"authorization: Bearer {TOKEN}"}
    environment |= {"MANAGEMENT_TOKEN": TOKEN, "id": names["combo id"], "ID": names["combo id"]}
    subprocess.run(
        ["bash", "-c", script], cwd=gateway.folder, env=environment, timeout=120, capture_output=True, check=False
    )
    answers = []
    for part in log.read_text(errors="replace").split("\n<<<")[1:]:
        command, _, rest = part.rpartition("\n") if part.count("\n") == 1 else split(part)
        status, _, body = rest.partition(" ")
        answers.append(Answer(command, int(status) if status.isdigit() else 0, body))
    return answers


def split(part: str) -> tuple[str, str, str]:
    """The command, which may have line ends, and what was answered, which begins with its status."""
    found = list(re.finditer(r"\n(?=\d{3} )", part))
    at = found[0].start() if found else len(part)
    return part[:at], "\n", part[at + 1 :]


def calls_a_vendor(command: str) -> bool:
    """Whether a model that is not the simulator's would be asked."""
    if not re.search(r"/v1/|/v1beta/|:20128/api/(chat|embed)", command):
        return False
    is_asked = '"path"' not in command
    return is_asked and "sim/" not in command and "ask" not in command and "GET" not in command and " -d" in command


def add_combo(gateway: Gateway, name: str) -> str:
    made = gateway.call("POST", "/combos", 201, json={"name": name, "models": ["sim/echo", "sim/lorem"]})
    return made.get("combo", made)["id"]


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """A gateway as a reader of the documents may have one."""
    gateway = Gateway(tmp_path_factory.mktemp("documents")).start()
    accounts = {name: gateway.connection(name, "main", f"sk-of-{name}-1234567890") for name in ACCOUNTS}
    gateway.node("openai", "http://127.0.0.1:9/v1", prefix="mine")
    (gateway.folder / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    _, key = gateway.key("ci reader")
    combo = [add_combo(gateway, name) for name in ("cheap", "local")][0]
    names = {
        r'("api_?[kK]ey_?[iI]d":\s*)"(…|<[^"]*>)"': rf'\1"{key}"',
        r'("connectionId":\s*)"…"': rf'\1"{accounts["openai"]["id"]}"',
        r'("comboId":\s*)"…"': rf'\1"{combo}"',
        r"/api/keys/\$ID": f"/api/keys/{key}",
        r"/api/providers/\$ID": f"/api/providers/{accounts['groq']['id']}",
        r"/api/usage/\$ID": f"/api/usage/{accounts['groq']['id']}",
        r"connectionId=\$ID": f"connectionId={accounts['groq']['id']}",
        r'("(?:connection)":\s*)"work"': rf'\1"{accounts["openai"]["id"]}"',
        r'"gsk_…", "gsk_…"': '"gsk_second_1234567890", "gsk_third_1234567890"',
        r"gsk_…": "gsk_first_1234567890",
        r"\[…\]": '[{"role":"user","content":"hello"}]',
    }
    yield gateway, names | {"combo id": combo}
    gateway.stop()


@pytest.fixture(scope="module")
def tried(documented):
    """What the commands of a page are answered; each page is run once."""
    gateway, names = documented
    ran: dict[str, list[Answer]] = {}

    def answers(page: str) -> list[Answer]:
        if page not in ran:
            # Pages speak of a combo `best`, and one shows how it is made.
            for row in gateway.call("GET", "/combos")["combos"]:
                if row["name"] == "best":
                    gateway.call("DELETE", f"/combos/{row['id']}")
            if '"name": "best"' not in (DOCS / page).read_text():
                add_combo(gateway, "best")
            ran[page] = run(gateway, page, names)
        return ran[page]

    return answers


@pytest.mark.parametrize("page", [page for page in PAGES if page not in BY_HAND])
def test_no_command_of_a_page_is_refused(tried, page):
    answers = tried(page)
    assert answers, f"{page} has commands, but none was run"
    refused = [answer for answer in answers if not 200 <= answer.status < 400]
    assert not refused, "\n\n".join(f"curl {answer.command}\n{answer.status} {answer.body}" for answer in refused)


@pytest.mark.skipif(not shutil.which("jq"), reason="the commands of the page need jq")
def test_a_conversation_is_handed_over_as_the_page_says(tried):
    logged = [answer.body for answer in tried("routing.md") if "/api/usage/call-logs/" in answer.command]
    handed = [body for body in logged if re.search(r'"handoffFrom":"[^"]+"', body)]
    assert handed and '"account":"two"' in handed[0], logged


def examples() -> dict[str, dict]:
    """The combos that the page on routing shows one by one, by their strategies."""
    text = (DOCS / "routing.md").read_text()
    rows = re.findall(r"^\| `combo '(\{.*?\})'` \|", text, re.M)
    return {combo["strategy"]: combo for combo in map(json.loads, rows)}


def test_every_strategy_has_an_example_that_runs(documented):
    gateway, _ = documented
    table = (DOCS / "routing.md").read_text().split("| Strategy | Order |", 1)[1].split("\n\n", 1)[0]
    strategies = re.findall(r"^\| `([a-z0-9-]+)`", table, re.M)
    shown = examples()
    assert len(strategies) > 15 and sorted(strategies) == sorted(shown)
    for strategy, combo in shown.items():
        gateway.call("POST", "/combos", 201, json=combo | {"name": f"tried-{strategy}"})
        body = {"model": f"tried-{strategy}", "messages": [{"role": "user", "content": "hello"}]}
        names = [entry if isinstance(entry, str) else entry["model"] for entry in combo["models"]]
        if all(name.startswith("sim/") for name in names):
            answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=20)
            assert answer.status_code == 200, f"{strategy}: {answer.text}"
            assert answer.headers["x-omniroute-combo"] == f"tried-{strategy}"
        explained = gateway.call("POST", "/route/explain", json={"path": "/v1/chat/completions", "body": body})
        assert (explained["strategy"], explained["error"]) == (strategy, None), explained
        assert explained["candidates"], strategy
