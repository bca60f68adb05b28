"""Imported by the server that forks the processes of tests: the descriptions of S3's API, parsed.

Each download parses them once, for 60 ms of CPU. botocore's loader caches them, and the downloader
has one loader for all stores.
"""

import asyncio
import ssl

from aim_downloader.retry import Limits
from aim_downloader.s3_client import connect
from aim_downloader.stores import Store


async def _open_client() -> None:
    """Opening a client parses, and requests nothing."""
    store = Store("http://127.0.0.1:9", access_key_id="none", secret_access_key="none")
    async with connect(store, Limits(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
        pass


asyncio.run(_open_client())
