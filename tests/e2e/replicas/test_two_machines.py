"""Any replica serves any request, also for what another machine alone can look after."""

from __future__ import annotations

import asyncio

import pytest

from .conftest import Fleet, infer, read, until

pytestmark = pytest.mark.timeout(120)


async def test_any_replica_answers_for_what_runs_on_another_machine(fleet: Fleet) -> None:
    mill, life = await fleet.start("mill", managed_host="127.0.0.2")
    weir, _ = await fleet.start("weir", managed_host="127.0.0.3", tick_only="true")
    here, there = await fleet.owner(mill), await fleet.owner(weir)
    id_ = await fleet.deploy(there)
    await until(there, id_, "ready", "failed")
    answers = [await infer(owner, id_) for owner in (here, there)]
    assert answers[0] == answers[1], "one worker, whoever was asked"
    assert answers[0]["status"] == "ready"

    logs = await there.get(f"/v1/deployments/{id_}/logs")
    assert (logs.status_code, logs.json()["code"]) == (503, "logs_elsewhere")
    assert "mill" in logs.json()["detail"]
    assert (await here.get(f"/v1/deployments/{id_}/logs")).status_code == 200

    life.kill()
    assert await infer(there, id_) == answers[0], "it is served while nobody can look after it"
    assert (await there.delete(f"/v1/deployments/{id_}")).status_code == 204
    assert (await read(there, id_))["status"] == "deleting"
    await fleet.again(mill)
    await until(there, id_, "deleted")


async def test_each_machine_looks_after_its_own(fleet: Fleet) -> None:
    """Two with an engine each: whoever placed a deployment keeps it, and both answer for all of them."""
    mill, _ = await fleet.start("mill", managed_host="127.0.0.2")
    weir, _ = await fleet.start("weir", managed_host="127.0.0.3")
    owners = [await fleet.owner(mill), await fleet.owner(weir)]
    ids = await asyncio.gather(*(fleet.deploy(owners[n % 2]) for n in range(4)))
    for id_ in ids:
        assert (await until(owners[0], id_, "ready", "failed"))["status"] == "ready"
        assert await infer(owners[0], id_) == await infer(owners[1], id_)
    for number, id_ in enumerate(ids):
        assert (await owners[number % 2].delete(f"/v1/deployments/{id_}")).status_code == 204
    for id_ in ids:
        await until(owners[1], id_, "deleted")
    assert not (fleet.replicas.folder / "DOUBLED").exists()
    for machine in ("mill", "weir"):
        assert not list((fleet.replicas.folder / machine / "managed").glob("mrg-*")), "nothing is left"


async def test_two_services_on_one_machine_share_what_runs_there(fleet: Fleet) -> None:
    first, life = await fleet.start("mill")
    second, _ = await fleet.start("mill")
    here, there = await fleet.owner(first), await fleet.owner(second)
    ids = await asyncio.gather(*(fleet.deploy(owner) for owner in (here, there)))
    for id_ in ids:
        await until(there, id_, "ready", "failed")
        assert await infer(here, id_) == await infer(there, id_)
    life.kill()
    for id_ in ids:
        assert (await there.delete(f"/v1/deployments/{id_}")).status_code == 204
        await until(there, id_, "deleted")
    assert not (fleet.replicas.folder / "DOUBLED").exists()


async def test_a_key_revoked_on_one_replica_is_refused_on_the_other(fleet: Fleet) -> None:
    mill, _ = await fleet.start("mill")
    weir, _ = await fleet.start("weir", tick_only="true")
    owner, guest = await fleet.owner(mill), await fleet.owner(weir)
    made = (await owner.post("/v1/keys", json={"name": "ci", "role": "deployer"})).json()
    guest.headers["authorization"] = f"Bearer {made['key']}"
    assert (await guest.get("/v1/deployments")).status_code == 200
    assert (await owner.delete(f"/v1/keys/{made['id']}")).is_success
    loop = asyncio.get_running_loop()
    began = loop.time()
    while (answer := await guest.get("/v1/deployments")).status_code == 200:  # noqa: ASYNC110  # as above
        await asyncio.sleep(0.02)
    print(f"\nrefused by the other replica {loop.time() - began:.2f} s after it was revoked")
    assert (answer.status_code, answer.json()["code"]) == (401, "key_revoked")
