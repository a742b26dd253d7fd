"""schemathesis against the running service: no server error, and no answer that the document does not hold.

The seed is fixed, so that a run can be repeated; `SCHEMATHESIS_SEED` and `SCHEMATHESIS_EXAMPLES` widen it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage.domain.identity import Role

from .byoc_world import Place, clusters, owners_world
from .conftest import whole_service

SEED = os.environ.get("SCHEMATHESIS_SEED", "20261121")
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "12")
SECONDS = 280.0  # it takes about 30 on a quiet machine

CONFIG = """
[parameters]
"path.model" = "{model}"
"path.deployment_id" = "{deployment_id}"
"path.deployment" = "{model}"
"path.uuid" = "{uuid}"
"query.wait" = "1000"  # the replicas are nobody's: a job would be waited for as long as the caller says

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]  # documented: a model that is being deleted does not answer
"""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    provider = clusters()
    async with whole_service(tmp_path / "var", provider) as api:
        yield Place(api, await owners_world(api), provider)


@pytest.mark.timeout(300)
async def test_schemathesis_finds_no_server_error_and_nothing_undocumented(
    place: Place, tmp_path: Path
) -> None:
    api = place.api
    ids = [await api.deploy(user_webhook_url=api.receiver.hook) for _ in range(2)]
    for id_ in ids:
        await api.until(id_, "ready")
    config = tmp_path / "schemathesis.toml"
    uuid = (await place.create())["uuid"]
    config.write_text(CONFIG.format(model=ids[0], deployment_id=ids[1], uuid=uuid))
    paths = (await api.owner.get("/openapi.json")).json()["paths"]
    operations = sum(len(methods) for methods in paths.values())
    ran = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "schemathesis.cli", "--config-file", str(config), "--no-color"),
        *("run", f"{api.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {await api.key(Role.OWNER)}"),
        *("--seed", SEED, "--generation-deterministic", "--max-examples", EXAMPLES),
        *("--phases", "examples,coverage,fuzzing,stateful", "--request-timeout", "10"),
        # Some rules no schema can say: exactly one source, a host that resolves, a cursor of ours.
        *("--exclude-checks", "positive_data_acceptance"),
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS):
            told, _ = await ran.communicate()
    finally:
        if ran.returncode is None:
            ran.kill()
            await ran.wait()
    report = told.decode(errors="replace")
    assert ran.returncode == 0, report
    assert f"Tested: {operations}" in report, report
