"""One soak: rounds of random operations and faults, checked after each; at times everything is
repaired.

A seed decides on operations, faults and pauses, but not on the speed of processes. A finding that
depends on a race may need a few runs to occur again.
"""

import asyncio
import datetime
import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aim_testing.chaos.chance import chance
from aim_testing.chaos.faults import ALL_AT_ONCE, API
from aim_testing.chaos.world import errors_in, wipe
from aim_testing.soak import inputs, repair
from aim_testing.soak.cluster import INSTANCES, SoakCluster
from aim_testing.soak.operations import Operation, create, delete, draw
from aim_testing.soak.oracle import problems, unready
from aim_testing.soak.state import State, conditions, where
from aimctl.component_registry import SERVICES
from aimschema.resources import MODEL, NAMESPACE, Key

SETTLED_WITHIN_S = 60.0
REPAIRED_WITHIN_S = 90.0
QUIET_S = 3.0
ASKED_WITHIN_S = 20.0
REST_S = 10.0
LEASE_S = 15.0
FEWEST, MOST = 4, 12
MOST_ASKED = 4
LAST_OPERATIONS = 15
PrintLine = Callable[[str], None]


@dataclass
class Soak:
    """A running soak. `findings` are reported as they come, each once."""

    cluster: SoakCluster
    rng: random.Random
    print_line: PrintLine
    operations: int = 0
    faults: int = 0
    rounds: int = 0
    repairs: int = 0
    findings: list[str] = field(default_factory=list)
    manual_actions: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> State:
        return self.cluster.watcher.state

    def note(self, text: str) -> None:
        line = f"{time.monotonic() - self.started_s:6.1f} s  {text}"
        self.log.append(line)
        self.print_line(line)

    def found(self, when: str, texts: Iterable[str]) -> None:
        """Report each finding once, with the object and the operations before it."""
        for text in texts:
            if text in self.findings:
                continue
            self.findings.append(text)
            self.note(f"FINDING {when}: {text}")
            for body in self.state.objects.values():
                if text.startswith(f"{where(body)}:"):
                    self.print_line(json.dumps(body.get("status"), indent=1))
            last = [line for line in self.log if "FINDING" not in line][-LAST_OPERATIONS:]
            self.print_line(
                "\n".join(["  the last operations:", *(f"    {line}" for line in last)])
            )


async def soak(cluster: SoakCluster, seed: int, seconds: float, print_line: PrintLine) -> Soak:
    """Runs rounds for this time; at the end everything is repaired and becomes ready, and then no
    service writes."""
    run = Soak(cluster, chance(seed), print_line)
    await _repair(run)
    while time.monotonic() - run.started_s < seconds:
        run.rounds += 1
        await _round(run)
        run.found("at all times", cluster.watcher.findings)
        if run.rounds % 2 == 0:
            await _repair(run)
    await _repair(run)
    await _only_faults(run)
    await _at_rest(run)
    run.found("at all times", cluster.watcher.findings)
    run.found("in the logs", _logged(cluster))
    ended = {name: process.returncode for name, process in cluster.services.running.items()}
    run.found(
        "at the end",
        (f"aim-{name} ended with {code}" for name, code in ended.items() if code is not None),
    )
    return run


async def quick(cluster: SoakCluster, seed: int, print_line: PrintLine) -> Soak:
    """One round and a repair."""
    run = Soak(cluster, chance(seed), print_line)
    await _repair(run)
    await _round(run)
    await _repair(run)
    run.found("at all times", cluster.watcher.findings)
    run.found("in the logs", _logged(cluster))
    return run


def _logged(cluster: SoakCluster) -> list[str]:
    return [
        line for name in cluster.ports for line in errors_in(name, cluster.services.log_of(name))
    ]


async def _round(run: Soak) -> None:
    """Some operations together with faults; then every status must be true, and nothing stuck."""
    async with asyncio.TaskGroup() as work:
        fault = work.create_task(_strike(run)) if run.rng.random() < 0.7 else None
        for _ in range(run.rng.randint(FEWEST, MOST)):
            await _operate(run, draw(run.rng, run.state))
            await asyncio.sleep(run.rng.choice([0.0, 0.05, 0.5, 2.0]))
        if fault is not None:
            await fault
    await _judge(run, "at rest", lambda: problems(run.state, _now()), SETTLED_WITHIN_S)


async def _operate(run: Soak, operations: Iterable[Operation]) -> None:
    for operation in list(operations):
        run.operations += 1
        run.cluster.watcher.operated(operation.key.namespace)
        run.note(str(operation))
        try:
            outcome = await run.cluster.apply(operation)
        except TimeoutError:
            run.found("while waiting", [f"{operation.key} is still being deleted"])
            outcome = "gave up"
        if outcome:
            run.note(f"  -> {outcome}")
        run.cluster.watcher.operated(operation.key.namespace)


async def _judge(run: Soak, when: str, wrong: Callable[[], list[str]], within_s: float) -> bool:
    """Waits until nothing is wrong and stays so; else what is wrong is found."""
    held = await run.cluster.watcher.settled(lambda: not wrong(), within_s, QUIET_S)
    if not held:
        run.found(when, wrong())
    return held


