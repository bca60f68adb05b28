"""`python -m aim_testing.soak --seed N` runs random operations and faults for some minutes.

The exit code is 1 on a finding."""

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from pathlib import Path

import structlog

from aim_testing.soak.cluster import on_laptop
from aim_testing.soak.run import Soak, soak
from aimlab.real.cluster import FOLDER


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m aim_testing.soak", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=1, help="decides on operations and faults (default 1)"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument(
        "--real", action="store_true", help="on real parts, as `make test-real` builds them"
    )
    parser.add_argument("--keep", type=Path, help="keep the services' logs in this folder")
    return parser.parse_args()


async def run(args: argparse.Namespace, folder: Path) -> Soak:
    kubeconfig = Path(os.environ[FOLDER]) / "kubeconfig" if args.real else None
    async with on_laptop(folder, args.seed, kubeconfig) as cluster:
        return await soak(cluster, args.seed, args.minutes * 60, print_line)


def print_line(text: str) -> None:
    print(text, flush=True)


def summary(args: argparse.Namespace, done: Soak) -> str:
    counts = (
        f"{done.operations} operations, {done.faults} faults ({done.cluster.kills} kills) in"
        f" {done.rounds} rounds"
    )
    manual_actions = "".join(
        f"\n  a person had to act: {each}" for each in dict.fromkeys(done.manual_actions)
    )
    findings = "".join(f"\n  FINDING: {each}" for each in done.findings)
    return (
        f"seed {args.seed}: {counts}, {done.repairs} repairs, {len(done.findings)}"
        f" findings{manual_actions}{findings}"
    )


def main() -> int:
    args = arguments()
    if args.real and FOLDER not in os.environ:
        beside = [sys.executable, "-m", "aimlab.real", sys.executable, "-m", "aim_testing.soak"]
        os.execv(sys.executable, [*beside, *sys.argv[1:]])  # noqa: S606 (the same program, beside real parts)
    with tempfile.TemporaryDirectory(prefix="aim-soak-") as made:
        folder = args.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        done = asyncio.run(run(args, folder))
    print_line(summary(args, done))
    if done.findings:
        print_line(f"again: make soak SEED={args.seed}")
    return 1 if done.findings else 0


if __name__ == "__main__":
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sys.exit(main())
