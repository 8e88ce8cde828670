"""Runs the Node.js suite against the same gateway."""

import subprocess
from pathlib import Path

from gateway import clean_environment

SUITE = Path(__file__).parent / "node"


def test_the_openai_sdk_for_node(gateway, simulator):
    gateway.call("POST", "/provider-models", json={"provider": "oa-node", "modelId": "lorem"})
    limited, _ = gateway.key(maxRequestsPerMinute=1)
    environment = {
        "GATEWAY_URL": gateway.url,
        "LIMITED_KEY": limited,
        "FAILING_NODE": gateway.node("openai", f"{simulator.url}/v1"),
        "BREAKING_NODE": gateway.node("openai", f"{simulator.url}/v1"),
        "TWO_ACCOUNTS": gateway.node("openai", f"{simulator.url}/v1", keys=["sk-limited-9", "sk-good"]),
    }
    ended = subprocess.run(
        ["node", "--test", "--test-reporter=spec", "openai.test.mjs"],
        cwd=SUITE,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=55,
    )
    print(ended.stdout[-8000:])
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
