"""A laptop cluster for demos and tests: everything a service needs from a cluster, on loopback
and in memory."""

import os

if "AIMLAB_FORKSERVER" in os.environ:
    import aimlab.forkserver  # noqa: F401 (processes are then started by it)
