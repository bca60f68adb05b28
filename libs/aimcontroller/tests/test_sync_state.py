"""The transitions between loading, loaded, synced and leading."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimcontroller.sync_state import Phase, SyncState

Input = Callable[[SyncState], SyncState]
KINDS = ("ModelCache", "Job")


def marker(kind: str) -> Input:
    return lambda state: state.kind_synced(kind)


LOAD, LOADED = SyncState.load_started, SyncState.load_ended
ELECTED, LOST = SyncState.term_started, SyncState.term_ended
CACHES, JOBS = (marker(kind) for kind in KINDS)
SYNCED = (LOAD, CACHES, JOBS, LOADED)


@pytest.mark.parametrize(
    ("inputs", "phase"),
    [
        pytest.param((), Phase.LOADING, id="start"),
        pytest.param((LOAD,), Phase.LOADING, id="load"),
        pytest.param((LOAD, CACHES, JOBS), Phase.LOADING, id="markers-before-the-end-of-the-load"),
        pytest.param((LOAD, LOADED), Phase.LOADED, id="an-empty-bus-is-not-an-empty-cluster"),
        pytest.param((LOAD, CACHES, LOADED), Phase.LOADED, id="one-marker-is-missing"),
        pytest.param((LOAD, CACHES, LOADED, CACHES), Phase.LOADED, id="the-same-marker-twice"),
        pytest.param((LOAD, CACHES, LOADED, JOBS), Phase.SYNCED, id="last-marker"),
        pytest.param(SYNCED, Phase.SYNCED, id="all-markers-in-the-load"),
        pytest.param((*SYNCED, LOADED), Phase.SYNCED, id="a-second-end"),
        pytest.param((*SYNCED, marker("Pod")), Phase.SYNCED, id="marker-of-another-kind"),
        pytest.param((*SYNCED, ELECTED), Phase.LEADING, id="elected"),
        pytest.param((LOAD, ELECTED, LOADED), Phase.LOADED, id="elected-without-markers"),
        pytest.param((LOAD, ELECTED, *SYNCED), Phase.LEADING, id="elected-before-the-load"),
        pytest.param((*SYNCED, ELECTED, LOST), Phase.SYNCED, id="lease-lost"),
        pytest.param((*SYNCED, ELECTED, LOAD), Phase.LOADING, id="new-load"),
        pytest.param((*SYNCED, ELECTED, LOAD, LOADED), Phase.LOADED, id="new-load-without-markers"),
        pytest.param((*SYNCED, ELECTED, *SYNCED), Phase.LEADING, id="a-new-load-keeps-the-lease"),
        pytest.param(
            (*SYNCED, ELECTED, LOAD, LOST, *SYNCED[1:]), Phase.SYNCED, id="lost-meanwhile"
        ),
    ],
)
def test_the_phase_after_these_inputs(inputs: tuple[Input, ...], phase: Phase) -> None:
    state = SyncState.of(KINDS)
    for change in inputs:
        state = change(state)
    assert state.phase is phase
    assert state.is_synced is (phase in {Phase.SYNCED, Phase.LEADING})


@given(st.lists(st.sampled_from([LOAD, LOADED, ELECTED, LOST, CACHES, JOBS])))
def test_only_a_complete_state_leads(inputs: list[Input]) -> None:
    state = SyncState.of(KINDS)
    for change in inputs:
        state = change(state)
    since_load = inputs[max((i for i, each in enumerate(inputs) if each is LOAD), default=0) :]
    if state.phase is Phase.LEADING:
        assert LOADED in inputs
        assert {CACHES, JOBS} <= set(inputs if LOAD not in inputs else since_load)
        assert ELECTED in inputs
