"""`aimlab demo`: the whole way, once, with proof at each step; False where any of it was not
true."""

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from rich.text import Text

import aimbus
from aimbus import Bus, Event
from aimctl.analysis.causality import Link, notable_links, story
from aimctl.nats.key_files import NATS_KEYS, create_guard
from aimctl.output.console import PlainConsole
from aimlab.cli.environment import Stack, control_plane_on_laptop, kubectl_env
from aimlab.cli.quickstart import MODEL, NAMESPACE, SERVICE, WEIGHTS
from aimlab.cli.quickstart_progress import is_ready, show_until_ready, watching
from aimlab.cli.secret_scan import leaks
from aimlab.lab import S3_KEYS
from aimschema import quantities, reasons, subjects
from aimschema.messages import ActionTaken, ObjectChanged
from aimschema.reasons import STATUSWRITER
from aimschema.resources import MODEL as CATALOGUE
from aimschema.resources import SERVICE as SERVICE_KIND
from aimschema.resources import TEMPLATE

READY_WITHIN_S = 60.0
NOT_YET = frozenset({404, 500, 502, 503})
"""No route yet; a backend that is not known yet (Gateway API, HTTPRouteRule.backendRefs: 500);
one that does not answer yet."""
ANSWER_WITHIN_S = 20.0
PROMPT = "What runs here, and how do I know that it is whole?"


@dataclass
class Checks:
    """The checks of the demo and their results."""

    console: PlainConsole
    failed: list[str]

    def check(self, claim: str, *, holds: bool) -> None:
        self.console.print(
            Text.assemble(("  ✓ " if holds else "  ✗ ", "green" if holds else "bold red"), claim)
        )
        if not holds:
            self.failed.append(claim)


async def run_demo(state_dir: Path, console: PlainConsole) -> bool:
    """Starts everything, prints what happens, stops everything."""
    started_s = time.monotonic()
    checks = Checks(console, [])
    _heading(console, "Starting a laptop cluster and the six services")
    async with control_plane_on_laptop(
        state_dir, guard=create_guard(state_dir / NATS_KEYS), all_in_one=True
    ) as stack:
        console.print(
            f"  up after {time.monotonic() - started_s:.1f} s;"
            f" {quantities.human(stack.quickstart.size_bytes)} model put into the S3 server",
        )
        bus = await aimbus.connect(stack.nats_url, name="aimctl", access=stack.access)
        try:
            await the_way(stack, bus, checks)
        finally:
            await bus.close()
        _heading(console, "Stopping")
    seconds = f"{time.monotonic() - started_s:.1f} s"
    if checks.failed:
        console.print(
            Text(
                f"Demo failed after {seconds}: {'; '.join(checks.failed)}",
                style="bold red",
            )
        )
    else:
        console.print(Text(f"All checks passed in {seconds}.", style="bold green"))
    return not checks.failed


def _heading(console: PlainConsole, text: str) -> None:
    console.rule(Text(text, style="bold"), align="left")


async def the_way(stack: Stack, bus: Bus, checks: Checks) -> None:
    """From the manifests to an answer, with a check at each step."""
    console, manifests = checks.console, str(stack.quickstart.manifests)
    _heading(console, "kubectl apply -f examples/quickstart")
    applied = await _kubectl(stack, console, "apply", "-f", manifests)
    checks.check("the manifests are accepted", holds=applied)
    _heading(console, "Waiting until the service is ready")
    service = await _wait_until_ready(stack, bus, checks)
    if service is None:
        return
    await _check_image(stack, checks)
    await _kubectl(stack, console, "get", "aim", "-n", NAMESPACE)
    _heading(console, "Calling the model through the gateway")
    await _call(stack, service, checks)
    _heading(console, "Timeline")
    links = await _story(bus)
    _print_story(links, console)
    yours = {
        link.event.message.kind
        for link in links
        if not link.parents and isinstance(link.event.message, ObjectChanged)
    }
    checks.check(
        "the chain of events leads from your manifests to the running service",
        holds={SERVICE_KIND.kind, TEMPLATE.kind} <= yours,
    )
    found = await leaks(stack, [S3_KEYS.secret_key])
    checks.check(
        "the S3 store's secret key is in no event, object, metric or"
        f" log{''.join(f', but in {place}' for place in found)}",
        holds=not found,
    )


