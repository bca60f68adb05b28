"""The quickstart in the state that a test needs, whatever the tests before it did.

Each function does nothing where the state is already there.
"""

import contextlib
from typing import Any

from aimkube import NotFound
from aimlab.cli.environment import Stack, kubectl
from aimlab.cli.quickstart import NAMESPACE, SERVICE
from aimlab.kinds import is_true
from aimschema.resources import NAMESPACE as NAMESPACE_KIND
from aimschema.resources import SERVICE as SERVICE_KIND

RIGHT, WRONG = "aimlab-secret", "mistyped"
"""Secret keys of the S3 server."""
RETRY = "aim.silogen.ai/retry"


async def deleted(stack: Stack) -> None:
    """No object of the quickstart exists."""
    with contextlib.suppress(NotFound):
        await stack.lab.cluster.get(NAMESPACE_KIND, None, NAMESPACE)
        manifests = str(stack.quickstart.manifests)
        await kubectl(stack.lab, "delete", "--ignore-not-found", "-f", manifests)


async def failed(stack: Stack) -> None:
    """The cache of the service cannot be filled: the secret key is wrong."""
    if not await _service_is(stack, "Failure"):
        await deleted(stack)
        await apply_with_key(stack, WRONG)
        await _wait(stack, "Failure")


async def running(stack: Stack) -> None:
    """The service answers."""
    if not await _service_is(stack, "Ready"):
        failed_before = await _service_is(stack, "Failure")
        await apply_with_key(stack, RIGHT)
        if failed_before:
            caches = ("annotate", "modelcaches", "--all", "--overwrite", "-n", NAMESPACE)
            await kubectl(stack.lab, *caches, f"{RETRY}=running")
        await _wait(stack, "Ready")


async def apply_with_key(stack: Stack, key: str) -> None:
    file = stack.quickstart.manifests / "00-namespace.yaml"
    text = file.read_text()
    file.write_text(text.replace(RIGHT, key).replace(WRONG, key))
    await kubectl(stack.lab, "apply", "-f", str(stack.quickstart.manifests))


async def _service_is(stack: Stack, condition: str) -> bool:
    try:
        body: dict[str, Any] = await stack.lab.cluster.get(SERVICE_KIND, NAMESPACE, SERVICE)
    except NotFound:
        return False
    return is_true(body, condition)


async def _wait(stack: Stack, condition: str) -> None:
    service = ("wait", f"aimsvc/{SERVICE}", "-n", NAMESPACE)
    await kubectl(stack.lab, *service, f"--for=condition={condition}", "--timeout=90s")
