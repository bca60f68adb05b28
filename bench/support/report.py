"""The sections of RESULTS.md about services, as Markdown."""

import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from support.calls import Call, Calls
from support.load import BARE_CALLS, LANES, BareRun, Run
from support.reaction import Quantiles
from support.rest import REST_S, Quiet, Rest
from support.world import machine

NOT_PER_SERVICE = frozenset({"leases"})


def head(versions: str, *, is_real: bool) -> list[str]:
    server = "a real API server" if is_real else "the API server double"
    options = ["FILE" if "/" in each else each for each in sys.argv[1:]]
    command = " ".join([".venv/bin/python bench/services.py", *options])
    return [
        f"## Services on {server}",
        "",
        (
            f"`{command}`, {machine()}; {versions}. KServe and gateway are stand-ins that answer at"
            " once, the cache is warm. The bare client makes the calls that a service needs at"
            f" least ({BARE_CALLS}), {LANES} in flight, and nothing else."
        ),
        "",
    ]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(titles)} |",
        f"|{'---|' * len(titles)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def load(runs: list[Run], bare: list[BareRun]) -> list[str]:
    rounds = "1 round" if len(runs) == 1 else f"{len(runs)} rounds in turn, medians"
    title = f"### {runs[0].services:,} services to Running, {rounds}"
    return [title, "", *_load_tables(runs, bare), *_calls(runs)]


def all_in_one(runs: list[Run], bare: list[BareRun]) -> list[str]:
    title = f"### {runs[0].services:,} services to Running, all six services in one process"
    return [title, "", *_load_tables(runs, bare)]


def _load_tables(runs: list[Run], bare: list[BareRun]) -> list[str]:
    seconds, bare_s = median(run.seconds for run in runs), median(run.seconds for run in bare)
    ratio = median(run.seconds / one.seconds for run, one in zip(runs, bare, strict=True))
    rows = [
        ("first create to all Running", f"{seconds:.1f} s", f"{bare_s:.1f} s", f"{ratio:.1f}"),
        (
            "CPU time",
            f"{median(run.control_plane_s for run in runs):.1f} s",
            f"{median(run.cpu_s for run in bare):.2f} s",
            "",
        ),
        ("CPU time per service", f"{median(run.ms_per_service for run in runs):.1f} ms", "", ""),
    ]
    return [
        *table(("", "control plane", "bare client", "ratio"), rows),
        *table(("process", "CPU", "memory before", "peak"), _process_rows(runs)),
    ]


def _process_rows(runs: list[Run]) -> list[Sequence[str]]:
    def of(values: Callable[[Run], dict[str, float]], name: str) -> float:
        return median(values(run)[name] for run in runs)

    names = list(runs[0].peak_mib)
    rows: list[Sequence[str]] = [
        (
            name,
            f"{of(lambda run: run.cpu_s, name):.2f} s",
            f"{of(lambda run: run.idle_mib, name):.0f} MiB",
            f"{of(lambda run: run.peak_mib, name):.0f} MiB",
        )
        for name in names
    ]
    if len(names) > 1:
        total = (
            "the six",
            f"{median(run.control_plane_s for run in runs):.2f} s",
            f"{median(sum(run.idle_mib.values()) for run in runs):.0f} MiB",
            f"{median(sum(run.peak_mib.values()) for run in runs):.0f} MiB",
        )
        rows.append(total)
    servers = [name for name in runs[0].cpu_s if name not in names]
    return [
        *rows,
        *((name, f"{of(lambda run: run.cpu_s, name):.2f} s", "", "") for name in servers),
    ]


def _calls(runs: list[Run]) -> list[str]:
    counted = [run.calls for run in runs if run.calls is not None]
    if not counted:
        return ["API calls: this server counts none.", ""]
    services = sum(run.services for run in runs)
    calls: Calls = sum(counted, Counter[Call]())
    total = sum(count for call, count in calls.items() if call.resource not in NOT_PER_SERVICE)
    rows = [
        (call.service, call.verb, call.resource, f"{count / services:.2f}")
        for call, count in calls.most_common()
        if count / services >= 0.01
    ]
    return [
        f"API calls per service: {total / services:.1f} (without Leases).",
        "",
        *table(("service", "verb", "resource", "calls per service"), rows),
    ]


