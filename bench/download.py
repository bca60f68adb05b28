"""How fast the downloader fills a folder from S3, beside s5cmd and rclone: time, CPU, memory.

Run by `make bench-download` and `make bench`; prints a section of RESULTS.md. The store is the
lab's SeaweedFS on loopback, which shares the cores with the client under test. Objects are uploaded
in parts as the SDKs of AWS do. All three fetch the same objects in turn in each round, into an
empty folder; then the sha256 of every file is compared. Only ours computes checksums on the way:
the floor is what they cost alone.

    .venv/bin/python bench/download.py --rounds 1 --sets "1,000 × 256 KiB"
"""

import argparse
import asyncio
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from support.processes import peak_mib
from support.report import table
from support.world import machine

from aimlab.sources.seaweed import Keys, S3Server, seaweed

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
SETS = {
    "1 × 2 GiB": (1, 2 * GIB),
    "8 × 256 MiB": (8, 256 * MIB),
    "1,000 × 256 KiB": (1000, 256 * KIB),
}
KEYS = Keys("bench-access-key", "bench-secret-key")
BUCKET = "bench"
BIN = Path(sys.executable).parent
POLL_S = 0.02
SERVER_ENV = {"GOGC": "100", "GOMEMLIMIT": "off"}
"""Go's own defaults: the lab trades the server's speed for memory."""


@dataclass(frozen=True)
class Cost:
    """One run of one program. `peak_mib` is the most that was resident."""

    wall_s: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True)
