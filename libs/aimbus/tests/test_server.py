"""The embedded server."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aimbus import NatsServer, ServerNotStarted, connect, ensure_streams
from aimbus.jetstream import stream_info


async def test_it_keeps_its_port_and_its_streams_over_stop_and_kill(server: NatsServer) -> None:
    url = server.url
    bus = await connect(url, name="t")
    await ensure_streams(bus)
    for end in (server.stop, server.kill):
        lost = (await bus.session()).ended
        await end()
        assert server.pid is None
        assert await server.start() == url
        await lost
        assert await stream_info(await bus.session(), "AIM_LOG") is not None
    await bus.close()


async def test_it_listens_on_loopback_only_and_syncs_every_write(server: NatsServer) -> None:
    config = (server.store_dir / "nats.conf").read_text()
    assert "listen: 127.0.0.1:" in config
    assert "sync_interval: always" in config


async def test_a_server_that_cannot_start_reports_why(server: NatsServer, tmp_path: Path) -> None:
    with pytest.raises(ServerNotStarted, match="address already in use"):
        await NatsServer(tmp_path / "other", server.port).start()


async def test_a_path_with_blanks_and_quotes_is_a_path(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / 'my "own" folder {x}')
    try:
        await server.start()
        bus = await connect(server.url, name="t")
        await ensure_streams(bus)
        await bus.close()
        assert (server.store_dir / "jetstream").is_dir()
    finally:
        await server.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from aimbus import NatsServer\n"
        "async def main():\n"
        "    server = NatsServer(Path(sys.argv[1]))\n"
        "    await server.start()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path / "nats"), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    server_fd = os.pidfd_open(int(await parent.stdout.readline()))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(server_fd, ended.set)
    try:
        assert not ended.is_set()
        parent.kill()
        await parent.wait()
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(server_fd)
        if not ended.is_set():
            signal.pidfd_send_signal(server_fd, signal.SIGKILL)
        os.close(server_fd)