async def _repair(run: Soak) -> None:
    """The inputs, then what messages ask for, and retries: then all is well."""
    run.repairs += 1
    run.note("repair: the inputs are put right")
    await _operate(run, repair.inputs_right(run.state))

    def wrong() -> list[str]:
        return unready(run.state)

    def is_reported() -> bool:
        return not wrong() or bool(repair.manual_actions(run.state))

    settled = run.cluster.watcher.settled
    for _ in range(MOST_ASKED):
        await settled(is_reported, REPAIRED_WITHIN_S / 3, QUIET_S)
        if not wrong():
            return
        for each in repair.manual_actions(run.state):
            run.manual_actions.append(each.by)
            run.note(f"asked for by {each.by}")
            await _operate(run, [each.operation])
        await settled(lambda: not repair.manual_actions(run.state), ASKED_WITHIN_S, 0.0)
        await _operate(
            run, [*repair.inputs_right(run.state), *repair.retries(run.state, f"{time.time():.0f}")]
        )
    if not await _judge(run, "after the repair", wrong, REPAIRED_WITHIN_S):
        await _start_over(run)


async def _start_over(run: Soak) -> None:
    """So that one finding does not hide the next."""
    run.note("starting over: namespaces and models are deleted")
    keys = [Key(NAMESPACE.kind, None, name) for name in inputs.NAMESPACES]
    models = [Key(MODEL.kind, None, body["metadata"]["name"]) for body in run.state.all(MODEL)]
    await _operate(
        run, [*(delete(NAMESPACE, key) for key in keys), *(delete(MODEL, key) for key in models)]
    )
    written = inputs.manifests()
    await _operate(
        run, [create(repair.resource_of(key.kind), body) for key, body in written.items()]
    )
    await _judge(run, "after starting over", lambda: unready(run.state), REPAIRED_WITHIN_S)


async def _only_faults(run: Soak) -> None:
    """No user acts: then no object may keep a change, and no Job runs."""
    before, jobs = _reported(run.state), run.cluster.watcher.jobs
    for _ in range(3):
        await _strike(run)
    await _judge(
        run,
        "after faults alone",
        lambda: _differences(before, _reported(run.state)),
        SETTLED_WITHIN_S,
    )
    if run.cluster.watcher.jobs != jobs:
        run.found("after faults alone", [f"{run.cluster.watcher.jobs - jobs} Jobs were created"])


def _reported(state: State) -> dict[str, object]:
    """What each object reports, and the pods that run."""
    every = {where(body): body for body in state.objects.values()}
    return {
        name: [
            (each["type"], each["status"], each.get("reason")) for each in conditions(body).values()
        ]
        for name, body in every.items()
        if body["kind"]
        in {"AIMService", "AIMServiceTemplate", "ModelCache", "Pod", "InferenceService"}
    }


def _differences(before: dict[str, object], now: dict[str, object]) -> list[str]:
    names = sorted(before.keys() | now.keys())
    return [
        f"{n}: was {before.get(n)}, is {now.get(n)}" for n in names if before.get(n) != now.get(n)
    ]


async def _at_rest(run: Soak) -> None:
    """No service writes without an event. (The registry of the images is unreachable, and its
    inspection is retried.)"""
    await asyncio.sleep(LEASE_S)
    since_s = time.monotonic()
    await asyncio.sleep(REST_S)
    tried = {str(Key(MODEL.kind, None, body["metadata"]["name"])) for body in run.state.all(MODEL)}
    writes = run.cluster.watcher.writes
    written = [what for at_s, what in writes if at_s >= since_s and what not in tried]
    run.found(
        "at rest",
        [f"written within {REST_S:.0f} s of rest: {', '.join(written)}"] if written else [],
    )


# --- faults ---


async def _strike(run: Soak) -> None:
    await asyncio.sleep(run.rng.uniform(0.0, 2.0))
    faults = (_kill_one, _kill_both, _kill_nats, _wipe_nats, _api_hangs, _api_fails)
    run.faults += 1
    await run.rng.choices(faults, [8, 3, 2, 2, 2, 2])[0](run)


async def _kill_one(run: Soak) -> None:
    names = [f"{service}-{number}" for service in SERVICES for number in INSTANCES]
    await _kill(run, run.rng.sample(names, run.rng.randint(1, 3)))


async def _kill_both(run: Soak) -> None:
    service = run.rng.choice(SERVICES)
    await _kill(run, [f"{service}-{number}" for number in INSTANCES])


async def _kill(run: Soak, names: list[str]) -> None:
    run.note(f"fault: SIGKILL {', '.join(names)}")
    for name in names:
        await run.cluster.kill(name)
    await asyncio.sleep(run.rng.uniform(0.0, 2.0))
    for name in names:
        await run.cluster.start(name)
    await run.cluster.ready()


async def _kill_nats(run: Soak) -> None:
    run.note("fault: NATS is killed")
    await run.cluster.nats.kill()
    await asyncio.sleep(run.rng.uniform(0.0, 3.0))
    await run.cluster.nats.start()
    await run.cluster.ready()


async def _wipe_nats(run: Soak) -> None:
    run.note("fault: NATS is wiped")
    await wipe(run.cluster.nats)
    await run.cluster.ready()


async def _api_hangs(run: Soak) -> None:
    await _misbehave(run, "hang")


async def _api_fails(run: Soak) -> None:
    await _misbehave(run, "all")


async def _misbehave(run: Soak, how: str) -> None:
    window_s = run.rng.uniform(1.0, 6.0)
    run.note(f"fault: the API server for {window_s:.1f} s: {how}")
    await run.cluster.proxy.misbehave(API.get(how, ALL_AT_ONCE), window_s)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
