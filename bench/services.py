"""How fast the control plane brings up services, how soon it reacts, and what it costs: time, CPU,
memory, calls. Beside each a bare client that does the same calls without a control plane.

Run by `make bench`; prints a section of RESULTS.md and writes the curve of docs/explanation. API
server, NATS, stand-ins and services are separate processes. KServe and gateway are stand-ins that
answer at once, the cache is warm: what is measured is the control plane alone. Times depend on the
machine, the ratios to the bare client of the same run less so.

    .venv/bin/python bench/services.py --help
    .venv/bin/python bench/services.py --parts rest --objects 10000,50000
    .venv/bin/python -m aimlab.real --alone sh -c \
        '.venv/bin/python bench/services.py --kubeconfig $KUBECONFIG'
"""

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from support import report
from support.calls import CallCounter
from support.chart import line_chart
from support.load import BareRun, Run, run_bare, run_services, warm_up
from support.profiles import Profiler
from support.reaction import Quantiles, hop_rows, quantiles, traced_tries, tries
from support.rest import Quiet, quiet_objects
from support.world import World, versions, world

PARTS = ("load", "all-in-one", "curve", "reaction", "rest")
HOP_TRIES = 30
CURVE = Path(__file__).parents[1] / "docs" / "explanation" / "cpu-per-service.svg"


@dataclass
class Bench:
    """What was asked for, and a folder for all files of the run."""

    options: argparse.Namespace
    folder: Path
    worlds: int = 0
    versions: str = ""

    @asynccontextmanager
    async def world(
        self, profiler: Profiler | None = None
    ) -> AsyncIterator[tuple[World, CallCounter | None]]:
        """A new one, numbered."""
        self.worlds += 1
        external = self.options.kubeconfig
        async with world(self.folder / str(self.worlds), external, profiler) as made:
            self.versions = self.versions or await versions(made.space.api)
            yield made, CallCounter.of_server(made.space.api, is_double=external is None)

    @property
    def profiler(self) -> Profiler | None:
        return None if self.options.profile is None else Profiler(self.options.profile)


@dataclass
class Load:
    """Rounds, in turn."""

    runs: list[Run] = field(default_factory=list)
    bare: list[BareRun] = field(default_factory=list)


@dataclass
class Reactions:
    control_plane: Quantiles
    bare: Quantiles
    hops: list[tuple[str, float]]


async def measure_load(bench: Bench, amount: int, rounds: int, *, all_in_one: bool = False) -> Load:
    """A new world for each round, so that the services of one do not weigh on the next."""
    found = Load()
    for _ in range(rounds):
        log(f"{amount} services")
        async with bench.world() as (place, counter):
            async with place.control_plane(all_in_one=all_in_one) as pids:
                await place.until_quiet()
                rendered = await warm_up(place)
                found.runs.append(await run_services(place, pids, amount, "load", counter))
            found.bare.append(await run_bare(place, rendered, amount, "bare"))
    return found


async def profile(bench: Bench, amount: int) -> None:
    """A run of its own: the profiler slows what it watches."""
    log(f"profiling {amount} services")
    async with bench.world(bench.profiler) as (place, _), place.control_plane() as pids:
        await place.until_quiet()
        await warm_up(place)
        await run_services(place, pids, amount, "load", None)


async def measure_reaction(bench: Bench, count: int) -> Reactions:
    log(f"{count} reactions")
    async with bench.world() as (place, _):
        async with place.control_plane():
            await place.until_quiet()
            await tries(place.space, 5, "warm")
            control_plane = quantiles(await tries(place.space, count, "try"))
        async with place.watch_and_patch():
            await tries(place.space, 5, "warm-bare")
            bare = quantiles(await tries(place.space, count, "bare"))
        async with place.control_plane(AIM_LOG_LEVEL="DEBUG"):
            await place.until_quiet()
            hops = hop_rows(await traced_tries(place, HOP_TRIES, place.logs))
    return Reactions(control_plane, bare, hops)


async def measure_rest(bench: Bench, amounts: list[int]) -> list[Quiet]:
    """At rest only with the first amount: the work before it grows with the objects."""
    found = []
    for amount in amounts:
        log(f"{amount:,} quiet objects")
        async with bench.world() as (place, counter):
            rests = amount == amounts[0]
            found.append(await quiet_objects(place, amount, counter, rests=rests))
    return found


async def run(bench: Bench) -> list[str]:
    """The parts in the order of PARTS, each as Markdown."""
    options = bench.options
    lines: list[str] = []
    points = Load()
    if "load" in options.parts:
        found = await measure_load(bench, options.services, options.rounds)
        lines += report.load(found.runs, found.bare)
        points = Load(found.runs[:1], found.bare[:1])
    if "all-in-one" in options.parts:
        found = await measure_load(bench, options.services, 1, all_in_one=True)
        lines += report.all_in_one(found.runs, found.bare)
    if "curve" in options.parts:
        lines += await measure_curve(bench, options.curve, points)
    if "reaction" in options.parts:
        reactions = await measure_reaction(bench, options.tries)
        lines += report.reaction(reactions.control_plane, reactions.bare, reactions.hops)
    if "rest" in options.parts:
        lines += report.rest(await measure_rest(bench, options.objects))
    if options.profile is not None:
        await profile(bench, options.services)
    return lines


async def measure_curve(bench: Bench, amounts: list[int], points: Load) -> list[str]:
    """`points` has what is measured already."""
    for amount in amounts:
        if amount not in {run.services for run in points.runs}:
            one = await measure_load(bench, amount, 1)
            points = Load([*points.runs, *one.runs], [*points.bare, *one.bare])
    runs = sorted(points.runs, key=lambda run: run.services)
    bare = sorted(points.bare, key=lambda run: run.services)
    title = "CPU time of the control plane per service"
    chart = line_chart(title, "ms", "services (logarithmic)", report.curves(runs))
    bench.options.svg.write_text(chart)
    return report.curve(runs, bare)


def parse() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description="Benchmark of the control plane with services.")
    parser.add_argument("--kubeconfig", type=Path, help="of an API server; default: the double")
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2, help="of --services, each with a bare run")
    parser.add_argument("--curve", type=numbers, default=[100, 200, 400, 800])
    parser.add_argument("--tries", type=int, default=100, help="of the reaction")
    parser.add_argument(
        "--objects", type=numbers, default=[10_000], help="quiet ones; the first at rest"
    )
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--svg", type=Path, default=CURVE, help="where the curve is written")
    parser.add_argument("--profile", type=Path, help="folder for flame graphs; needs py-spy")
    return parser.parse_args()


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    options = parse()
    with tempfile.TemporaryDirectory(prefix="aim-bench-", ignore_cleanup_errors=True) as folder:
        bench = Bench(options, Path(folder))
        lines = asyncio.run(run(bench))
    head = report.head(bench.versions, is_real=options.kubeconfig is not None)
    print("\n".join([*head, *lines]))


if __name__ == "__main__":
    main()
