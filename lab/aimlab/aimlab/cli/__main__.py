"""`aimlab`: the demo, and a laptop cluster to develop on. Each is imported when it runs."""

import sys

import typer

from aimctl.options import StateDir

app = typer.Typer(no_args_is_help=True, help="Run the AIM control plane on a laptop cluster.")


@app.command()
def demo(state: StateDir = None) -> None:
    """Run the end-to-end demo on a laptop cluster: from five manifests to a model answer.
    Exits 0 only if every check passes."""
    from aimctl.local.state_dir import run_in_state_dir
    from aimlab.cli.demo import run_demo

    raise typer.Exit(0 if run_in_state_dir(state, run_demo) else 1)


@app.command()
def dev(state: StateDir = None) -> None:
    """Run a laptop cluster with the control plane until Ctrl-C."""
    from aimctl.local.state_dir import run_in_state_dir
    from aimlab.cli.dev import run_dev

    run_in_state_dir(state, run_dev)


def main() -> None:
    sys.exit(app())


if __name__ == "__main__":
    main()
