"""Fixtures: RabbitMQ and Redis while this test process lives, and a queue of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from worker_harness import queue_servers as servers
from worker_harness.queue_processes import Queue
from worker_harness.queue_servers import RabbitMQ, Redis
from worker_harness.running import StartWorker


def _need_servers() -> None:
    if (name := servers.missing()) is not None:
        pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    _need_servers()
    with servers.rabbitmq_serving() as instance:
        yield instance


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    _need_servers()
    with servers.redis_serving() as instance:
        yield instance


@pytest.fixture
def queue(rabbitmq: RabbitMQ, redis: Redis, start_worker: StartWorker) -> Queue:
    """A queue that nobody has used, and the processes of it."""
    return Queue(rabbitmq, redis, start_worker)
