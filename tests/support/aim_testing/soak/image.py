"""`python -I -S image.py BEHAVIOUR SOURCE ...`: what every image of a soak stands for; starts fast.

As a model image it answers `dry-run` and serves /health, where the caches that are mounted hold
their files. As the downloader (BEHAVIOUR `download`) it writes a file where the volume is.
"""

import json
import os
import socket
import sys
import time

TAKES_S = 0.3
WEIGHTS = "weights.bin"


def main(behaviour: str, source: str, args: list[str]) -> int:
    if behaviour == "download":
        return download(args)
    if args[:1] == ["dry-run"]:
        name = source.partition("://")[2]
        models = [{"name": name, "source": source, "size_gb": 0.001}]
        answer = [{"filename": "p", "profile": {"model": name}, "models": models}]
        time.sleep(TAKES_S)
        print(json.dumps([] if behaviour == "mute" else answer))
        return 0
    if behaviour == "crash":
        print("no such kernel", file=sys.stderr)
        return 3
    return serve(behaviour, source)


def download(args: list[str]) -> int:
    verb, uri = args[:2]
    if "gone" in uri:
        return result(10, {"message": f"{uri} is not there"})
    line = {"event": "progress", "phase": "downloading", "bytes": 1, "total": 2, "rate": 1.0}
    print(json.dumps(line), flush=True)
    time.sleep(TAKES_S)
    if verb == "fetch":
        with open(os.path.join(args[2], WEIGHTS), "w") as file:  # noqa: PTH118, PTH123 (fast to start)
            file.write(uri)
    return result(0, {"message": "done", "bytes": 1 << 20, "revision": "r1"})


def result(exit_code: int, facts: dict[str, object]) -> int:
    text = json.dumps({"event": "result", **facts})
    print(text)
    with open(os.environ["AIM_TERMINATION_LOG"], "w") as file:  # noqa: PTH123 (fast to start)
        file.write(text)
    return exit_code


def serve(behaviour: str, source: str) -> int:
    """One connection after the other, each answered and closed."""
    cache = os.path.join(os.environ["AIM_CACHE_PATH"], *source.partition("://")[2].split("/"))  # noqa: PTH118
    if os.path.isdir(cache) and not os.path.exists(os.path.join(cache, WEIGHTS)):  # noqa: PTH110, PTH112, PTH118
        print(f"{cache} is empty", file=sys.stderr)
        return 4
    status = "503 Unready" if behaviour == "unready" else "200 OK"
    with socket.create_server((os.environ["AIMLAB_POD_IP"], 8000)) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                head = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
