"""What keeps running when something dies, and what is told of it. Real processes, killed for real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from moorage.domain.deployment import Handle
from moorage.domain.observation import Observation, ReplicaState, Trouble
from moorage.errors import NoCapacity, Rejected
from moorage.ports.provider import RevisionPlan
from moorage.testing.provider_contract import until_absent, until_ready
from moorage_managed.folders import EndpointFolder
from moorage_managed.processes import ProcessId, marked
from moorage_managed.snapshot import Snapshot

from .conftest import House, post, until, worker_pid


def is_ready(seen: Observation) -> bool:
    return bool(seen.replicas) and all(r.state is ReplicaState.READY for r in seen.replicas)


def snapshot(house: House, name: str) -> Snapshot:
    told = EndpointFolder(house.data_dir / name).snapshot()
    assert told is not None
    return told


def proc_file(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


async def eventually(holds: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def start(house: House, name: str, **env: str) -> tuple[RevisionPlan, str]:
    """A ready endpoint of one replica: its plan and URL."""
    plan, provider = await house.plan(**env), house.provider()
    seen = await until_ready(provider, await provider.create(plan, name, None), None, 10)
    return plan, str(seen.replicas[0].url)


# A service process of its own: makes the endpoint, says so, and then waits to be killed.
CREATOR = """
import asyncio, json, sys
from pathlib import Path
import moorage_managed
from moorage.domain.model import HubModel
from moorage.ports.provider import ProviderConfig, RevisionPlan
from moorage.testing.provider_contract import need

async def main(data_dir, environ, name):
    provider = moorage_managed.provider(ProviderConfig(Path(data_dir), json.loads(environ)))
    offer = (await provider.offers(need(1), None))[0]
    plan = RevisionPlan("dep_x", "org_x", 1, HubModel("acme/model"), "onnx", offer, 1, 10**7)
    print("creating", flush=True)
    await provider.create(plan, name, None)
    print("created", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("pause", [None, 0.0, 0.002, 0.005, 0.01, 0.02])
async def test_adopted_after_the_creator_was_killed(house: House, name: str, pause: float | None) -> None:
    """`pause` None: killed after the answer; else so many seconds into the call."""
    creator = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CREATOR, str(house.data_dir), json.dumps(house.environ), name,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert creator.stdout is not None
    assert await creator.stdout.readline() == b"creating\n"
    if pause is None:
        assert await creator.stdout.readline() == b"created\n"
    else:
        await asyncio.sleep(pause)
    creator.kill()
    await creator.wait()

    provider, plan = house.provider(), await house.plan()
    handle = await provider.create(plan, name, None)
    seen = await until_ready(provider, handle, None, 10)
    assert len(list(marked(str(house.data_dir / name)))) == 1
    assert await worker_pid(str(seen.replicas[0].url)) == next(marked(str(house.data_dir / name))).pid


async def test_a_model_answers_while_no_service_runs(house: House, name: str) -> None:
    _, url = await start(house, name)
    pid = await worker_pid(url)
    for provider in house.providers:
        await provider.aclose()
    assert await worker_pid(url) == pid
    seen = await house.provider().observe(Handle("managed", name), None)
    assert seen.replicas[0].url == url


async def test_a_killed_supervisor_takes_its_workers_along_and_is_replaced(house: House, name: str) -> None:
    await start(house, name, STUB_CHILD="1")
    before = snapshot(house, name)
    old = list(marked(str(house.data_dir / name)))
    assert len(old) >= 2  # the worker and its child
    provider = house.provider()
    watch = provider.watch(None)
    changed = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.1)
    before.shim.send(signal.SIGKILL)
    assert await asyncio.wait_for(changed, 5) == name
    seen = await until(provider, name, is_ready)
    assert snapshot(house, name).shim != before.shim
    assert not any(process.alive for process in old)
    assert await worker_pid(str(seen.replicas[0].url)) != old[0].pid
    await watch.aclose()  # type: ignore[attr-defined]  # a generator, though the port says iterator


async def test_a_watch_begins_with_supervisors_that_died_unheard(house: House, name: str) -> None:
    await start(house, name)
    for provider in house.providers:
        await provider.aclose()
    shim = snapshot(house, name).shim
    shim.send(signal.SIGKILL)
    await eventually(lambda: not shim.alive)
    watch = house.provider().watch(None)
    assert await asyncio.wait_for(anext(watch), 5) == name
    await watch.aclose()  # type: ignore[attr-defined]


