"""What `aimctl top` shows of two samples of the streams and the messages between them."""

from collections import Counter
from dataclasses import replace
from io import StringIO

from aimbus import BusStats, ConsumerStats, StreamStats
from aimctl.commands.top import Load, Sample, compute_sample, render
from aimctl.component_registry import SERVICES
from aimctl.output.console import PlainConsole
from aimschema.messages import Progress
from aimschema.resources import CACHE, Key

LOG = StreamStats("AIM_LOG", 10, 1000, None, None, 10, 1)
STATE = StreamStats("AIM_STATE", 5, 500, None, None, 10, 1, lag=3)
BEFORE = BusStats(LOG, STATE, (), 0, None)
READERS = (
    ConsumerStats("aim-cacher", "AIM_STATE", 7),
    ConsumerStats("aim-cacher", "AIM_STATE", 1),
    ConsumerStats("aim-router", "AIM_STATE", 0),
)
AFTER = replace(BEFORE, log=replace(LOG, last_seq=30, messages=30), readers=READERS)
HALF = Progress(
    kind=CACHE.kind,
    namespace="team",
    name="w",
    phase="downloading",
    bytes=43_000_000,
    total=100_000_000,
    rate=10e6,
    seconds_left=5.7,
)


def sample() -> Sample:
    sent, dead = Counter({"aim-cacher": 10, "another": 5}), Counter({"router": 1})
    return compute_sample(BEFORE, AFTER, 2.0, sent, dead, {Key(CACHE.kind, "team", "w"): HALF})


def test_each_service_has_rate_lag_and_dead_letters() -> None:
    loads = {load.service: load for load in sample().loads}
    assert list(loads) == list(SERVICES)
    assert loads["cacher"] == Load("cacher", 5.0, 8, 0)
    assert loads["router"] == Load("router", 0.0, 0, 1)
    assert loads["watcher"].pending is None


def test_events_a_second_are_those_of_everybody() -> None:
    assert (sample().events_per_s, sample().mirror_lag, sample().log_messages) == (10.0, 3, 30)


def test_a_recreated_log_counts_no_events_backwards() -> None:
    assert compute_sample(AFTER, BEFORE, 2.0, Counter(), Counter(), {}).events_per_s == 0
    nothing = compute_sample(
        replace(BEFORE, log=None, state=None),
        replace(BEFORE, log=None, state=None),
        2.0,
        Counter(),
        Counter(),
        {},
    )
    assert (nothing.events_per_s, nothing.log_messages, nothing.mirror_lag) == (0, 0, None)


def test_downloads_are_shown_with_bytes_rate_and_time_left() -> None:
    out = StringIO()
    PlainConsole(file=out, width=120).print(render(sample()))
    assert "10 events/s; AIM_LOG: 30 messages" in out.getvalue()
    assert "not reading" in out.getvalue()
    assert "team/w downloading 43.0 MB of 100 MB at 10.0 MB/s, 6 s left" in out.getvalue()
