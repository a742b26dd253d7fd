"""What the control plane counts is what really happened, and nothing in it names anybody."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from moorage import __version__
from moorage.errors import Retry
from tests.e2e.api.conftest import MODEL, VENDOR_TOKEN, Api

from .conftest import scraped


async def test_the_life_of_a_deployment_is_counted_at_every_place(api: Api) -> None:
    api.compute.faults.raise_next("create", Retry("not now", after=0.01))
    id_ = await api.deploy(user_webhook_url=api.receiver.hook, provider="fake")
    await api.until(id_, "ready")
    await api.settled(id_)
    job = await api.owner.post(f"/v2/{id_}/runsync", json={"input": {"inputs": 1}})
    assert job.json()["status"] == "COMPLETED"
    found = await scraped(api.url)

    assert found.value("moorage_provider_calls_total", provider="fake", operation="create", outcome="ok") == 1
    assert found.value("moorage_provider_calls_total", operation="create", outcome="retry") == 1
    assert found.value("moorage_provider_call_duration_seconds_count", operation="create") == 2
    for operation in ("offers", "observe"):
        counted = found.value("moorage_provider_calls_total", provider="fake", operation=operation)
        assert counted == api.compute.calls[operation]
    assert found.value("moorage_engine_effects_total", effect="create", outcome="created") == 1
    assert found.value("moorage_engine_effects_total", effect="create", outcome="later") == 1
    assert found.value("moorage_engine_effect_duration_seconds_count", effect="validate") == 1
    for phase in ("selecting_gpu", "creating_endpoint", "loading_model", "ready"):
        assert found.value("moorage_deployment_phase_entries_total", phase=phase) == 1
    assert found.value("moorage_deployments", phase="ready") == 1
    assert found.value("moorage_deployments") == 1
    assert 0 < found.value("moorage_deployments_longest_in_phase_seconds", phase="ready") < 60
    sent = len(api.receiver.messages)
    assert found.value("moorage_webhook_attempts_total", result="delivered") == sent > 3
    assert found.value("moorage_webhook_attempt_duration_seconds_count") == sent
    assert found.value("moorage_job_runs_total", state="COMPLETED") == 1
    assert (
        found.value("moorage_api_requests_total", route="/v1/deployments", method="POST", status="202") == 1
    )
    assert found.value("moorage_store_operations_total", operation="commit", outcome="ok") > 3
    assert found.value("moorage_build_info", version=__version__) == 1
    assert found.value("moorage_engine_places") >= found.value("moorage_engine_deployments_in_hand")

    await api.owner.delete(f"/v1/deployments/{id_}")
    await api.until(id_, "deleted")
    found = await scraped(api.url)
    assert found.value("moorage_deployments") == 0
    assert found.value("moorage_deployment_phase_entries_total", phase="deleted") == 1
    assert found.value("moorage_provider_calls_total", operation="delete", outcome="ok") == 1


async def test_a_receiver_that_refuses_is_counted_as_such(api: Api) -> None:
    api.receiver.status = 500
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    await api.until(id_, "ready")
    await api.receiver.until(lambda messages: len(messages) >= 4)
    found = await scraped(api.url)
    assert found.value("moorage_webhook_attempts_total", result="failed") >= 3
    assert found.value("moorage_webhook_attempts_total", result="delivered") == 0


async def test_labels_are_few_whatever_is_asked_for(api: Api) -> None:
    for i in range(30):
        await api.owner.get(f"/nowhere/{i}")
        await api.owner.get(f"/v1/deployments/dep_{i}")
        await api.owner.request(("PROPFIND", "MKCOL", "TRACE")[i % 3], "/v1/deployments")
    found = await scraped(api.url)
    assert found.value("moorage_api_requests_total", route="none", status="404") == 30
    one = {"route": "/v1/deployments/{deployment_id}", "status": "404"}
    assert found.value("moorage_api_requests_total", **one) == 30
    assert found.value("moorage_api_requests_total", method="other") == 30
    routes = {s.labels["route"] for s in found.families["moorage_api_requests"].samples}
    assert len(routes) < 6


async def test_the_control_planes_metrics_name_nobody(api: Api) -> None:
    body = {"provider": "vendor", "name": "hidden-account", "values": {"token": VENDOR_TOKEN}}
    await api.owner.post("/v1/credentials", json=body)
    id_ = await api.deploy(name="hidden-name", user_webhook_url=api.receiver.hook)
    await api.until(id_, "ready")
    text = (await api.owner.get("/metrics")).text
    ours = [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not family.name.startswith("moorage_gateway_")
    ]
    assert len(ours) > 100
    told = " ".join(value for sample in ours for value in sample.labels.values())
    for hidden in (id_, id_[4:], "hidden", VENDOR_TOKEN, MODEL, "owner", "127.0.0.1"):
        assert hidden not in told
    assert all(sample.name.startswith("moorage_") for sample in ours)
