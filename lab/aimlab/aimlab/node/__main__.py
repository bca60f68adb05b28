"""`python -m aimlab.node`: the laptop cluster's node, with the controllers that a cluster would
bring."""

import argparse
from ipaddress import IPv4Network
from pathlib import Path

from aimlab.node.launch import LOOPBACK
from aimlab.node.run import ALONE, CONTROLLERS, Options, run
from aimlab.service import run_until_signalled


def main() -> None:
    parser = argparse.ArgumentParser(prog="aimlab.node", description=__doc__)
    parser.add_argument("--kubeconfig", required=True, help="which cluster to join")
    parser.add_argument(
        "--state", type=Path, required=True, help="folder for pods, logs and volumes"
    )
    parser.add_argument("--images", type=Path, required=True, help="JSON table: image to command")
    lacks = "what else the cluster lacks (default: %(default)s)"
    parser.add_argument("--controllers", nargs="*", choices=CONTROLLERS, default=ALONE, help=lacks)
    where = "pods have their addresses in it (default: %(default)s)"
    parser.add_argument("--pod-network", type=IPv4Network, default=LOOPBACK, help=where)
    arguments = parser.parse_args()
    state, images = arguments.state.absolute(), arguments.images.absolute()
    run_until_signalled(
        run(
            arguments.kubeconfig,
            Options(state, images, arguments.controllers, arguments.pod_network),
        )
    )


if __name__ == "__main__":
    main()