class Client:
    """A program with its environment; `{bucket}`, `{prefix}` and `{dest}` in `argv` are filled."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]

    def command(self, prefix: str, dest: Path) -> list[str]:
        return [each.format(bucket=BUCKET, prefix=prefix, dest=dest) for each in self.argv]


def clients(server: S3Server) -> list[Client]:
    """Ours first. The others with the options that a careful user gives them."""
    ours = {
        "AIM_S3_0_ENDPOINT_URL": server.endpoint_url,
        "AIM_S3_0_ACCESS_KEY_ID": KEYS.access_key,
        "AIM_S3_0_SECRET_ACCESS_KEY": KEYS.secret_key,
    }
    aws = {"AWS_ACCESS_KEY_ID": KEYS.access_key, "AWS_SECRET_ACCESS_KEY": KEYS.secret_key}
    s3 = f":s3,provider=Other,env_auth,endpoint='{server.endpoint_url}':{{bucket}}/{{prefix}}"
    rclone = ("copy", "--transfers", "8", "--multi-thread-streams", "8", s3, "{dest}")
    s5cmd = ("--endpoint-url", server.endpoint_url, "cp", "s3://{bucket}/{prefix}/*", "{dest}/")
    return [
        Client(
            "aim-downloader",
            (f"{BIN}/aim-downloader", "fetch", "s3://{bucket}/{prefix}", "{dest}"),
            ours,
        ),
        Client("s5cmd", (f"{BIN}/s5cmd", *s5cmd), aws | {"AWS_REGION": "us-east-1"}),
        Client("rclone", (f"{BIN}/rclone", "--config", "/dev/null", *rclone), aws),
    ]


def write_set(folder: Path, files: int, size_bytes: int) -> dict[str, str]:
    """Write random files; returns the sha256 of each by its name."""
    folder.mkdir(parents=True)
    sums = {}
    for number in range(files):
        digest = hashlib.sha256()
        with (folder / f"{number:04}.bin").open("wb") as out:
            for start in range(0, size_bytes, MIB):
                piece = os.urandom(min(MIB, size_bytes - start))
                out.write(piece)
                digest.update(piece)
        sums[f"{number:04}.bin"] = digest.hexdigest()
    return sums


def floor(folder: Path) -> Cost:
    """The cost of sha256 and MD5 of the same bytes, read once, on one core."""
    started_s, cpu_s = time.monotonic(), time.process_time()
    for file in sorted(folder.iterdir()):
        digests = (hashlib.sha256(), hashlib.md5(usedforsecurity=False))
        with file.open("rb", buffering=0) as content:
            while piece := content.read(MIB):
                for digest in digests:
                    digest.update(piece)
    return Cost(time.monotonic() - started_s, time.process_time() - cpu_s, 0.0)


def run(client: Client, prefix: str, dest: Path, log: Path) -> Cost:
    """Run to its end. Raises RuntimeError if it fails."""
    env = {"PATH": os.environ["PATH"], "HOME": str(dest.parent)} | client.env
    started_s, most_mib = time.monotonic(), 0.0
    with log.open("wb") as out:
        streams = [(os.POSIX_SPAWN_DUP2, out.fileno(), number) for number in (1, 2)]
        command = client.command(prefix, dest)
        pid = os.posix_spawn(command[0], command, env, file_actions=streams)
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            with suppress(OSError, IndexError):  # it has just ended
                most_mib = max(most_mib, peak_mib(pid))
            time.sleep(POLL_S)
        wall_s = time.monotonic() - started_s
        _, status, used = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{client.name} failed: {log.read_text()[-2000:]}")
    return Cost(wall_s, used.ru_utime + used.ru_stime, most_mib)


def check(dest: Path, sums: Mapping[str, str]) -> None:
    """Raises RuntimeError unless the folder has exactly these files."""
    found = {
        str(path.relative_to(dest)): hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
        for path in dest.rglob("*")
        if path.is_file() and path.name != ".aim-manifest.json"
    }
    if found != sums:
        raise RuntimeError(f"{dest} does not hold what the store has")


def rounds_of(
    every: Sequence[Client], prefix: str, folder: Path, sums: Mapping[str, str], rounds: int
) -> dict[str, list[Cost]]:
    """The costs by client. Each round begins with another client."""
    costs: dict[str, list[Cost]] = {client.name: [] for client in every}
    for number in range(rounds):
        for turn in range(len(every)):
            client = every[(number + turn) % len(every)]
            dest = folder / "dest"
            shutil.rmtree(dest, ignore_errors=True)
            dest.mkdir()
            costs[client.name].append(run(client, prefix, dest, folder / f"{client.name}.log"))
            check(dest, sums)
    shutil.rmtree(folder / "dest")
    return costs


def rows(costs: Mapping[str, Sequence[Cost]], size_bytes: int, least: Cost) -> Iterator[list[str]]:
    """A row for each client and one for the floor. Ratios are of the median times."""
    ours_s, *others_s = (statistics.median(each.wall_s for each in runs) for runs in costs.values())
    for name, runs in costs.items():
        times_s = sorted(each.wall_s for each in runs)
        wall_s = statistics.median(times_s)
        yield [
            name,
            f"{wall_s:.2f} s ({times_s[0]:.2f} to {times_s[-1]:.2f})",
            f"{size_bytes / MIB / wall_s:.0f} MiB/s",
            f"{statistics.median(each.cpu_s for each in runs):.2f} s",
            f"{max(each.peak_mib for each in runs):.0f} MiB",
            f"{wall_s / ours_s:.2f}",
        ]
    yield [
        "sha256 and MD5 alone",
        f"{least.wall_s:.2f} s",
        "",
        f"{least.cpu_s:.2f} s",
        "",
        f"{least.wall_s / ours_s:.2f}",
    ]
    yield ["faster of the two others, by ours", "", "", "", "", f"**{min(others_s) / ours_s:.2f}**"]


async def measure(options: argparse.Namespace, folder: Path) -> None:
    os.environ |= SERVER_ENV
    async with seaweed(folder / "weed", KEYS) as server:
        for name in options.sets.split(";"):
            files, size_bytes = SETS[name]
            source = folder / "source"
            sums = await asyncio.to_thread(write_set, source, files, size_bytes)
            await server.put_folder(BUCKET, prefix := f"set-{files}", source)
            least = await asyncio.to_thread(floor, source)
            shutil.rmtree(source)
            costs = await asyncio.to_thread(
                rounds_of, clients(server), prefix, folder, sums, options.rounds
            )
            print(f"### {name}, medians of {options.rounds} rounds\n")
            titles = ["", "time (range)", "speed", "CPU", "peak memory", "time by ours"]
            print("\n".join(table(titles, rows(costs, files * size_bytes, least))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--sets", default=";".join(SETS), help="sets, with ; between (default all)")
    options = parser.parse_args()
    print("## Downloads beside s5cmd and rclone\n")
    with tempfile.TemporaryDirectory(prefix="aim-bench-") as folder:
        asyncio.run(measure(options, Path(folder)))
    print(f"`make bench-download`, {machine()}.")


if __name__ == "__main__":
    main()
