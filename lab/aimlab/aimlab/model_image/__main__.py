"""`python -m aimlab.model_image`: stands in for a model's container image; see README.md.

`--source`, `--name`, `--size-gb` and `--sums` are what an image is built with (the lab's image
table gives them); the rest is the container's args: `dry-run --format=json` lists profiles, nothing
serves. Serving begins only once the cached model is whole, else the exit code is 1.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from pathlib import Path

from aiohttp import web

from aimlab.model_image.discovery import Model, dry_run
from aimlab.model_image.integrity import IntegrityError, check
from aimlab.model_image.server import load, make_app
from aimlab.service import run_until_signalled
from aimschema.labels import CACHE_PATH, ENV_CACHE_PATH, ENV_MODEL_ID
from aimschema.names import mount_path_of

_LOG = logging.getLogger("aimlab.model_image")
PORT = 8000


def main() -> int:
    parser = argparse.ArgumentParser(prog="aimlab.model_image", description=__doc__)
    parser.add_argument(
        "--source", required=True, help="where the model comes from, as hf:// or s3://"
    )
    parser.add_argument("--name", required=True, help="the model's id, such as org/model")
    parser.add_argument("--size-gb", type=float, default=0.0, help="in GiB, 0 for unknown")
    parser.add_argument("--sums", type=Path, help="JSON: path to sha256, as the source has them")
    parser.add_argument("verb", nargs="?", choices=["serve", "dry-run"], default="serve")
    parser.add_argument("--format", choices=["json"], default="json")
    options = parser.parse_args()
    model = Model(options.name, options.source, options.size_gb)
    if options.verb == "dry-run":
        sys.stdout.write(dry_run(model, os.environ))
        return 0
    try:
        app = prepare(model, options.sums)
    except (IntegrityError, OSError, ValueError) as error:
        return give_up(str(error))
    run_until_signalled(serve(app))
    return 0


def prepare(model: Model, sums: Path | None) -> web.Application:
    """Checks the cached model and loads what is needed of it. Raises IntegrityError, OSError,
    ValueError."""
    place = mount_path_of(model.source)
    if place is None:
        raise ValueError(
            f"{model.source} does not end in two parts that a cache could be mounted at"
        )
    folder = Path(os.environ.get(ENV_CACHE_PATH, CACHE_PATH)).joinpath(*place)
    known = None if sums is None else json.loads(sums.read_bytes())
    found = check(folder, known)
    return make_app(load(os.environ.get(ENV_MODEL_ID) or model.name, folder, found))


def give_up(message: str) -> int:
    sys.stderr.write(f"cannot serve: {message}\n")
    if "AIM_TERMINATION_LOG" in os.environ:
        Path(os.environ["AIM_TERMINATION_LOG"]).write_text(f"cannot serve: {message}")
    return 1


async def serve(app: web.Application) -> None:
    """Serves on the pod's address until cancelled."""
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        host = os.environ.get("AIMLAB_POD_IP", "0.0.0.0")  # noqa: S104 (as in a container, where the address is the pod's)
        await web.TCPSite(runner, host, PORT).start()
        _LOG.info("serving on %s:%d", host, PORT)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
