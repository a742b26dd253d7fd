"""The words of the BYOC surface: what its document lets one send, and what it answers.

Form is checked here (types, names, enumerations), rules are the domain's. What the document does not have and
we add is optional, and says so: `gpu_request`, `secret_env_variables`, `storage_class`, `webhook_url`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal  # Any: examples are untyped JSON
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

NAME_RULE = (
    "A name has 3 to 30 characters, not counting hyphens: lower-case letters, digits and hyphens, a letter "
    "first and no hyphen last. It is unique in the organization."
)
_NAME = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]")
_SIZE = re.compile(r"[1-9][0-9]{0,8}")
LONGEST_NAME = 30

Id = Annotated[UUID, Field(strict=False)]  # JSON has no UUIDs, only their text
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Argument = Annotated[str, StringConstraints(max_length=4096)]
Whole = Annotated[int, Field(ge=-(2**31), lt=2**31)]  # beyond it nothing is meant, and rules are the domain's


def _name(name: str) -> str:
    """The document says 3-30, and its own example has 32 characters, 29 of them letters: so hyphens are not
    counted, and both hold."""
    if not _NAME.fullmatch(name) or len(name.replace("-", "")) > LONGEST_NAME:
        raise PydanticCustomError("name", "{rule}", {"rule": NAME_RULE})
    return name


def _size(size: str) -> str:
    if not _SIZE.fullmatch(size):
        raise PydanticCustomError("size", "It must be a positive whole number of Gi, as a string.")
    return size


Name = Annotated[
    str,
    AfterValidator(_name),
    Field(description=NAME_RULE, json_schema_extra={"pattern": "^[a-z][a-z0-9-]{1,61}[a-z0-9]$"}),
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class AutoscaleTarget(_Part):
    metric: Literal["cpu", "gpu", "ram", "gram", "latency", "throughput", "concurrency", "queue_length"]
    target: float = Field(description="Per cent, ms, requests a second, requests or messages per pod.")
    percentile: Whole | None = Field(None, description="50, 75, 90 or 95; for latency only.")


class AutoscaleConfig(_Part):
    targets: list[AutoscaleTarget] = Field(max_length=64, description="One for each metric.")
    cooldown_period: Whole | None = Field(
        None, description="Seconds before scaling to zero; only with `scale_to_zero_enabled`."
    )


class HealthCheck(_Part):
    path: Text
    port: Whole
    initialDelaySeconds: Whole = 30  # noqa: N815 - the document's name
    periodSeconds: Whole = 10  # noqa: N815
    timeoutSeconds: Whole = 5  # noqa: N815


class Port(_Part):
    port: Whole


class Ports(_Part):
    http: Port
    grpc: Port | None = None


class VolumeClaim(_Part):
    mount_path: Text
    size: Annotated[
        str,
        AfterValidator(_size),
        Field(description="In Gi, such as `50`.", json_schema_extra={"pattern": "^[1-9][0-9]{0,8}$"}),
    ]
    name: Text | None = Field(None, description="`pvc-<mount_path>` when absent.")
    access_mode: Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"] = (
        "ReadWriteMany"
    )
    storage_class: Text | None = Field(None, description="The cluster's default when absent.")


class CustomConfiguration(_Part):
    entrypoint: list[Argument] | None = Field(None, min_length=1, max_length=128)
    command: list[Argument] | None = Field(None, max_length=128)
    workingDir: Text | None = None  # noqa: N815 - the document's name


class RuntimeOverrides(_Part):
    consumer_count: Whole | None = Field(
        None, description="Consumers attached to a pod; of no effect unless the deployment is ASYNC."
    )
    termination_grace_period_seconds: Whole | None = None


class AdvancedConfiguration(_Part):
    runtime_overrides: RuntimeOverrides = RuntimeOverrides()


Environment = dict[str, Annotated[str, StringConstraints(max_length=32768)]]
Tag = Literal["testing", "staging", "production"]

CREATE: dict[str, Any] = {
    "model_repo": "8b63bd7e-fd49-4906-a4f4-09539da8f597",
    "name": "my-imported-container-deployment",
    "cluster": "1e99a854-26de-4c19-b6b6-68c7e03c39c3",
    "nodegroups": ["a1b2c3d4-e5f6-7890-abcd-ef1234567890"],
    "cpu_request": 2,
    "cpu_limit": 4,
    "memory_request": 8,
    "memory_limit": 16,
    "min_pod_replicas": 1,
    "max_pod_replicas": 3,
    "autoscale_config": {"targets": [{"metric": "gpu", "target": 80}]},
    "deployment_tag": "production",
    "scale_to_zero_enabled": False,
    "ports": {"http": {"port": 8200}},
    "healthcheck": {"path": "/health", "port": 8200},
    "advanced_configuration": {
        "runtime_overrides": {"consumer_count": 3, "termination_grace_period_seconds": 45}
    },
}


class ByocDeploymentRequest(_Part):
    model_config = ConfigDict(json_schema_extra={"examples": [CREATE]})

    model_repo: Id = Field(description="A model or container of yours with `status: SUCCESS`.")
    name: Name
    cluster: Id
    nodegroups: list[Id] = Field(min_length=1, max_length=64, description="Within the cluster.")
    cpu_request: Whole = Field(description="vCPU per pod, above 0.")
    cpu_limit: Whole = Field(description="At least `cpu_request`.")
    memory_request: Whole = Field(description="Gi per pod, above 0.")
    memory_limit: Whole = Field(description="At least `memory_request`.")
    min_pod_replicas: Whole = Field(description="At least 1.")
    max_pod_replicas: Whole = Field(description="At least `min_pod_replicas`.")
    autoscale_config: AutoscaleConfig
    deployment_tag: Tag = "production"
    scale_to_zero_enabled: bool = False
    persistent_volume_claims: list[VolumeClaim] | None = Field(
        None, max_length=64, description="Only for imported containers and custom models."
    )
    env_variables: Environment | None = Field(None, description="Only for imported containers.")
    secret_env_variables: Environment | None = Field(
        None, description="As `env_variables`; kept as secrets on the cluster too."
    )
    deployment_custom_configuration: CustomConfiguration | None = Field(
        None, description="Only for imported containers."
    )
    ports: Ports | None = Field(None, description="Required for imported containers.")
    healthcheck: HealthCheck | None = Field(None, description="Required for imported containers.")
    async_deployment_type: Literal["ASYNC", "SYNC"] = Field(
        "SYNC", description="`ASYNC` only for custom models, on a cluster with RabbitMQ and Redis."
    )
    advanced_configuration: AdvancedConfiguration | None = None
    gpu_request: Whole | None = Field(
        None, description="Accelerators per pod; those of one node of the node group when absent."
    )
    webhook_url: str | None = Field(
        None, max_length=2048, description="https; is told of every phase, signed."
    )


PATCH: dict[str, Any] = {"min_pod_replicas": 1, "max_pod_replicas": 4}


class ByocChangeRequest(_Part):
    """What may change while it runs. `model_repo`, `name`, `cluster`, `nodegroups`, `async_deployment_type`
    and `persistent_volume_claims` may not: create another deployment."""

    model_config = ConfigDict(json_schema_extra={"examples": [PATCH], "minProperties": 1})

    cpu_request: Whole | None = None
    cpu_limit: Whole | None = None
    memory_request: Whole | None = None
    memory_limit: Whole | None = None
    gpu_request: Whole | None = None
    webhook_url: str | None = Field(None, max_length=2048)
    min_pod_replicas: Whole | None = None
    max_pod_replicas: Whole | None = None
    autoscale_config: AutoscaleConfig | None = None
    deployment_tag: Tag | None = None
    scale_to_zero_enabled: bool | None = None
    env_variables: Environment | None = Field(
        None, description="With `secret_env_variables`: all that there are from now on."
    )
    secret_env_variables: Environment | None = None
    deployment_custom_configuration: CustomConfiguration | None = None
    ports: Ports | None = None
    healthcheck: HealthCheck | None = None
    advanced_configuration: AdvancedConfiguration | None = None


FIXED = {
    name: f"{name} cannot be changed; create another deployment."
    for name in ByocDeploymentRequest.model_fields.keys() - ByocChangeRequest.model_fields.keys()
}


class ByocScaleRequest(_Part):
    """At least one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"min_pod_replicas": 2, "max_pod_replicas": 5}],
            "minProperties": 1,
        }
    )

    min_pod_replicas: Whole | None = None
    max_pod_replicas: Whole | None = None