async def test_a_second_supervisor_for_the_name_exits_at_once(house: House, name: str) -> None:
    await start(house, name)
    before = snapshot(house, name)
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "moorage_managed.shim", str(house.data_dir / name)
    )
    assert await asyncio.wait_for(second.wait(), 5) == 0
    assert snapshot(house, name) == before
    assert len(list(marked(str(house.data_dir / name)))) == 1


async def test_a_crashed_worker_is_started_again(house: House, name: str) -> None:
    _, url = await start(house, name)
    pid = await worker_pid(url)
    os.kill(pid, signal.SIGKILL)
    provider = house.provider()
    await until(provider, name, lambda seen: not is_ready(seen))
    seen = await until(provider, name, is_ready)
    assert await worker_pid(str(seen.replicas[0].url)) != pid
    assert snapshot(house, name).replicas[0].restarts == 1
    lines = [line.text async for line in provider.logs(Handle("managed", name), None, tail=50, follow=False)]
    assert any("was killed by SIGKILL" in line for line in lines)


async def test_one_crash_is_no_crash_loop(house: House, name: str, tmp_path: Path) -> None:
    await start(house, name, STUB_CRASH_ONCE=str(tmp_path / "crashed"))
    assert snapshot(house, name).replicas[0].restarts == 1


async def test_a_crash_loop_is_told_with_the_last_words(house: House, name: str) -> None:
    provider, plan = house.provider(), await house.plan(STUB_CRASH="7")
    await provider.create(plan, name, None)
    seen = await until(provider, name, lambda seen: seen.trouble is not None)
    assert seen.trouble is Trouble.CRASH_LOOP
    assert seen.message is not None
    assert "exited with status 7" in seen.message
    assert seen.log_tail[-1] == "ValueError: no such tensor"
    assert [r.state for r in seen.replicas] == [ReplicaState.STOPPED]
    assert list(marked(str(house.data_dir / name))) == []


async def test_a_command_that_does_not_exist_is_a_crash_loop_that_says_so(house: House, name: str) -> None:
    provider = house.provider(MOORAGE_MANAGED_WORKER_COMMAND="/no/such/program")
    await provider.create(await house.plan(), name, None)
    seen = await until(provider, name, lambda seen: seen.trouble is not None)
    assert "No such file" in seen.log_tail[-1]


async def test_a_worker_that_hangs_is_started_again(house: House, name: str) -> None:
    _, url = await start(house, name)
    pid = await worker_pid(url)
    await post(url, "/hang")
    provider = house.provider()
    seen = await until(provider, name, lambda seen: seen.replicas[0].state is ReplicaState.RESTARTING)
    assert "has not answered /ready" in str(seen.replicas[0].message)
    seen = await until(provider, name, is_ready)
    assert await worker_pid(str(seen.replicas[0].url)) != pid


async def test_the_stage_is_what_the_worker_says(house: House, name: str) -> None:
    provider, plan = house.provider(), await house.plan(STUB_NEVER_READY="1")
    await provider.create(plan, name, None)
    seen = await until(provider, name, lambda seen: seen.stage == "downloading")
    assert seen.replicas[0].state is ReplicaState.STARTING
    assert seen.replicas[0].url is None


async def test_a_stubborn_worker_and_its_children_are_deleted(house: House, name: str) -> None:
    await start(house, name, STUB_IGNORE_TERM="1", STUB_CHILD="1")
    processes = list(marked(str(house.data_dir / name)))
    groups = [Path(group) for group in snapshot(house, name).cgroups]
    await until_absent(house.provider(), Handle("managed", name), None, 10)
    assert not any(process.alive for process in processes)
    assert house.left_over() == []
    assert not any(group.exists() for group in groups)


async def test_a_delete_ends_what_a_killed_supervisor_left(house: House, name: str) -> None:
    await start(house, name, STUB_CHILD="1")
    child = [p for p in marked(str(house.data_dir / name)) if p != snapshot(house, name).replicas[0].process]
    for provider in house.providers:
        await provider.aclose()
    snapshot(house, name).shim.send(signal.SIGKILL)
    await until_absent(house.provider(), Handle("managed", name), None, 10)
    assert child
    assert not any(process.alive for process in child)


async def test_a_supervisor_that_stopped_listening_is_killed_by_delete(
    house: House, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage_managed.endpoints.HUNG_SHIM_SECONDS", 0.2)
    await start(house, name)
    snapshot(house, name).shim.send(signal.SIGSTOP)
    await until_absent(house.provider(), Handle("managed", name), None, 10)


async def test_logs_are_followed_as_they_come(house: House, name: str) -> None:
    _, url = await start(house, name)
    provider = house.provider()
    lines = provider.logs(Handle("managed", name), None, tail=0, follow=True)
    following = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0.05)
    await post(url, "/say", "hello there")
    line = await asyncio.wait_for(following, 5)
    assert (line.replica, line.text) == ("0", "hello there")
    await lines.aclose()  # type: ignore[attr-defined]


