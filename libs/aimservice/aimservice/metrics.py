"""Prometheus metrics that every service has, named by the Prometheus conventions; label values are from fixed sets."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("aim_events", "Events read from the bus", ["source"])
FAILURES = Counter("aim_failures", "Failures nobody foresaw, by kind: undecodable, unexpected", ["kind"])
RECONCILE_SECONDS = Histogram("aim_reconcile_duration_seconds", "Time from taking a key to having acted on it", ["service", "outcome"])
LEADER = Gauge("aim_leader", "1 while this process holds its service's lease, 0 while it stands by", ["service"])
