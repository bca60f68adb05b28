"""Builds the real parts with `go build`, each once, into a cache folder outside the repository.

The folder is AIM_REAL_CACHE, else `aim-real` in XDG_CACHE_HOME, else in ~/.cache. A part is built
again when its version or its recipe here changes. A part that cannot be built raises PartError:
what is missing and how to get it, or where the log of the build is.
"""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

CACHE = "AIM_REAL_CACHE"
KUBERNETES = "v1.36.3"
STAGING = "v0.36.3"
ETCD = "v3.6.8"
KSERVE = "v0.16.1-0.20251128170209-af1534b62f8c"
OLD_KSERVE = "v0.15.2"
GATEWAY_API = "v1.5.1"
GO_DIRECTIVE = "1.26.0"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
STAGED = (
    "api",
    "apiextensions-apiserver",
    "apimachinery",
    "apiserver",
    "cli-runtime",
    "client-go",
    "cloud-provider",
    "cluster-bootstrap",
    "code-generator",
    "component-base",
    "component-helpers",
    "controller-manager",
    "cri-api",
    "cri-client",
    "cri-streaming",
    "csi-translation-lib",
    "dynamic-resource-allocation",
    "endpointslice",
    "externaljwt",
    "kms",
    "kube-aggregator",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "metrics",
    "mount-utils",
    "pod-security-admission",
    "sample-apiserver",
    "streaming",
)
"""Modules of the repository of Kubernetes that are published beside it. Its own go.mod replaces
them by folders, which the published module does not have."""

GO_ENV = {"GOFLAGS": "-mod=mod", "CGO_ENABLED": "0", "GOWORK": "off"}
STRIPPED = "-s -w"
ETCD_MAIN = """package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""
HOW_TO_GET = {
    "go": "Go 1.26 or newer builds the parts: https://go.dev/doc/install",
    "ip": "iproute2 gives pods addresses that are not on loopback: apt-get install iproute2",
}


class PartError(RuntimeError):
    """A part is not available; the message names what a person has to do."""


@dataclass(frozen=True, slots=True)
class Parts:
    """`bin` has etcd, kube-apiserver, kube-controller-manager and kube-scheduler."""

    bin: Path
    gateway_crds: Path
    kserve: "KServe"


@dataclass(frozen=True, slots=True)
class KServe:
    """The controller's program, and its source: `config` has its kinds, settings and webhooks."""

    program: Path
    source: Path
    version: str


def cache_folder(env: Mapping[str, str]) -> Path:
    if folder := env.get(CACHE):
        return Path(folder)
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aim-real"


def build_parts(cache: Path) -> Parts:
    """All parts of a cluster; minutes the first time, a moment after that. Raises PartError."""
    require("go", "ip")
    with _alone(cache):
        _build_kubernetes(cache)
        _build_etcd(cache)
        gateway_api = _download_module("sigs.k8s.io/gateway-api", GATEWAY_API)
        kserve = _build_kserve(cache, KSERVE)
        return Parts(cache / "bin", gateway_api / "config" / "crd" / "standard", kserve)


def build_old_kserve(cache: Path) -> KServe:
    """A KServe that knows no mode `Standard`. Raises PartError."""
    require("go")
    with _alone(cache):
        return _build_kserve(cache, OLD_KSERVE)


def require(*programs: str) -> None:
    """Raises PartError naming what is missing and how to get it."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        raise PartError("\n".join(f"{name} is missing. {HOW_TO_GET[name]}" for name in missing))


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One build at a time, though several commands ask for it."""
    (cache / "bin").mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_kubernetes(cache: Path) -> None:
    replaced = "\n".join(f"\tk8s.io/{name} => k8s.io/{name} {STAGING}" for name in STAGED)
    module = (
        _go_mod("kubernetes", f"k8s.io/kubernetes {KUBERNETES}") + f"\nreplace (\n{replaced}\n)\n"
    )
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    version = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor}
    stamps = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in version.items()]
    for name in PROGRAMS:
        flags = " ".join([STRIPPED, *stamps])
        build = Build(name, f"k8s.io/kubernetes/cmd/{name}", KUBERNETES, flags)
        _build(cache, build, {"go.mod": module}, "kubernetes")


def _build_etcd(cache: Path) -> None:
    files = {"go.mod": _go_mod("etcd", f"go.etcd.io/etcd/server/v3 {ETCD}"), "main.go": ETCD_MAIN}
    _build(cache, Build("etcd", ".", ETCD, STRIPPED), files, "etcd")


def _go_mod(name: str, required: str) -> str:
    return f"module aim.test/{name}\n\ngo {GO_DIRECTIVE}\n\nrequire {required}\n"


def _build_kserve(cache: Path, version: str) -> KServe:
    """In a copy of the module, since its replacements count only in the module that is built."""
    source = cache / "src" / f"kserve-{version}"
    if not source.is_dir():
        part = source.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        module = _download_module("github.com/kserve/kserve", version)
        shutil.copytree(module, part, copy_function=shutil.copyfile)
        for folder in [part, *part.rglob("*/")]:
            folder.chmod(0o755)
        part.rename(source)
    name = f"kserve-{version}"
    _build(cache, Build(name, "./cmd/manager", version, STRIPPED), {}, name)
    return KServe(cache / "bin" / name, source, version)


@dataclass(frozen=True, slots=True)
class Build:
    name: str
    package: str
    version: str
    flags: str


def _build(cache: Path, build: Build, files: Mapping[str, str], folder: str) -> None:
    """`files` are written into the folder first; Go adds to go.mod what it finds out.

    Does nothing where the recipe is the one of the last build.
    """
    source, program = cache / "src" / folder, cache / "bin" / build.name
    recipe, stamp = repr((build, sorted(files.items()))), cache / "bin" / f"{build.name}.recipe"
    if program.is_file() and stamp.is_file() and stamp.read_text() == recipe:
        return
    source.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (source / name).write_text(text)
    print(f"building {build.name} {build.version} …", flush=True)
    began = time.monotonic()
    command = ["nice", "go", "build", "-trimpath", "-ldflags", build.flags, "-o", str(program)]
    log = cache / "log" / f"{build.name}.log"
    _go([*command, build.package], source, log, f"{build.name} {build.version} cannot be built")
    stamp.write_text(recipe)
    print(f"  {time.monotonic() - began:.0f} s", flush=True)


def _go(command: list[str], folder: Path, log: Path, failed: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        env, errors = os.environ | GO_ENV, subprocess.STDOUT
        done = subprocess.run(
            command, cwd=folder, env=env, stdout=output, stderr=errors, check=False
        )
    if done.returncode:
        last = "\n".join(log.read_text().splitlines()[-5:])
        raise PartError(f"{failed}; the log is {log}, and ends:\n{last}")


def _download_module(module: str, version: str) -> Path:
    """The folder of a module in Go's module cache. Raises PartError."""
    command = ["go", "mod", "download", "-json", f"{module}@{version}"]
    done = subprocess.run(
        command, cwd="/", env=os.environ | GO_ENV, capture_output=True, check=False
    )
    answer = msgspec.json.decode(done.stdout or b"{}")
    if "Dir" not in answer:
        why = (answer.get("Error") or done.stderr.decode()).strip()
        raise PartError(f"Go cannot download {module} {version} ({why}); see go env GOPROXY")
    return Path(answer["Dir"])