async def _wait_until_ready(stack: Stack, bus: Bus, checks: Checks) -> dict[str, Any] | None:
    """The service; None if it did not become ready in time."""
    try:
        async with (
            asyncio.timeout(READY_WITHIN_S),
            watching(stack.lab.cluster, bus, NAMESPACE) as progress,
        ):
            service = await show_until_ready(progress, SERVICE, checks.console)
            not_ready = [
                f"{kind}/{name}"
                for (kind, name), body in progress.objects.items()
                if not is_ready(body)
            ]
    except TimeoutError:
        logs = stack.lab.state_dir / "log"
        checks.check(
            f"the service is ready within {READY_WITHIN_S:.0f} s (logs: {logs})", holds=False
        )
        return None
    exceptions = f": but not {', '.join(not_ready)}" if not_ready else ""
    checks.check(f"service, template and cache are ready{exceptions}", holds=not not_ready)
    return service


async def _check_image(stack: Stack, checks: Checks) -> None:
    model = (await stack.lab.cluster.list(CATALOGUE)).items[0]
    conditions = (model.get("status") or {}).get("conditions") or ()
    inspected = {c["type"]: c for c in conditions}.get(reasons.IMAGE_INSPECTED, {})
    checks.check(
        f"the model's image was inspected: {inspected.get('message', 'no condition')}",
        holds=inspected.get("status") == "True",
    )


async def _kubectl(stack: Stack, console: PlainConsole, *args: str) -> bool:
    """Run kubectl against the laptop cluster and show what it prints; True where it succeeds."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("kubectl")),
        *args,
        env=kubectl_env(stack.lab),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    for line in output.decode(errors="replace").splitlines():
        console.print(f"  {line}", soft_wrap=True)
    return process.returncode == 0


async def _call(stack: Stack, service: dict[str, Any], checks: Checks) -> None:
    """The model stand-in answers only after checking its cached files against the source; the
    answer has to name the weights' sha256."""
    if stack.lab.gateway is None:
        raise RuntimeError("the demo needs a gateway, and this cluster has none")
    url = f"{stack.lab.gateway.url}{service['status'].get('path', '')}/v1/chat/completions"
    checks.check(
        "status.url is where the gateway answers",
        holds=f"{service['status'].get('url', '')}/v1/chat/completions" == url,
    )
    request = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
    checks.console.print(f"  POST {url}", soft_wrap=True)
    status, body = await _answer(url, request)
    checks.check(f"the gateway answers 200 (status {status})", holds=status == 200)
    if status == 200:
        answer = str(body["choices"][0]["message"]["content"])
        checks.console.print(Text(f"  {answer}", style="cyan"), soft_wrap=True)
        checks.check(
            f"the answer comes from the file that was put into the S3 server ({WEIGHTS})",
            holds=stack.quickstart.sums[WEIGHTS] in answer,
        )


async def _answer(url: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The gateway's data plane may need a moment to follow its word: until it knows the backend
    it answers one of `NOT_YET`, which is asked again."""
    async with aiohttp.ClientSession(trust_env=False) as client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_WITHIN_S):
                while True:
                    async with client.post(url, json=request) as answer:
                        if answer.status not in NOT_YET:
                            return (
                                answer.status,
                                (
                                    await answer.json()
                                    if answer.content_type == "application/json"
                                    else {}
                                ),
                            )
                    await asyncio.sleep(0.1)
        async with client.post(url, json=request) as answer:
            return answer.status, {}


async def _story(bus: Bus) -> list[Link]:
    """What led to the last status of the service."""
    events = [
        item async for item in aimbus.read_log(bus, [subjects.ALL]) if isinstance(item, Event)
    ]

    def ends(event: Event) -> bool:
        message = event.message
        return (
            isinstance(message, ActionTaken)
            and message.service == STATUSWRITER
            and message.kind == SERVICE_KIND.kind
            and message.name == SERVICE
        )

    return story(events, ends)


def _print_story(links: list[Link], console: PlainConsole) -> None:
    if not links:
        return
    first = links[0].event.time
    for link, who, what in notable_links(links):
        after_s = (link.event.time - first).total_seconds()
        console.print(f"  {link.event.seq:>4}  +{after_s:6.2f} s  {who:<13} {what}", soft_wrap=True)
