"""A restart of Moorage stops no model: it answers while the service is dead, and after."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from moorage.testing.killing import KillableService

from .conftest import Receiver, processes_of
from .test_kills import User

pytestmark = pytest.mark.crash


async def test_a_model_answers_while_the_service_is_killed_and_started_again(
    service: KillableService, receiver: Receiver, tmp_path: Path
) -> None:
    del service.environ["MOORAGE_MANAGED_WORKER_COMMAND"]  # the real worker, with the real model
    life = service.start()
    user = User(service.url, receiver, tmp_path / "locks")
    asking: asyncio.Task[int] | None = None
    try:
        await user.sign_in()
        id_ = await user.create(0)
        assert await user.until(id_, "ready", "failed") == "ready"
        answered = asyncio.Event()
        target = await the_worker(tmp_path)
        over = asyncio.Event()

        async def ask() -> int:
            """Without a pause; any request that fails fails the test."""
            count = 0
            async with httpx.AsyncClient(timeout=10.0) as http:
                while not over.is_set():
                    answer = await http.post(f"{target}/infer", json={"inputs": [[[0.0] * 8] * 8]})
                    assert answer.status_code == 200, answer.text
                    count += 1
                    answered.set()
            return count

        asking = asyncio.create_task(ask())
        for _ in range(3):
            answered.clear()
            await answered.wait()
            life.kill()
            answered.clear()
            await answered.wait()  # with no service there at all
            life = service.start()
            through = await user.infer(id_, {"inputs": [[[0.0] * 8] * 8]})
            assert through["outputs"][0][0]["label"] in "0123456789"
        over.set()
        assert await asking > 0
        assert await the_worker(tmp_path) == target, "it is the same process on the same port"
        await user.delete(id_)
        await user.until(id_, "deleted")
    except BaseException:
        print(service.log.read_text()[-6000:])
        raise
    finally:
        if asking is not None:
            asking.cancel()
        life.kill()
    assert not processes_of(tmp_path)


async def the_worker(folder: Path) -> str:
    """The base URL of the one worker process, from its command line."""
    [command] = [p for p in processes_of(folder).values() if "moorage_worker" in p]
    words = command.split()
    return f"http://127.0.0.1:{words[words.index('--port') + 1]}"
