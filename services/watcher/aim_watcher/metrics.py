"""Metrics of the watcher: the lag and fill level of AIM_STATE, which all services read. The leader
measures every 10 s; a standby serves zeros."""

from prometheus_client import Counter, Gauge

MIRROR_LAG = Gauge(
    "aim_mirror_lag", "Messages by which AIM_STATE was behind AIM_LOG at the last measurement"
)
MIRROR_STALLS = Counter(
    "aim_mirror_stalls", "Times that AIM_STATE was behind, did not move and was re-created"
)
STATE_FULL = Gauge(
    "aim_state_full_ratio",
    "Fill level of AIM_STATE at the last measurement; at 1 it drops objects",
)