async def test_capacity_is_real(house: House, name: str) -> None:
    plan = replace(await house.plan(), memory_bytes=4 * 10**8)
    provider, other = house.provider(), house.provider()
    names = [f"{name[:-1]}{number}" for number in range(4)]
    makers = [(provider, names[0]), (other, names[1]), (provider, names[2]), (other, names[3])]
    outcomes = await asyncio.gather(
        *(maker.create(plan, each, None) for maker, each in makers), return_exceptions=True
    )
    refused = [o for o in outcomes if isinstance(o, NoCapacity)]
    assert len(refused) == 2  # the budget is 1 GB
    assert "0.40 GB are needed, 0.20 GB of 1.00 GB are free" in refused[0].detail
    made = next(o for o in outcomes if isinstance(o, Handle))
    with pytest.raises(NoCapacity):
        await provider.apply(made, replace(plan, replicas=2), None)
    await until_absent(provider, made, None, 10)
    await provider.create(plan, name, None)


async def test_memory_beyond_the_limit_ends_the_worker(house: House, name: str) -> None:
    provider, plan = house.provider(), await house.plan(STUB_EAT_MB="700")
    await provider.create(plan, name, None)  # may have 10 MB * 1.25 + 512 MiB
    await eventually(lambda: (house.data_dir / name / "state.json").exists())
    seen = await until(provider, name, lambda seen: bool(seen.trouble or seen.replicas[0].message), 20)
    limits = snapshot(house, name).limits
    if limits is None or not limits.startswith("cgroup"):
        pytest.skip(f"no cgroup here: {limits}")
    assert "ran out of memory" in str(seen.message or seen.replicas[0].message)


async def test_the_worker_gets_its_own_secrets_and_none_of_the_service(
    house: House, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORAGE_SECRET_KEYS", "the-service-s-own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-service-s-own")
    plan = replace(await house.plan(GREETING="hello"), hub_token="hf_of_the_user")
    provider = house.provider()
    seen = await until_ready(provider, await provider.create(plan, name, None), None, 10)
    environ = (await post(str(seen.replicas[0].url), "/env")).text
    assert "GREETING=hello" in environ
    assert "HF_TOKEN=hf_of_the_user" in environ
    assert "HF_ENDPOINT=http://127.0.0.1:9" in environ
    assert "the-service-s-own" not in environ
    assert (house.data_dir / name / "spec.json").stat().st_mode & 0o777 == 0o600
    shim = snapshot(house, name).shim
    assert "the-service-s-own" not in proc_file(shim.pid, "environ")


async def test_a_variable_that_steers_the_loader_is_refused(house: House, name: str) -> None:
    for variable in ("LD_PRELOAD", "PYTHONPATH", "MOORAGE_SECRET_KEYS", "PATH"):
        with pytest.raises(Rejected) as raised:
            await house.provider().create(await house.plan(**{variable: "x"}), name, None)
        assert [error.field for error in raised.value.fields] == [f"env.{variable}"]
    assert await house.provider().find(name, None) is None


async def test_apply_of_other_env_starts_the_worker_afresh(house: House, name: str) -> None:
    plan, url = await start(house, name, GREETING="one")
    pid = await worker_pid(url)
    provider = house.provider()
    await provider.apply(Handle("managed", name), replace(plan, env={"GREETING": "two"}), None)
    await eventually(lambda: ProcessId.of(pid) is None)
    seen = await until(provider, name, is_ready)
    assert "GREETING=two" in (await post(str(seen.replicas[0].url), "/env")).text


async def test_a_supervisor_is_small(house: House, name: str) -> None:
    await start(house, name)
    status = proc_file(snapshot(house, name).shim.pid, "status")
    kilobytes = int(status.partition("VmRSS:")[2].split()[0])
    assert kilobytes < 24 * 1024


# -- the address ----------------------------------------------------------------------------------------


async def test_workers_listen_where_the_other_processes_reach_them(house: House, name: str) -> None:
    provider = house.provider(MOORAGE_MANAGED_HOST="127.0.0.9")
    handle = await provider.create(await house.plan(), name, None)
    seen = await until_ready(provider, handle, None, 10)
    [url] = seen.targets
    assert url.startswith("http://127.0.0.9:")
    assert await worker_pid(url)
    with pytest.raises(httpx.ConnectError):
        await worker_pid(url.replace("127.0.0.9", "127.0.0.1"))
