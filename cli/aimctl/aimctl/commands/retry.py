"""`aimctl retry`: retries what has failed at once, by an annotation that the services read
(BEHAVIOUR: aim.silogen.ai/retry).

The annotation is an input of an attempt, like the spec. A new value starts with attempt 1,
whichever replica leads and however often it reconciles.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path

import typer

from aimctl.analysis.dependencies import NO_PROGRESS, to_retry
from aimctl.analysis.diagnosis import diagnose
from aimctl.cluster import cluster_at
from aimctl.invocation import a_console, parse_key, run
from aimctl.options import Form
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_text
from aimctl.output.structured import print_data
from aimctl.state_stream import current_state
from aimkube import KubeError, describe_error
from aimschema.labels import ANNOTATION_RETRY
from aimschema.resources import RESOURCES, Key


async def try_again(key: Key, kubeconfig: Path | None, console: PlainConsole, form: Form) -> bool:
    """False if nothing of the chain has failed or waits for its next attempt. Raises RuntimeError
    without a bus, or if the API server rejects the annotation."""
    state, now = await current_state(), datetime.datetime.now(datetime.UTC)
    diagnosis = diagnose(state, key, now, NO_PROGRESS)
    found = to_retry(diagnosis)
    if found:
        await _annotate(found, now.isoformat(timespec="milliseconds"), kubeconfig)
    if form != "text":
        print_data(console, {"tried_again": [str(each) for each in found]}, form)
    elif not found:
        print_text(console, f"nothing to retry: {key} {diagnosis.summary}", "bold red")
    for each in found if form == "text" else ():
        print_text(console, f"retry requested for {each}")
    return bool(found)


async def _annotate(found: Sequence[Key], value: str, kubeconfig: Path | None) -> None:
    async with cluster_at(kubeconfig) as cluster:
        for each in found:
            try:
                await cluster.merge_patch(
                    RESOURCES[each.kind],
                    each.namespace,
                    each.name,
                    {"metadata": {"annotations": {ANNOTATION_RETRY: value}}},
                )
            except KubeError as error:
                raise RuntimeError(f"{each}: {describe_error(error)}") from error


def retry(what: str, namespace: str | None, kubeconfig: Path | None, form: Form) -> None:
    console = a_console()
    retried = try_again(parse_key(what, namespace), kubeconfig, console, form)
    raise typer.Exit(0 if run(console, retried) else 1)
