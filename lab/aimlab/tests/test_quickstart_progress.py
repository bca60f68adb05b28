"""What people see while they wait."""

from io import StringIO

from aimctl.output.console import PlainConsole
from aimctl.output.format import progress_text
from aimlab.cli.quickstart_progress import QuickstartState, row, show_until_ready, table
from aimschema.messages import Progress

READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Running",
    "message": "/ns/uid on [red]http://x",
}
SERVICE = {
    "kind": "AIMService",
    "metadata": {"namespace": "ns", "name": "s"},
    "status": {"status": "Running", "conditions": [READY]},
}
PROGRESS = Progress(
    kind="ModelCache",
    namespace="ns",
    name="c",
    phase="downloading",
    bytes=43_000_000,
    total=100_000_000,
    rate=10e6,
    seconds_left=5.7,
)


def test_a_row_has_object_state_reason_and_message() -> None:
    assert row(SERVICE) == ("AIMService/ns/s", "Running", "Running", "/ns/uid on [red]http://x")
    assert row({"kind": "AIMService", "metadata": {"namespace": "ns", "name": "s"}}) == (
        "AIMService/ns/s",
        "…",
        "",
        "",
    )


def test_progress_has_bytes_rate_and_seconds_left() -> None:
    assert progress_text(PROGRESS) == "downloading 43.0 MB of 100 MB at 10.0 MB/s, 6 s left"


async def test_without_a_terminal_each_change_is_a_plain_line() -> None:
    out = StringIO()
    state = QuickstartState({("AIMService", "s"): SERVICE}, PROGRESS)
    assert await show_until_ready(state, "s", PlainConsole(file=out, width=200)) is SERVICE
    assert out.getvalue().splitlines() == [
        "AIMService/ns/s  Running  Running  /ns/uid on [red]http://x",
        "ModelCache/ns/c  downloading 43.0 MB of 100 MB at 10.0 MB/s, 6 s left",
    ]


def test_a_terminal_shows_a_table_with_a_bar() -> None:
    out = StringIO()
    PlainConsole(file=out, width=160, terminal=True).print(
        table(QuickstartState({("AIMService", "s"): SERVICE}, PROGRESS))
    )
    assert "[red]http://x" in out.getvalue()
    assert "43.0 MB of 100 MB" in out.getvalue()
