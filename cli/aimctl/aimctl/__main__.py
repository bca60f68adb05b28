"""`aimctl`, and `kubectl aim` by its other name `kubectl-aim`."""

import sys

from aimctl.app import app


def main() -> None:
    sys.exit(app())


if __name__ == "__main__":
    main()
