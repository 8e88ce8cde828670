"""`python3 -m upstream [port]` in the folder above: the scripted provider on its own, to point a gateway at by hand."""

import sys
import time

from . import Upstream

upstream = Upstream(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
print(f"the scripted provider listens on {upstream.url}", flush=True)
try:
    while True:
        time.sleep(3600)
except KeyboardInterrupt:
    upstream.stop()
