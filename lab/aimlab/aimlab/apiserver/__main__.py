"""`python -m aimlab.apiserver --port N`: serve until SIGTERM; the URL is the only line on
standard output."""

import argparse
import asyncio
import signal

from aimlab.apiserver import ApiServer


async def serve(port: int, *, bare: bool, old_etcd: bool) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stopped.set)
    async with ApiServer(port=port, bare=bare, old_etcd=old_etcd) as server:
        print(server.url, flush=True)
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m aimlab.apiserver", description="API server double with its state in memory"
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument(
        "--bare",
        action="store_true",
        help="as a kube-apiserver alone: no controllers, no loopback endpoints",
    )
    parser.add_argument(
        "--old-etcd", action="store_true", help="as on etcd 3.4: no initial events, no bookmarks"
    )
    options = parser.parse_args()
    asyncio.run(serve(options.port, bare=options.bare, old_etcd=options.old_etcd))


if __name__ == "__main__":
    main()
