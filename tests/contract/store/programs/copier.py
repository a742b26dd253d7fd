"""A process that copies a store and kills itself on the way: `copier.py FROM TO PAGES`, so many pages in."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from moorage.copying import copy
from moorage.open_store import open_store


async def main(source_url: str, target_url: str, pages: int) -> None:
    source, target = await open_store(source_url), await open_store(target_url)
    left = pages

    def progress(stage: str, collection: str, rows: int) -> None:
        nonlocal left
        left -= stage == "copying"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    await copy(source, target, progress)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
