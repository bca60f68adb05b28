"""`python -m aim_testing.chaos` runs every fault with every seed, each on a new cluster.

It prints a table of the outcomes. The exit code is 1 if anything failed."""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from aim_testing.chaos.faults import THOROUGH, Fault
from aim_testing.chaos.fleet import Fleet, of_size
from aim_testing.chaos.outcome import State
from aim_testing.chaos.world import Outcome, bring_up, world

SHOWN = 12
UNDISTURBED = Fault(None)
console = Console(width=160 if not sys.stdout.isatty() else None)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m aim_testing.chaos", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=2, metavar="N", help="seeds 1 to N for each fault"
    )
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--services", type=int, default=50)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="faults whose name has this in it; may be given several times",
    )
    parser.add_argument(
        "--flaky",
        action="store_true",
        help="the first download of one source fails, which costs 30 s a run",
    )
    parser.add_argument("--keep", type=Path, help="keep logs and bus of failed runs in this folder")
    return parser.parse_args()


async def run_one(
    name: str, seed: int, fleet: Fleet, expected: State | None, keep: Path | None
) -> tuple[State, Outcome]:
    """On a new cluster."""
    fault = THOROUGH.get(name, UNDISTURBED)
    with tempfile.TemporaryDirectory(prefix="aim-faults-") as made:
        folder = Path(made)
        async with world(folder, seed, flaky=fleet.flaky, unruly=fault.unruly) as here:
            state, outcome = await bring_up(
                here, fleet, expected, fault.strike, seed, over_s=fault.over_s
            )
        if outcome.problems and keep is not None:
            run_dir = keep / f"{name}-{seed}"
            run_dir.mkdir(parents=True, exist_ok=True)
            for log in (folder / "log").glob("*.log"):
                (run_dir / log.name).write_bytes(log.read_bytes())
        return state, outcome


async def run_all(args: argparse.Namespace) -> bool:
    fleet = of_size(args.services, flaky=args.flaky)
    seeds = [args.seed] if args.seed is not None else list(range(1, args.seeds + 1))
    names = [name for name in THOROUGH if not args.only or any(part in name for part in args.only)]
    started_s = time.monotonic()
    expected, undisturbed = await run_one("none", 0, fleet, None, args.keep)
    print_outcome("undisturbed", 0, undisturbed)
    results: dict[str, list[Outcome]] = {}
    for name in names:
        for seed in seeds:
            _, outcome = await run_one(name, seed, fleet, expected, args.keep)
            print_outcome(name, seed, outcome)
            results.setdefault(name, []).append(outcome)
    console.print(summary(results, fleet, undisturbed))
    failed = sum(
        bool(outcome.problems) for outcomes in results.values() for outcome in outcomes
    ) + bool(undisturbed.problems)
    console.print(
        f"{sum(map(len, results.values()))} runs in {time.monotonic() - started_s:.0f} s, {failed}"
        " failed",
        highlight=False,
    )
    return failed == 0


def print_outcome(name: str, seed: int, outcome: Outcome) -> None:
    mark = "[red]✗[/]" if outcome.problems else "[green]✓[/]"
    console.print(f"{mark} {name} seed {seed}: {outcome.seconds:.1f} s", highlight=False)
    for problem in outcome.problems[:SHOWN]:
        console.print(f"    {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
    if len(outcome.problems) > SHOWN:
        console.print(f"    and {len(outcome.problems) - SHOWN} more")
    if outcome.problems:
        console.print(
            f"    again: python -m aim_testing.chaos --only {name} --seed {seed}", highlight=False
        )


def summary(results: dict[str, list[Outcome]], fleet: Fleet, undisturbed: Outcome) -> Table:
    """fault × seeds × outcome."""
    made = Table(
        title=f"{fleet.size} services, brought up in {undisturbed.seconds:.1f} s undisturbed"
    )
    for column in (
        "fault",
        "seeds",
        "held",
        "kills",
        "requests spoiled",
        "Job runs",
        "versions judged",
        "seconds",
    ):
        made.add_column(column, justify="left" if column == "fault" else "right")
    for name, outcomes in results.items():
        held = sum(not outcome.problems for outcome in outcomes)
        sums = [
            sum(getattr(outcome, field) for outcome in outcomes)
            for field in ("kills", "faulty", "runs", "versions")
        ]
        seconds = "/".join(f"{outcome.seconds:.0f}" for outcome in outcomes)
        made.add_row(
            name,
            str(len(outcomes)),
            f"{held}",
            *map(str, sums),
            seconds,
            style="" if held == len(outcomes) else "red",
        )
    return made


if __name__ == "__main__":
    logging.getLogger("aiohttp").setLevel(
        logging.CRITICAL
    )  # (what is cut off while it is served is not worth a word)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sys.exit(0 if asyncio.run(run_all(arguments())) else 1)
