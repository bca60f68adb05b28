"""The state of the mirror is shown in /readyz and in metrics."""

import pytest
from prometheus_client import REGISTRY

from aim_watcher.streams import STREAMS, note_level
from aimbus import Level
from aimcontroller.health import Health


def counted() -> tuple[float, float]:
    found = [
        REGISTRY.get_sample_value(name) for name in ("aim_mirror_lag", "aim_mirror_stalls_total")
    ]
    return found[0] or 0.0, found[1] or 0.0


@pytest.mark.parametrize(
    ("level", "missing"),
    [
        pytest.param(Level(0, 0), None, id="level"),
        pytest.param(Level(7, 0.2), None, id="behind-for-a-moment"),
        pytest.param(
            Level(7, 12.4),
            "AIM_STATE is 7 messages behind AIM_LOG and has not moved for 12 s",
            id="stands-still",
        ),
        pytest.param(
            Level(7, 30, stalled=True),
            "AIM_STATE is 7 messages behind AIM_LOG and has not moved for 30 s",
            id="stalled",
        ),
    ],
)
def test_the_leader_is_not_ready_with_a_stalled_mirror(level: Level, missing: str | None) -> None:
    health = Health()
    health.set_ready("start")
    _, stalls = counted()
    note_level(health, level)
    assert health.not_ready.get(STREAMS) == missing
    assert counted() == (level.lag, stalls + level.stalled)
    note_level(health, Level(0, 0))
    assert health.not_ready == {}


def test_the_fill_level_stays_while_the_state_is_re_created() -> None:
    note_level(Health(), Level(0, 0, full=0.83))
    note_level(Health(), Level(7, 30, stalled=True))
    assert REGISTRY.get_sample_value("aim_state_full_ratio") == 0.83