CREATED: dict[str, Any] = {
    "uuid": "1e99a854-26de-4c19-b6b6-68c7e03c39c3",
    "name": "my-imported-container-deployment",
    "slug": "ufqeorbvf",
    "org": "54360212-2263-44c6-afaf-1333544854f7",
    "model_repo": "8b63bd7e-fd49-4906-a4f4-09539da8f597",
    "cluster": "1e99a854-26de-4c19-b6b6-68c7e03c39c3",
    "node_groups": ["a1b2c3d4-e5f6-7890-abcd-ef1234567890"],
    "min_pod_replicas": 1,
    "max_pod_replicas": 3,
    "autoscale_config": {"targets": [{"metric": "gpu", "target": 80}]},
}


class ByocCreated(BaseModel):
    """The documented body of a 201, and nothing else."""

    model_config = ConfigDict(protected_namespaces=(), json_schema_extra={"examples": [CREATED]})

    uuid: UUID
    name: str
    slug: str
    org: UUID
    model_repo: UUID | None
    cluster: UUID
    node_groups: list[UUID]
    min_pod_replicas: int
    max_pod_replicas: int
    autoscale_config: dict[str, Any]  # as it was given


class FailureDocument(BaseModel):
    code: str
    detail: str
    advice: str | None


class ReplicasDocument(BaseModel):
    desired: int
    ready: int


