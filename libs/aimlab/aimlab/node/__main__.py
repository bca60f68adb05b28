"""`python -m aimlab.node`: the laptop cluster's node, with the controllers that a cluster would bring."""

import argparse
from pathlib import Path

from aimlab.node.run import CONTROLLERS, JOBS, WORKLOADS, run
from aimlab.service import run_until_told


def main() -> None:
    parser = argparse.ArgumentParser(prog="aimlab.node", description=__doc__)
    parser.add_argument("--kubeconfig", required=True, help="which cluster to join")
    parser.add_argument("--state", type=Path, required=True, help="folder for pods, logs and volumes")
    parser.add_argument("--images", type=Path, required=True, help="JSON table: image to command")
    lacks = "what else the cluster lacks (default: %(default)s)"
    parser.add_argument("--controllers", nargs="*", choices=CONTROLLERS, default=[JOBS, WORKLOADS], help=lacks)
    options = parser.parse_args()
    run_until_told(run(options.kubeconfig, options.state.absolute(), options.images.absolute(), options.controllers))


if __name__ == "__main__":
    main()
