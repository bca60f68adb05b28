"""kube-apiserver and etcd from a folder: stand-ins here that take the flags and answer over
https to who has the token."""

import sys
from pathlib import Path

import pytest

from aimkube import Cluster
from aimlab.envtest import kube_apiserver
from aimschema.resources import NAMESPACE

ETCD = """
import signal
signal.pause()
"""
KUBE_APISERVER = """
import http.server, json, pathlib, ssl, sys
flags = dict(flag[2:].split("=", 1) for flag in sys.argv[1:])
token = pathlib.Path(flags["token-auth-file"]).read_text().split(",")[0]
signing_key = pathlib.Path(flags["service-account-signing-key-file"]).read_text()
assert signing_key.startswith("-----BEGIN RSA PRIVATE KEY-----")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        allowed = self.headers["Authorization"] == f"Bearer {token}"
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        namespace = {"kind": "Namespace", "metadata": {"name": self.path}}
        self.wfile.write(json.dumps(namespace).encode())

server = http.server.HTTPServer((flags["bind-address"], int(flags["secure-port"])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(flags["tls-cert-file"], flags["tls-private-key-file"])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def assets(folder: Path, **programs: str) -> Path:
    for name, source in programs.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!{sys.executable}\n{source}")
        program.chmod(0o755)
    return folder


async def test_its_kubeconfig_reaches_it_over_tls_as_administrator(tmp_path: Path) -> None:
    async with kube_apiserver(
        assets(tmp_path, etcd=ETCD, kube_apiserver=KUBE_APISERVER), tmp_path / "state"
    ) as kubeconfig:
        cluster = await Cluster.connect(str(kubeconfig))
        assert (await cluster.get(NAMESPACE, None, "default"))["metadata"][
            "name"
        ] == "/api/v1/namespaces/default"
        await cluster.close()


async def test_one_that_ends_is_named_with_its_log(tmp_path: Path) -> None:
    ending = assets(tmp_path, etcd=ETCD, kube_apiserver="raise SystemExit('bad flag')")
    with pytest.raises(RuntimeError, match="kube-apiserver did not come up"):
        async with kube_apiserver(ending, tmp_path / "state"):
            pass
    assert "bad flag" in (tmp_path / "state" / "log" / "kube-apiserver.log").read_text()