def reaction(found: Quantiles, bare: Quantiles, hops: list[tuple[str, float]]) -> list[str]:
    def row(name: str, ratio: Callable[[Quantiles], float]) -> tuple[str, ...]:
        ours, theirs = ratio(found), ratio(bare)
        return name, f"{ours:.1f} ms", f"{theirs:.1f} ms", f"{ours / theirs:.2f}"

    rows = [
        row("least", lambda each: each.least),
        row("p50", lambda each: each.p50),
        row("p95", lambda each: each.p95),
    ]
    return [
        "### Reaction: from a create to its status on a watch, one at a time",
        "",
        "A service whose template is missing. The bare client watches and patches.",
        "",
        *table(("", "control plane", "watch and patch", "ratio"), rows),
        "The same hop by hop, with debug logs, medians:",
        "",
        *table(("hop", "ms after the create was sent"), [(hop, f"{ms:.1f}") for hop, ms in hops]),
    ]


def curves(runs: list[Run]) -> dict[str, list[tuple[float, float]]]:
    """ms of CPU time per service over the number of services, of all and of each."""
    found = {"all six": [(float(run.services), run.ms_per_service) for run in runs]}
    for name in runs[0].peak_mib:
        found[name] = [(float(run.services), run.cpu_s[name] / run.services * 1000) for run in runs]
    return found


def curve(runs: list[Run], bare: list[BareRun]) -> list[str]:
    rows = [(label, *(f"{ms:.1f}" for _, ms in points)) for label, points in curves(runs).items()]
    ratios = [run.seconds / one.seconds for run, one in zip(runs, bare, strict=True)]
    rows += [
        ("time to Running", *(f"{run.seconds:.1f} s" for run in runs)),
        ("of the bare client", *(f"{run.seconds:.1f} s" for run in bare)),
        ("ratio", *(f"{ratio:.1f}" for ratio in ratios)),
    ]
    growth = runs[-1].ms_per_service / runs[0].ms_per_service
    return [
        "### CPU time per service, in ms, over the number of services",
        "",
        *table(("", *(f"{run.services:,}" for run in runs)), rows),
        f"Last to first: {growth:.2f} (1 is linear).",
        "",
    ]


def rest(found: list[Quiet]) -> list[str]:
    return [line for each in found for line in _quiet(each)]


def _quiet(found: Quiet) -> list[str]:
    rows = [
        (name, f"{start.seconds:.1f} s", f"{start.cpu_s:.1f} s", f"{start.mib:.0f} MiB")
        for name, start in found.starts.items()
    ]
    return [
        f"### {found.objects:,} quiet objects",
        "",
        (
            "AIMServices with InferenceService, HTTPRoute and Pod. The watcher starts with an empty"
            " bus and publishes all; each other process starts alone when all are on the bus."
        ),
        "",
        *table(("start", "caught up after", "CPU until then", "memory then"), rows),
        *([] if found.rest is None else _rest(found.rest)),
    ]


def _rest(found: Rest) -> list[str]:
    rows = [
        (name, f"{percent:.2f} %", f"{found.mib[name]:.0f} MiB")
        for name, percent in found.cpu_percent.items()
    ]
    six = f"{sum(found.cpu_percent.values()):.2f} %"
    calls = "not counted by this server"
    if found.calls is not None:
        most = ", ".join(
            f"{call.service} {call.verb} {call.resource} {count}"
            for call, count in found.calls.most_common(6)
        )
        calls = f"{found.requests_per_s:.2f}/s (in {REST_S:.0f} s: {most})"
    return [
        *table(("at rest", "of a core", "memory"), [*rows, ("the six", six, "")]),
        f"- CPU of six standbys beside them: {found.second_percent:.2f} % of a core",
        f"- API requests of all twelve: {calls}",
        "",
    ]
