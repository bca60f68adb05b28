"""A laptop cluster for demos and tests: everything a service needs from a cluster, on loopback
and in memory."""
