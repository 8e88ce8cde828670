"""What docs/clients tells to set up is what the clients are run with here."""

import json
import re
from pathlib import Path

import pytest
from command import CLIENTS, Place

PAGES = Path(__file__).parents[2] / "docs" / "clients"
# Only so that nothing else happens in a test, and nothing that a user would need.
ONLY_HERE = {
    "telemetry", "enabled", "enableAutoUpdate", "enableAutoUpdateNotification", "general", "autoupdate", "share", "enabled_providers",
    "packages", "dependencies", "@opencode-ai/plugin", "OPENCODE_DISABLE_AUTOUPDATE", "OPENCODE_DISABLE_LSP_DOWNLOAD",
    "OPENCODE_DISABLE_SHARE", "OPENCODE_DISABLE_DEFAULT_PLUGINS", "OPENCODE_PURE",
}


class Written(Place):
    """A place that remembers what was written instead of writing it."""

    def __init__(self):
        super().__init__(Path("/home"), Path("/work"), None)
        self.files: dict[str, str] = {}

    def write(self, path: str, text: str):
        self.files[path] = text


def names(value) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(names(member) for member in value.values()))
    return set()


def settings(path: str, text: str) -> set[str]:
    """What a file of configuration sets."""
    if path.endswith(".json"):
        return names(json.loads(text))
    return set(re.findall(r"^(\w+) =", text, re.M)) | set(re.findall(r"^\[([\w.]+)\]", text, re.M))


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_the_page_has_the_set_up(client):
    page = (PAGES / f"{client.name}.md").read_text()
    place = Written()
    arguments, environment = client.set_up(place, "http://127.0.0.1:20128", "prefix/model", "a prompt")
    wanted = set(environment) | {word for word in arguments if word.startswith("-")}
    for path, text in place.files.items():
        # Names of models are the user's own.
        wanted |= settings(path, text) - {"prefix/model"}
    missing = sorted(word for word in wanted - ONLY_HERE if word not in page)
    assert missing == [], f"docs/clients/{client.name}.md does not say"
    assert f"{client.program} " in page


def test_the_versions_are_those_of_the_pages():
    packages = json.loads((Path(__file__).parent / "package.json").read_text())["dependencies"]
    readme = (PAGES / "README.md").read_text()
    for package, version in packages.items():
        assert f" {version} " in readme, f"docs/clients/README.md does not name {package} {version}"
    install = "\n".join(page.read_text() for page in PAGES.glob("*.md"))
    for package in packages:
        assert f"npm install -g {package}\n" in install
