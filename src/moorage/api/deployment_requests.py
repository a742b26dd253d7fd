"""The words of the deployments surface: what it takes, for validation and for the document."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from moorage.api.schemas import Url
from moorage.api.workload_schemas import WorkloadRequest
from moorage.domain.naming import id_given
from moorage.domain.request import NewDeployment
from moorage.services.changes import Change

Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class DeploymentRequest(BaseModel):
    """Exactly one of `hf_model_id`, `model_id`, `container_image` says what to run."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        protected_namespaces=(),
        json_schema_extra={"examples": [{"hf_model_id": "moorage/digits", "max_price_per_hour": 1.5}]},
    )

    hf_model_id: Text | None = Field(None, description="A Hugging Face model, `owner/name`.")
    revision: Text | None = Field(None, description="Branch, tag or commit of `hf_model_id`.")
    model_id: Text | None = Field(None, description="Id of a model or container that you registered.")
    model_version: Text | None = Field(None, description="Leave it out: `model_id` names one version.")
    container_image: Text | None = Field(None, description="An image that serves HTTP.")
    name: Text | None = Field(None, description="Unique among your deployments; made up when absent.")
    provider: Text = Field("auto", description="`auto` ranks the offers of all providers.")
    gpu_tier: Text | None = Field(None, description="Only accelerators of that name, such as `A10`.")
    region: Text | None = None
    spot: bool | None = Field(None, description="true: only spot; false: none; absent: either.")
    max_price_per_hour: float | None = Field(
        None, description="USD per replica and hour.", json_schema_extra={"exclusiveMinimum": 0}
    )
    min_replicas: int = Field(1, description="1 to 100. `ready` means that so many answer.")
    max_replicas: int | None = Field(None, description="At least `min_replicas`, which is its default.")
    env: dict[str, str] = Field(default_factory=dict, description="For the worker; sealed, never shown.")
    hf_token: Text | None = Field(None, description="For gated and private models; sealed, never shown.")
    task: Text | None = Field(None, description="Overrides the Hub's, such as `text-classification`.")
    context_length: int | None = Field(None, description="Tokens, for language models.")
    concurrency: int | None = Field(None, description="Requests that one replica serves at once.")
    user_webhook_url: Url | None = Field(
        None, description="https, such as `https://app.example.com/hook`; is told of every phase."
    )
    capacity_deadline_seconds: float = Field(
        1800.0, description="How long to look for compute before the deployment fails."
    )
    credential: Text | None = Field(
        None, description="Id or name of a stored provider account; else the first that is stored."
    )
    endpoint_type: Text | None = Field(
        None, description="`queue` or `load_balancer`, where it scales by workers."
    )
    workers_min: int | None = Field(
        None, description="Workers that always run; with 0 idle time costs nothing."
    )
    workers_max: int | None = Field(None, description="Workers that may run.")
    idle_timeout: int | None = Field(None, description="Seconds that a worker stays after its last request.")
    execution_timeout: float | None = Field(None, description="Seconds that one request may take.")
    flashboot: bool | None = Field(None, description="Faster starts where the provider has them.")
    network_volumes: list[Text] = Field(default_factory=list, max_length=16)
    data_centers: list[Text] = Field(default_factory=list, max_length=64)
    scaler_type: Text | None = Field(None, description="`queue_delay` (seconds) or `request_count`.")
    scaler_value: float | None = None
    cache_scope: Text = Field("off", description="`off`, `private` (your bucket) or `shared`.")
    user_s3_url: Text | None = Field(None, description="`s3://bucket/prefix` of the private cache.")
    user_aws_access_key_id: Secret | None = Field(None, description="Sealed, never shown.")
    user_aws_secret_access_key: Secret | None = Field(None, description="Sealed, never shown.")
    user_aws_endpoint_url: Url | None = Field(None, description="Of R2, MinIO and the like.")
    cluster: Text | None = Field(None, description="Id of one of your clusters; else any compute may do.")
    node_groups: list[Text] = Field(
        default_factory=list, max_length=64, description="Ids, of `cluster`; absent: any of its groups."
    )
    workload: WorkloadRequest | None = None

    def to_domain(self) -> NewDeployment:
        workload = None if self.workload is None else self.workload.to_domain()
        given = self.model_dump(exclude={"workload", "cluster", "node_groups", "model_id"})
        return NewDeployment(
            **given,
            workload=workload,
            cluster=None if self.cluster is None else id_given("cls", self.cluster),
            node_groups=tuple(id_given("ngp", group) for group in self.node_groups),
            model_id=None if self.model_id is None else id_given("mdl", self.model_id),
        )


class ChangeRequest(BaseModel):
    """What is absent stays. `workload` and `env` are given whole."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"max_replicas": 2}], "minProperties": 1},
    )

    min_replicas: int | None = Field(None, description="1 to 100.")
    max_replicas: int | None = Field(None, description="At least `min_replicas`.")
    workload: WorkloadRequest | None = None
    env: dict[str, str] | None = Field(None, description="All that there are from now on.")
    user_webhook_url: Url | None = None

    def to_domain(self) -> Change:
        workload = None if self.workload is None else self.workload.to_domain()
        return Change(self.min_replicas, self.max_replicas, workload, self.env, self.user_webhook_url)


class ScaleRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"min_replicas": 1, "max_replicas": 3}]},
    )

    min_replicas: int = Field(description="1 to 100.")
    max_replicas: int | None = Field(None, description="Absent: as it is, or `min_replicas` if that is more.")
