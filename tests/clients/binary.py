"""Prints the path of the gateway out of cargo's messages on standard input; passes the rest of them on."""

import json
import sys

path = None
for line in sys.stdin:
    try:
        message = json.loads(line)
    except ValueError:
        sys.stderr.write(line)
        continue
    if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "omniroute":
        path = message.get("executable") or path
if not path:
    sys.exit("cargo built no omniroute binary")
print(path)
