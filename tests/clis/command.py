"""The command-line clients: how each is pointed at an address and asked one thing without a terminal.

Every run has a home of its own, so that nothing is found from before, and an environment without anything that would
configure the client. All ways out of this machine lead to a `Trap`.
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gateway import clean_environment

BIN = Path(__file__).parent / "node_modules" / ".bin"
# A turn takes two to eight seconds; a client that waits for something that never comes should not hold up the rest.
PATIENCE = 60


class DidNotEnd(AssertionError):
    """A client waits for something that does not come."""


@dataclass
class Answer:
    """What a run left behind."""

    text: str
    status: int
    transcript: str


@dataclass
class Place:
    """Where a client runs: an empty home, and a folder to work in."""

    home: Path
    work: Path
    trap: "Trap"

    def environment(self, extra: dict[str, str]) -> dict[str, str]:
        ways_out = {name: self.trap.url for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
        own = {"HOME": str(self.home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "NO_COLOR": "1", "CI": "true"}
        own |= {f"XDG_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE", "STATE")}
        return clean_environment(ways_out | own | extra)

    def write(self, path: str, text: str):
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@dataclass
class Client:
    """A command-line client. `set_up` writes its configuration and returns its arguments and its environment."""

    name: str
    dialect: str
    tool: str
    """Its own tool for reading files."""
    tools: int
    """How many tools it offers at least."""
    introduction: str
    """Words of its system prompt."""
    program: str
    set_up: Callable = field(repr=False)
    keeps_signatures: bool = True
    """Whether it gives opaque data beside thoughts back."""
    reminder: str = ""
    """Words of an instruction that it gives in the middle of the conversation."""
    lapses: int = 0
    """How often in a row it may miss that it was refused, and wait for ever."""

    def ask_in_vain(self, place: Place, url: str, model: str, prompt: str) -> Answer:
        """Asks for what will be refused, and once more where the client stays behind."""
        for _ in range(self.lapses):
            try:
                return self.ask(place, url, model, prompt)
            except DidNotEnd:
                pass
        return self.ask(place, url, model, prompt)

    def ask(self, place: Place, url: str, model: str, prompt: str) -> Answer:
        """`url` is the address without a version; `model` may have a prefix."""
        arguments, environment = self.set_up(place, url, model, prompt)
        try:
            ended = subprocess.run(
                [str(BIN / self.program), *arguments],
                cwd=place.work,
                env=place.environment(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired as late:
            said = "\n".join(str(part or b"", "utf-8", "replace")[-4000:] for part in (late.stdout, late.stderr))
            raise DidNotEnd(f"{self.name} did not end within {PATIENCE} s:\n{said}") from None
        return Answer(ended.stdout, ended.returncode, f"{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}")


def claude_code(place: Place, url: str, model: str, prompt: str):
    environment = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "sk-anything",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    return ["-p", prompt, "--model", model], environment


def codex(place: Place, url: str, model: str, prompt: str):
    place.write(
        ".codex/config.toml",
        f'model = "{model}"\n'
        'model_provider = "omniroute"\n'
        "[model_providers.omniroute]\n"
        'name = "OmniRoute"\n'
        f'base_url = "{url}/v1"\n'
        'env_key = "OMNIROUTE_API_KEY"\n'
        'wire_api = "responses"\n'
        "[features]\n"
        "plugins = false\n"
        "[analytics]\n"
        "enabled = false\n",
    )
    # Its sandbox needs rights that a container may not give; the folder it works in is thrown away anyway.
    arguments = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", prompt]
    return arguments, {"OMNIROUTE_API_KEY": "sk-anything"}


def gemini_cli(place: Place, url: str, model: str, prompt: str):
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
    }
    place.write(".gemini/settings.json", json.dumps(settings))
    environment = {
        "GOOGLE_GEMINI_BASE_URL": url,
        "GEMINI_API_KEY": "sk-anything",
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
    }
    return ["-p", prompt, "-m", model, "--yolo"], environment


def opencode(place: Place, url: str, model: str, prompt: str):
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "OmniRoute",
        "options": {"baseURL": f"{url}/v1", "apiKey": "sk-anything"},
        "models": {model: {"name": model, "reasoning": True, "options": {"reasoningEffort": "high"}}},
    }
    configuration = {
        "autoupdate": False,
        "share": "disabled",
        "provider": {"omniroute": provider},
        "enabled_providers": ["omniroute"],
    }
    place.write("config/opencode/opencode.json", json.dumps(configuration))
    # It would fetch the types for writing plug-ins, unless they seem to be there.
    locked = {"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}}
    place.write("config/opencode/package-lock.json", json.dumps(locked))
    place.write("config/opencode/node_modules/.keep", "")
    switches = ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD", "SHARE", "DEFAULT_PLUGINS")
    environment = {f"OPENCODE_DISABLE_{switch}": "1" for switch in switches} | {"OPENCODE_PURE": "1"}
    return ["run", "-m", f"omniroute/{model}", prompt], environment


CLIENTS = {
    client.name: client
    for client in (
        Client(
            "claude-code", "anthropic", "Read", 20, "Claude", "claude", claude_code, reminder="Available agent types"
        ),
        Client("codex", "responses", "exec_command", 5, "Codex", "codex", codex),
        Client("gemini-cli", "gemini", "read_file", 12, "Gemini CLI", "gemini", gemini_cli),
        # Asked directly too, about one `opencode run` in twenty does not hear of an error that comes early, and never ends
        # (anomalyco/opencode#8203, #42268).
        Client("opencode", "openai", "read", 8, "opencode", "opencode", opencode, keeps_signatures=False, lapses=2),
    )
}


class Trap:
    """A proxy that lets nothing through and remembers who was to be called."""

    def __init__(self):
        self.wanted: list[str] = []
        trap = self

        class Refusal(BaseHTTPRequestHandler):
            def refuse(self):
                trap.wanted.append(f"{self.command} {self.path}")
                self.send_error(403, "nothing leaves this machine")

            do_CONNECT = do_GET = do_POST = do_HEAD = do_PUT = refuse

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def is_installed() -> bool:
    return all(os.access(BIN / client.program, os.X_OK) for client in CLIENTS.values())
