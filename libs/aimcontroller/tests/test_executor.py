"""What becomes of the results of a component's own actions."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import pytest

from aimbus import Bus
from aimcontroller.action import Action
from aimcontroller.action_log import ActionRecord
from aimcontroller.confirm import unconditionally
from aimcontroller.executor import Executor
from aimcontroller.handler import ActionContext, ActionResult
from aimcontroller.observer import Observer
from aimcontroller.projection import Observation
from aimcontroller.queue import WorkQueue
from aimcontroller.reconcile_tracing import ReconcileTracer
from aimcontroller.store import StateStore
from aimcontroller.testing import NAMESPACE, changed, cr, uid_of
from aimkube import Cluster, Unavailable
from aimschema.messages import ActionTaken, Message
from aimschema.resources import CACHE, Key

C = Key(CACHE.kind, NAMESPACE, "c")
BODY = cr(CACHE.kind, "c", {"sourceUri": "hf://org/model"})
FACT = Observation(C, "fact", value=1)


@dataclass(frozen=True, slots=True)
class Measure(Action):
    """An action that the library does not know."""

    verb: ClassVar[str] = "measure"


@dataclass(frozen=True, slots=True)
class Late(Action):
    """An action that nothing waits for once the plan has written."""

    verb: ClassVar[str] = "late"
    can_be_late: ClassVar[bool] = True


@dataclass
class Published:
    """A bus that keeps what is published, once it `answers`."""

    messages: list[Message] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    @property
    def publisher(self) -> "Published":
        return self

    async def publish(self, message: Message, *, cause: object) -> int:
        assert cause == (7,)
        await self.answers.wait()
        self.messages.append(message)
        return len(self.messages)

    async def publish_live(self, message: Message) -> None:
        self.messages.append(message)


class Bench:
    def __init__(self, handle: Callable[[ActionContext], Awaitable[ActionResult]]) -> None:
        self.store = StateStore()
        self.queue = WorkQueue()
        self.bus = Published()
        self.handled: list[str] = []
        self.store.fold(changed(BODY), 1)
        observer = Observer(self.store, self.queue, ReconcileTracer(None))

        async def handler(action: Action, ctx: ActionContext, /) -> ActionResult:
            self.handled.append(action.verb)
            return await handle(ctx)

        self.executor = Executor(
            "test", cast(Bus, self.bus), cast(Cluster, self), self.store, observer, handler
        )

    async def execute(self, *actions: Action) -> str:
        return await self.executor.execute(actions or [Measure()], C, (7,), unconditionally)

    @property
    def recorded(self) -> list[tuple[str, str, str]]:
        return [
            (message.verb, message.name, message.detail)
            for message in self.bus.messages
            if isinstance(message, ActionTaken)
        ]


async def execute(result: ActionResult) -> Bench:
    async def handle(_ctx: ActionContext) -> ActionResult:
        return result

    bench = Bench(handle)
    assert await bench.execute() == "done"
    return bench


async def test_an_empty_result_changes_nothing() -> None:
    bench = await execute(ActionResult())
    assert bench.queue.idle
    assert bench.bus.messages == []


async def test_observations_are_folded() -> None:
    bench = await execute(ActionResult(observations=(FACT,)))
    assert bench.store.state.observation(C, "fact") == 1
    assert bench.queue.idle


@pytest.mark.parametrize(
    ("uid", "value"), [(uid_of(CACHE.kind, "c"), 1), ("former", None)], ids=["same", "former"]
)
async def test_an_observation_is_only_for_its_object(uid: str, value: int | None) -> None:
    bench = await execute(ActionResult(observations=(Observation(C, "fact", 1, uid),)))
    assert bench.store.state.observation(C, "fact") == value


async def test_a_response_is_folded_and_recorded() -> None:
    written: dict[str, Any] = {**BODY, "metadata": {**BODY["metadata"], "resourceVersion": "9"}}
    bench = await execute(ActionResult.from_response(written))
    obj = bench.store.state.get(C)
    assert obj is not None
    assert obj.version == 9
    assert bench.recorded == [("measure", "c", "")]


async def test_a_record_is_published() -> None:
    bench = await execute(ActionResult(record=ActionRecord(detail="3 GB")))
    assert bench.recorded == [("measure", "c", "3 GB")]


async def test_a_key_is_requeued_at_once_for_the_same_events() -> None:
    bench = await execute(ActionResult(requeue_after_s=0.0))
    assert await bench.queue.take() == (C, (7,))


async def test_a_key_is_requeued_later() -> None:
    bench = await execute(ActionResult(requeue_after_s=0.01))
    assert bench.queue.idle
    assert await bench.queue.take() == (C, ())


async def test_a_background_result_counts_like_the_handlers_own() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def measure() -> ActionResult:
        record = ActionRecord(detail="3 GB")
        return ActionResult(observations=(FACT,), requeue_after_s=0.0, record=record)

    async def handle(ctx: ActionContext) -> ActionResult:
        tasks.append(ctx.start(measure()))
        return ActionResult()

    bench = Bench(handle)
    await bench.execute()
    await asyncio.gather(*tasks)
    assert bench.store.state.observation(C, "fact") == 1
    assert bench.recorded == [("measure", "c", "3 GB")]
    assert await bench.queue.take() == (C, (7,))


async def test_an_api_error_in_the_background_is_retried() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def fail() -> ActionResult:
        raise Unavailable("away")

    async def handle(ctx: ActionContext) -> ActionResult:
        tasks.append(ctx.start(fail()))
        return ActionResult()

    bench = Bench(handle)
    await bench.execute()
    await asyncio.gather(*tasks)
    assert bench.queue.failures(C) == 1
    assert await bench.queue.take() == (C, (7,))


async def test_what_a_handler_observes_is_reconciled_at_once() -> None:
    async def handle(ctx: ActionContext) -> ActionResult:
        ctx.observe(FACT)
        return ActionResult()

    bench = Bench(handle)
    await bench.execute()
    assert bench.store.state.observation(C, "fact") == 1
    assert await bench.queue.take() == (C, (7,))


async def test_background_work_ends_with_the_term() -> None:
    cancelled: list[bool] = []

    async def wait() -> ActionResult:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)
        return ActionResult()

    async def handle(ctx: ActionContext) -> ActionResult:
        ctx.start(wait())
        await asyncio.sleep(0)
        ctx.start(wait())
        return ActionResult()

    bench = Bench(handle)
    await bench.execute()
    await bench.executor.cancel_background()
    assert cancelled == [True], "the second one had not begun"


async def test_an_action_without_a_handler_is_an_error() -> None:
    store = StateStore()
    observer = Observer(store, WorkQueue(), ReconcileTracer(None))
    cluster = cast(Cluster, None)
    executor = Executor("test", cast(Bus, Published()), cluster, store, observer, None)
    with pytest.raises(TypeError, match="test plans Measure but has no handler"):
        await executor.execute([Measure()], C, (7,), unconditionally)


async def test_a_record_is_not_waited_for_but_flushed() -> None:
    async def handle(_ctx: ActionContext) -> ActionResult:
        return ActionResult(record=ActionRecord(detail="3 GB"))

    bench = Bench(handle)
    bench.bus.answers.clear()
    assert await bench.execute() == "done"
    assert bench.recorded == []
    bench.bus.answers.set()
    await bench.executor.flush_records()
    assert bench.recorded == [("measure", "c", "3 GB")]


async def test_without_a_write_nothing_is_late() -> None:
    async def fail(_ctx: ActionContext) -> ActionResult:
        raise Unavailable("away")

    bench = Bench(fail)
    with pytest.raises(Unavailable):
        await bench.execute(Late())


async def test_after_a_write_a_late_action_is_not_waited_for() -> None:
    may_end = asyncio.Event()

    async def handle(_ctx: ActionContext) -> ActionResult:
        if bench.handled[-1] == Late.verb:
            await may_end.wait()
        return ActionResult(record=ActionRecord())

    bench = Bench(handle)
    assert await bench.execute(Measure(), Late()) == "done"
    assert bench.handled == ["measure", "late"]
    may_end.set()
    await bench.executor.finish_late()
    await bench.executor.flush_records()
    assert [verb for verb, _, _ in bench.recorded] == ["measure", "late"]


async def test_a_late_action_that_fails_is_not_repeated() -> None:
    async def handle(_ctx: ActionContext) -> ActionResult:
        if bench.handled[-1] == Late.verb:
            raise Unavailable("away")
        return ActionResult()

    bench = Bench(handle)
    assert await bench.execute(Measure(), Late()) == "done"
    await bench.executor.finish_late()
    assert bench.queue.idle


@pytest.mark.parametrize("leads", [True, False], ids=["leading", "before-any-term"])
async def test_an_object_is_new_if_created_in_this_term(leads: bool) -> None:
    """The object was created in the future of the test, another one before it."""
    found: list[bool] = []

    async def handle(ctx: ActionContext) -> ActionResult:
        found.append(ctx.is_new)
        return ActionResult()

    bench = Bench(handle)
    if leads:
        bench.executor.term_started()
    for created in ("2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"):
        version = str(len(found) + 5)
        metadata = {**BODY["metadata"], "creationTimestamp": created, "resourceVersion": version}
        bench.store.fold(changed({**BODY, "metadata": metadata}), len(found) + 2)
        await bench.execute()
    assert found == [False, leads]
