"""Metrics of the watcher: the lag and fill level of AIM_STATE, which all services read. The leader
measures every 10 s; a standby serves zeros."""

from prometheus_client import Counter, Gauge

MIRROR_LAG = Gauge(
    "aim_mirror_lag", "Messages that AIM_STATE was behind AIM_LOG when the watcher last looked"
)
MIRROR_STALLS = Counter(
    "aim_mirror_stalls", "Times that AIM_STATE was behind, did not move and was re-created"
)
STATE_FULL = Gauge(
    "aim_state_full_ratio",
    "Share of its bound that AIM_STATE took when the watcher last looked; at 1 it drops objects",
)
