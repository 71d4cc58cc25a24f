"""Run by ``make dist`` in the environment of the demo: starts it, fetches what a browser fetches, waits for a frame."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

LIMIT = 120  # seconds
command = [
    str(Path(sys.executable).with_name("edgemoe")),
    "demo",
    "--bundle",
    "m3vit-micro-w8a8-pynq-z2",
    "--port",
    "0",
]
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
    try:
        assert demo.stdout is not None
        lines = iter(demo.stdout.readline, "")
        url = next(match[0] for line in lines if (match := re.search(r"http://[\w.:\[\]]+", line)))
        page = urllib.request.urlopen(url, timeout=LIMIT).read().decode()
        for name in re.findall(r'(?:src|href)="(/?[\w./-]+)"', page):
            assert urllib.request.urlopen(f"{url}/{name.lstrip('/')}", timeout=LIMIT).read(), name
        with connect(url.replace("http", "ws") + "/live", origin=url, open_timeout=LIMIT) as socket:
            while not isinstance(socket.recv(timeout=LIMIT), bytes):
                pass
        print("frame shown")
    finally:
        demo.terminate()
