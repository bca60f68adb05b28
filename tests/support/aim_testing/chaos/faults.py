"""The faults, as data: a name and what is done to the world while the fleet comes up. The seed
decides on moments and numbers."""

import asyncio
import contextlib
import random
from dataclasses import dataclass
from functools import partial

from aim_testing.chaos.proxy import Misbehaviour, Trap
from aim_testing.chaos.world import Strike, World
from aimctl.component_registry import SERVICES
from aimschema.reasons import WATCHER

LATEST_WRITE = 25
TRAP_S = 2.0
DOWN_S = 1.0


@dataclass(frozen=True, slots=True)
class Fault:
    """`strike` runs while the fleet is applied over `over_s` seconds. `unruly`: the whole run is on
    a bus that reorders and repeats (aim_testing.chaos.relay)."""

    strike: Strike | None
    over_s: float = 2.0
    unruly: bool = False


async def kill(world: World, rng: random.Random, *, services: tuple[str, ...], times: int) -> None:
    """Each so many times, at random moments or right after one of its writes took effect, before
    it knows."""
    victims = [service for service in services for _ in range(times)]
    rng.shuffle(victims)
    for service in victims:
        await world.ready_one(service)
        if service != WATCHER and rng.random() < 0.6:
            await _until_writes(world, service, rng.randint(1, LATEST_WRITE))
        else:
            await asyncio.sleep(rng.uniform(0.05, 1.5))
        await world.kill(service)
        for trap in world.proxy.traps:
            trap.opened.set()
        world.proxy.traps.clear()
        await asyncio.sleep(rng.uniform(0.0, DOWN_S))
        await world.start(service)
    await world.ready()


async def _until_writes(world: World, service: str, count: int) -> None:
    """Until the service has written so often; but not longer than a while, for it may have
    nothing left to write."""
    trap = Trap(f"aim-{service}", count)
    world.proxy.traps.append(trap)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(trap.sprung.wait(), TRAP_S)


async def kill_all(world: World, rng: random.Random) -> None:
    """All six at once, leases left behind: the next ones have to wait for them to run out."""
    await asyncio.sleep(rng.uniform(0.3, 3.0))
    for service in SERVICES:
        await world.kill(service, free_lease=False)
    await asyncio.sleep(rng.uniform(0.0, DOWN_S))
    for service in SERVICES:
        await world.start(service)
    await world.ready()


async def nats_restart(world: World, rng: random.Random, *, times: int, crash: bool) -> None:
    for _ in range(times):
        await asyncio.sleep(rng.uniform(0.2, 2.0))
        await (world.nats.kill() if crash else world.nats.stop())
        await asyncio.sleep(rng.uniform(0.0, DOWN_S))
        await world.nats.start()


async def nats_away(world: World, rng: random.Random, *, away_s: float) -> None:
    await asyncio.sleep(rng.uniform(0.2, 3.0))
    await world.nats.stop()
    await asyncio.sleep(away_s)
    await world.nats.start()


async def nats_wipe(world: World, rng: random.Random, *, streams: tuple[str, ...] = ()) -> None:
    await asyncio.sleep(rng.uniform(0.5, 3.5))
    await world.wipe_nats(*streams)


async def api(
    world: World, rng: random.Random, *, how: Misbehaviour, window_s: tuple[float, float]
) -> None:
    await asyncio.sleep(rng.uniform(0.0, 1.5))
    await world.proxy.misbehave(how, rng.uniform(*window_s))


API = {
    "429": Misbehaviour(rejected=0.6, statuses=(429,)),
    "500": Misbehaviour(rejected=0.6, statuses=(500,)),
    "503": Misbehaviour(rejected=0.6, statuses=(503,)),
    "down": Misbehaviour(rejected=1.0, statuses=(503,)),
    "slow": Misbehaviour(delay_s=0.4),
    "cut": Misbehaviour(cut_every_s=0.1),
    "hang": Misbehaviour(hangs=True),
    "lost-answers": Misbehaviour(lost=0.4),
}
"""What the API server does for a while."""
ALL_AT_ONCE = Misbehaviour(
    rejected=0.3, statuses=(429, 500, 503), lost=0.2, delay_s=0.05, cut_every_s=0.3
)

QUICK = {
    "kill": Fault(partial(kill, services=SERVICES, times=1), over_s=6.0),
    "nats-kill": Fault(partial(nats_restart, times=2, crash=True)),
    "nats-away": Fault(partial(nats_away, away_s=3.0)),
    "nats-wipe": Fault(nats_wipe),
    "nats-log-lost": Fault(partial(nats_wipe, streams=("AIM_LOG",))),
    "api": Fault(partial(api, how=ALL_AT_ONCE, window_s=(3.0, 4.0))),
    "api-hang": Fault(partial(api, how=API["hang"], window_s=(2.0, 3.0))),
}
"""For `make test`: every family, in seconds."""

THOROUGH = {
    **{
        f"kill-{service}": Fault(partial(kill, services=(service,), times=4), over_s=16.0)
        for service in SERVICES
    },
    "kill-any": Fault(partial(kill, services=SERVICES, times=2), over_s=24.0),
    "kill-all": Fault(kill_all),
    "nats-restart": Fault(partial(nats_restart, times=4, crash=False), over_s=6.0),
    "nats-kill": Fault(partial(nats_restart, times=4, crash=True), over_s=6.0),
    "nats-away": Fault(partial(nats_away, away_s=60.0), over_s=30.0),
    "nats-wipe": Fault(nats_wipe),
    "nats-log-lost": Fault(partial(nats_wipe, streams=("AIM_LOG",))),
    "nats-state-lost": Fault(partial(nats_wipe, streams=("AIM_STATE",))),
    **{
        f"api-{name}": Fault(partial(api, how=how, window_s=(3.0, 15.0)), over_s=6.0)
        for name, how in API.items()
    },
    "bus-unruly": Fault(None, unruly=True),
}
"""For `make chaos`."""
