"""Watches through the client's own Watch: from a revision, selected, with bookmarks, until too old."""

from __future__ import annotations

import asyncio

import pytest
from kubernetes_asyncio import client, watch

from moorage_kubernetes.testing import StandInCluster

from .asking import Api, Json, deployment, ready


def config_map(name: str, **labels: str) -> Json:
    meta = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}


async def test_from_a_list_on(cluster: StandInCluster, api: Api) -> None:
    cluster.add(config_map("old"))
    listed = await api.core.list_namespaced_config_map("default")
    stream = watch.Watch().stream(
        api.core.list_namespaced_config_map,
        "default",
        resource_version=listed.metadata.resource_version,
        timeout_seconds=5,
    )
    seen = []
    async with stream:
        await api.core.create_namespaced_config_map("default", config_map("new"))
        await api.core.patch_namespaced_config_map("new", "default", {"data": {"a": "1"}})
        await api.core.delete_namespaced_config_map("new", "default")
        async for event in stream:
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                break
    assert seen == [("ADDED", "new"), ("MODIFIED", "new"), ("DELETED", "new")]


async def test_without_a_revision_it_begins_with_all(cluster: StandInCluster, api: Api) -> None:
    cluster.add(config_map("a"))
    cluster.add(config_map("b"))
    stream = watch.Watch().stream(api.core.list_namespaced_config_map, "default", timeout_seconds=0.1)
    assert [event["raw_object"]["metadata"]["name"] async for event in stream] == ["a", "b"]


async def test_a_selected_object_comes_into_view_and_goes(cluster: StandInCluster, api: Api) -> None:
    cluster.add(config_map("a", color="red"))
    revision = str(cluster.world.store.revision)
    for color in ("blue", "blue", "red"):
        patch = {"metadata": {"labels": {"color": color}, "annotations": {"n": color}}}
        await api.core.patch_namespaced_config_map("a", "default", patch)
    stream = watch.Watch().stream(
        api.core.list_namespaced_config_map,
        "default",
        label_selector="color=blue",
        resource_version=revision,
        timeout_seconds=0.2,
    )
    assert [event["type"] async for event in stream] == ["ADDED", "DELETED"]


async def test_bookmarks_carry_the_revision_on() -> None:
    async with StandInCluster(bookmark_seconds=0.05) as cluster, await cluster.api_client() as one:
        api = Api(one)
        cluster.add({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}})
        stream = watch.Watch().stream(
            api.core.list_namespaced_config_map,
            "default",
            resource_version="1001",
            allow_watch_bookmarks=True,
            timeout_seconds=5,
        )
        async with stream:
            async for event in stream:
                assert event["type"] == "BOOKMARK"
                break
        # it is past the secret, which the watch does not show
        assert int(stream.resource_version) == cluster.world.store.revision


async def test_too_old(cluster: StandInCluster, api: Api) -> None:
    cluster.compact()
    stream = watch.Watch().stream(
        api.core.list_namespaced_config_map, "default", resource_version="1001", timeout_seconds=1
    )
    with pytest.raises(client.ApiException) as caught:
        await anext(stream)
    assert caught.value.status == 410
    cluster.add(config_map("a"))  # a watch from now on is fine
    revision = str(cluster.world.store.revision - 1)
    stream = watch.Watch().stream(
        api.core.list_namespaced_config_map, "default", resource_version=revision, timeout_seconds=1
    )
    assert (await anext(stream))["type"] == "ADDED"
    await stream.close()


async def test_running_watches_expire_and_drop(cluster: StandInCluster, api: Api) -> None:
    async def seen() -> str:
        try:
            async for _ in watch.Watch().stream(
                api.core.list_namespaced_config_map, "default", timeout_seconds=30
            ):
                pass
        except client.ApiException as error:
            return str(error.status)
        except Exception as error:  # the client's own word for a cut connection
            return type(error).__name__
        return "ended"

    for end, told in ((cluster.expire_watches, "410"), (cluster.drop_watches, "ClientPayloadError")):
        task = asyncio.create_task(seen())
        await cluster.watches.began.wait()
        cluster.watches.began.clear()
        end()
        assert await task == told


async def test_a_watch_sees_a_rollout_in_order(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment())
    await ready(cluster)
    stream = watch.Watch().stream(
        api.core.list_namespaced_pod, "default", resource_version="1", timeout_seconds=0.2
    )
    phases = [event["object"].status.phase async for event in stream]
    assert phases[0] == "Pending"
    assert phases[-1] == "Running"
