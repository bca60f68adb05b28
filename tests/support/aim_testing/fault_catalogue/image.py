"""`python image.py [OPTIONS] ANSWER`: a model image that can be at fault.

Asked for profiles it prints the file, with `--exit N` it ends so. Otherwise it serves; with
`--crash` it ends instead, with `--until FILE` it serves for as long as that file is there.
"""

import argparse
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("answer", type=Path)
    parser.add_argument("--exit", type=int, default=0)
    parser.add_argument("--crash", action="store_true")
    parser.add_argument("--until", type=Path)
    parser.add_argument("verb", nargs="?", choices=["dry-run"])
    parser.add_argument("--format")
    options = parser.parse_args()
    if options.verb == "dry-run":
        sys.stdout.write(options.answer.read_text())
        return int(options.exit)
    if options.crash:
        sys.stderr.write("no such kernel\n")
        return 3
    if options.until is not None:
        threading.Thread(target=end_without, args=(options.until,), daemon=True).start()
    ThreadingHTTPServer((os.environ["AIMLAB_POD_IP"], 8000), Healthy).serve_forever()
    return 0


def end_without(file: Path) -> None:
    while file.exists():
        time.sleep(0.05)
    os._exit(4)


if __name__ == "__main__":
    sys.exit(main())
