"""`python -m aimlab.testing.record FILE --server URL --token T`: sends the requests of FILE to a
real API server, and writes its answers into FILE.

FILE is a topic as in `recorded`: a line with its subject, then a step a line, of which only the
request counts. Uids, resourceVersions and times become placeholders; managedFields are left out.
The server must not have the namespace `lab`; it is deleted at the end, with everything that was
created.
"""

import argparse
import asyncio
import re
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

Body = dict[str, Any]
FIRST_UID, FIRST_VERSION = 100, 1000
"""Placeholders are shared by all topics; each file has its own hundred."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LAB_UID = "<uid:26>"
"""The namespace's, as core-kinds.jsonl has it."""
NAMESPACE: Body = {"metadata": {"name": "lab"}}


class Server(NamedTuple):
    url: str
    token: str


class Placeholders:
    """What stands for which value, in the order in which they come."""

    def __init__(self, file_number: int) -> None:
        self._first = {"uid": FIRST_UID * file_number, "rv": FIRST_VERSION * file_number}
        self.known: dict[tuple[str, str], str] = {}

    def of(self, value: Any, key: str = "") -> Any:
        """The value without what differs from run to run."""
        if isinstance(value, dict):
            return {
                name: self.of(item, name)
                for name, item in sorted(value.items())
                if name != "managedFields"
            }
        if isinstance(value, list):
            return [self.of(item) for item in value]
        if not isinstance(value, str):
            return value
        if key == "resourceVersion":
            return self._placeholder("rv", value)
        return TIME.sub("<time>", UID.sub(lambda found: self._placeholder("uid", found[0]), value))

    def _placeholder(self, kind: str, value: str) -> str:
        number = self._first[kind] + sum(one == kind for one, _ in self.known)
        return self.known.setdefault((kind, value), f"<{kind}:{number}>")


async def record(topic: str, text: str, server: Server, file_number: int) -> str:
    """The text of the file, with answers."""
    about, *lines = text.splitlines()
    headers, placeholders = {"Authorization": f"Bearer {server.token}"}, Placeholders(file_number)
    connector = aiohttp.TCPConnector(ssl=False)
    written, made = [about], ["/api/v1/namespaces/lab"]
    async with aiohttp.ClientSession(
        server.url, headers=headers, connector=connector, trust_env=False
    ) as http:
        namespace = {"method": "POST", "path": "/api/v1/namespaces", "body": NAMESPACE}
        _, made_namespace = await ask(http, namespace)
        placeholders.known["uid", made_namespace["metadata"]["uid"]] = LAB_UID
        accounts = "/api/v1/namespaces/lab/serviceaccounts"
        await ask(
            http, {"method": "POST", "path": accounts, "body": {"metadata": {"name": "default"}}}
        )
        for number, line in enumerate(lines, 1):
            step = msgspec.json.decode(line)
            status, body = await ask(http, step["request"])
            if status == 201 and "/namespaces/" not in step["request"]["path"]:
                made.append(f"{step['request']['path']}/{body['metadata']['name']}")
            response = {"body": placeholders.of(body), "status": status}
            full = step | {"case": topic, "response": response, "step": number}
            written.append(msgspec.json.encode(full, order="sorted").decode())
        for path in made:
            await ask(http, {"method": "DELETE", "path": path})
    return "\n".join(written) + "\n"


async def ask(http: aiohttp.ClientSession, request: Body) -> tuple[int, Any]:
    data = msgspec.json.encode(request["body"]) if "body" in request else None
    headers = {"Content-Type": request.get("contentType", "application/json")}
    async with http.request(
        request["method"], request["path"], data=data, headers=headers
    ) as answer:
        return answer.status, await answer.json(content_type=None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m aimlab.testing.record", description=__doc__)
    parser.add_argument("file", type=Path, help="the topic, a .jsonl file")
    parser.add_argument("--server", metavar="URL", required=True, help="a real API server")
    parser.add_argument("--token", required=True, help="bearer token of a cluster administrator")
    parser.add_argument(
        "--number", type=int, required=True, help="which of the files it is, from 1"
    )
    options = parser.parse_args()
    file, server = options.file, Server(options.server, options.token)
    file.write_text(asyncio.run(record(file.stem, file.read_text(), server, options.number)))


if __name__ == "__main__":
    main()
