"""Histories of the simulation: random operations, rest, repair, and what is wrong after each."""

import datetime
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aim_testing.chaos.chance import chance
from aim_testing.soak import repair
from aim_testing.soak.operations import Operation, draw
from aim_testing.soak.oracle import problems, unready
from aim_testing.soak.simulation import Simulation

REST_S = 700.0
"""Longer than the longest wait between two tries of a download."""
MOST_STEPS = 12_000
MOST_ASKED = 4


@dataclass(frozen=True, slots=True)
class Did:
    """The next user operation, with its seed, and the number of steps of the cluster after it."""

    seed: int
    steps: int


@dataclass
class Outcome:
    """`findings` is empty if all checks passed. `manual_actions`: what messages asked a person to
    do."""

    log: list[str] = field(default_factory=list)
    manual_actions: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def run(seed: int, history: Iterable[Did]) -> Outcome:
    """Bring up, operate, come to rest, repair."""
    simulation, result = Simulation(chance(seed)), Outcome()
    rest(simulation)
    result.findings += [f"after the start: {each}" for each in unready(simulation.state)]
    for did in history:
        for operation in draw(chance(did.seed), simulation.state):
            result.log.append(str(operation))
            simulation.apply(operation)
        simulation.steps_on(did.steps)
    rest(simulation)
    result.findings += [
        f"at rest: {each}" for each in problems(simulation.state, simulation.clock.now)
    ]
    _repair(simulation, result)
    result.findings += [f"at all times: {each}" for each in simulation.cluster.violations]
    return result


def _repair(simulation: Simulation, result: Outcome) -> None:
    """The inputs, then what the messages ask for, as long as they ask for something."""
    for _ in range(MOST_ASKED):
        _apply(simulation, result, repair.inputs_right(simulation.state))
        rest(simulation)
        _apply(simulation, result, repair.retries(simulation.state, str(simulation.clock.now)))
        rest(simulation)
        manual_actions = repair.manual_actions(simulation.state)
        if not manual_actions:
            break
        result.manual_actions += [each.by for each in manual_actions]
        _apply(simulation, result, (each.operation for each in manual_actions))
        rest(simulation)
    result.findings += [f"after the repair: {each}" for each in unready(simulation.state)]


def _apply(simulation: Simulation, result: Outcome, operations: Iterable[Operation]) -> None:
    for operation in list(operations):
        result.log.append(f"repair: {operation}")
        simulation.apply(operation)


def rest(simulation: Simulation) -> None:
    """Until nothing can happen any more within the time of rest."""
    simulation.ends_at = simulation.clock.now + datetime.timedelta(seconds=REST_S)
    for _ in range(MOST_STEPS):
        steps: list[Callable[[], object]] = simulation.possible()
        if not steps:
            return
        simulation.rng.choice(steps)()
    raise AssertionError("it does not come to rest")


def drawn(rng: random.Random, count: int) -> list[Did]:
    return [Did(rng.randrange(1 << 30), rng.choice([0, 3, 20, 100, 400])) for _ in range(count)]