DETAIL: dict[str, Any] = {
    **CREATED,
    "status": "DEPLOYED",
    "phase": "ready",
    "failure": None,
    "setback": None,
    "replicas": {"desired": 1, "ready": 1},
    "deployment_tag": "production",
    "async_deployment_type": "SYNC",
    "scale_to_zero_enabled": False,
    "cpu_request": 2,
    "cpu_limit": 4,
    "memory_request": 8,
    "memory_limit": 16,
    "gpu_request": None,
    "ports": {"http": {"port": 8200}},
    "healthcheck": {
        "path": "/health",
        "port": 8200,
        "initialDelaySeconds": 30,
        "periodSeconds": 10,
        "timeoutSeconds": 5,
    },
    "persistent_volume_claims": [],
    "deployment_custom_configuration": None,
    "advanced_configuration": {"runtime_overrides": {"termination_grace_period_seconds": 45}},
    "env_names": [],
    "webhook_url": None,
    "endpoint_url": "http://127.0.0.1:8080/v1/models/dep_27k4m6q2x5y3zj7abcdefghijk/infer",
    "created_at": "2026-11-21T09:00:03.000000Z",
}


class ByocDeployment(ByocCreated):
    """All that is known of it, in the words of the request."""

    model_config = ConfigDict(json_schema_extra={"examples": [DETAIL]})

    status: Literal["DEPLOYING", "DEPLOYED", "UPDATING", "STOPPED", "FAILED", "DELETING", "DELETED"]
    phase: str = Field(description="The same more exactly, as `/v1/deployments` tells it.")
    failure: FailureDocument | None = Field(description="Why it failed, and what to do.")
    setback: str | None = Field(description="What stands in its way for the moment.")
    replicas: ReplicasDocument
    deployment_tag: str | None
    async_deployment_type: str
    scale_to_zero_enabled: bool
    cpu_request: float | None
    cpu_limit: float | None
    memory_request: float | None
    memory_limit: float | None
    gpu_request: int | None
    ports: dict[str, Port] | None
    healthcheck: HealthCheck | None
    persistent_volume_claims: list[VolumeClaim]
    deployment_custom_configuration: CustomConfiguration | None
    advanced_configuration: AdvancedConfiguration
    webhook_url: str | None
    env_names: list[str] = Field(description="Names only; values are sealed.")
    endpoint_url: str | None = Field(description="Where requests go; null until it was deployed once.")
    created_at: str


class ByocDeploymentPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"results": [DETAIL], "next_cursor": None}]})

    results: list[ByocDeployment]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class InvalidDocument(BaseModel):
    """Field names with what is wrong about each; `non_field_errors` is about the whole."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {"non_field_errors": ["Deployment with this name already exists for this organization."]},
                {"nodegroups": "List of node groups to be deployed on is expected"},
                {"non_field_errors": ["CPU request and limit must be greater than 0"]},
            ],
        },
    )

    non_field_errors: list[str] = []
    __pydantic_extra__: dict[str, str]


class DetailDocument(BaseModel):
    """What went wrong, in words."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"detail": "Not found."}]})

    detail: str
