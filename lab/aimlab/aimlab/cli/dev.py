"""`aimlab dev`: a laptop cluster with the control plane, until it is interrupted."""

import sys
from pathlib import Path

from aimctl.local.processes import fail_when_one_ends
from aimctl.local.services import nats_environment
from aimctl.nats.key_files import NATS_KEYS, create_guard
from aimctl.output.console import PlainConsole
from aimctl.output.format import print_command
from aimlab.cli.environment import control_plane_on_laptop
from aimlab.cli.quickstart import MODEL, NAMESPACE, SERVICE


async def run_dev(state_dir: Path, console: PlainConsole) -> None:
    """Until cancelled, or until a process ends: then RuntimeError names it and its log."""
    console.print("starting a laptop cluster and the six services …")
    async with control_plane_on_laptop(
        state_dir, guard=create_guard(state_dir / NATS_KEYS), all_in_one=True
    ) as stack:
        kubectl = Path(sys.executable).with_name("kubectl")
        print_command(
            console,
            f"export KUBECONFIG={stack.lab.kubeconfig} PATH={kubectl.parent}:$PATH"
            f" {nats_environment(stack.nats_url, stack.access)}",
        )
        console.print("try:")
        print_command(console, f"kubectl apply -f {stack.quickstart.manifests}")
        print_command(
            console,
            f"kubectl wait aimsvc/{SERVICE} -n {NAMESPACE} --for=condition=Ready --timeout=60s &&"
            " kubectl get aim -A",
        )
        url = (
            f"$(kubectl get aimsvc {SERVICE} -n {NAMESPACE} -o"
            " jsonpath={.status.url})/v1/chat/completions"
        )
        body = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "hello"}}]}}'
        print_command(console, f"curl -s {url} -H 'content-type: application/json' -d '{body}'")
        console.print(
            f"logs are in {stack.lab.state_dir / 'log'}; Ctrl-C stops everything", soft_wrap=True
        )
        await fail_when_one_ends(stack.lab.children, stack.services)
