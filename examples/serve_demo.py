"""Serve the demo's detector, send it a photograph, and say where to look."""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

MODEL = "fasterrcnn_resnet50_fpn"
ANSWER = ("boxes", "scores", "labels")


def main() -> None:
    """Make the file unless it is there, start `fxtrt serve`, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=Path("build/demo.fxtrt"))
    parser.add_argument("--model", default=MODEL, help="a detector of torchvision, by name")
    parser.add_argument("--port", default="8000")
    parser.add_argument("--image", type=Path, help="a JPEG or PNG; by default matplotlib's")
    parser.add_argument("--once", action="store_true", help="end after the photograph")
    asked = parser.parse_args()
    image = asked.image or _photograph()
    if not asked.file.exists():
        asked.file.parent.mkdir(parents=True, exist_ok=True)
        print(f"[1/3] {asked.file}: {asked.model} with random weights, in a minute", flush=True)
        command = ["build", "--model", asked.model, "--save", str(asked.file), "--with-weights"]
        subprocess.run([sys.executable, "-m", "fxtrt", *command], check=True)
    print("[2/3] the server loads it, and answers its example", flush=True)
    command = ["serve", str(asked.file), "--port", asked.port, "--show-images", "--rebuild"]
    server = subprocess.Popen(
        [sys.executable, "-m", "fxtrt", *command], stdout=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        address = _address_of(server)
        print(f"[3/3] {image} goes to {address}detect", flush=True)
        found = _ask(address, image)
        for box, score, label in list(zip(*(found[name] for name in ANSWER), strict=True))[:3]:
            print(f"      label {label}, score {score:.2f}, box {[round(side) for side in box]}")
        print(f"Open {address} to see them; Ctrl-C ends the server.", flush=True)
        if not asked.once:
            server.wait()
    except KeyboardInterrupt:
        pass  # it went to the server as well, which ends by itself
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        server.wait()
    sys.exit(server.returncode)


def _photograph() -> Path:
    import matplotlib.cbook

    return Path(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


def _address_of(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    found = re.search(r"http://\S+", server.stdout.readline())
    if found is None:  # It has said why.
        sys.exit(server.wait())
    return found[0]


def _ask(address: str, image: Path) -> dict[str, list[Any]]:
    kind = "image/png" if image.suffix.lower() == ".png" else "image/jpeg"
    request = urllib.request.Request(
        f"{address}detect?min_score=0.3", image.read_bytes(), {"Content-Type": kind}
    )
    with urllib.request.urlopen(request) as reply:
        found: dict[str, list[Any]] = json.load(reply)
    return found


if __name__ == "__main__":
    main()
