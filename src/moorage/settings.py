"""All settings, read once from the environment into one typed value.

Every variable is listed in `.env.example`; a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="MOORAGE_",
        env_ignore_empty=True,  # a line of .env.example without its value is the default
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(
        8080,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("MOORAGE_PORT", "PORT"),
        description="0 takes a free one",
    )
    public_url: str | None = Field(None, description="base of the URLs given to users; from host and port")
    data_dir: Path = Path("var")
    database_url: str | None = Field(
        None,
        repr=False,
        description="SQLite under the data dir; postgresql://…, firestore://project/database",
    )
    database_pool: int = Field(10, ge=3, description="connections to PostgreSQL at most")
    gcp_project: str | None = Field(
        None,
        validation_alias=AliasChoices("GCP_PROJECT_ID"),
        description="keeps everything in its Firestore, where no database is named",
    )
    secret_keys: SecretStr | None = Field(None, description="made on first start under the data dir")
    hub_url: str = Field(
        "https://huggingface.co", validation_alias=AliasChoices("MOORAGE_HUB_URL", "HF_ENDPOINT")
    )
    outbound_allow: str = Field(
        "", description="hosts or networks that user-given URLs may reach besides public ones"
    )
    bootstrap_user: str | None = None
    bootstrap_password: SecretStr | None = None
    installation: str | None = Field(
        None,
        pattern="^[a-z0-9-]{4,40}$",
        description="tells what this installation made; made on first start under the data dir",
    )
    machine: str | None = Field(
        None,
        pattern="^[a-zA-Z0-9._-]{1,63}$",
        description="whose local replicas are whose; made on first start under the data dir",
    )
    tick_token: SecretStr | None = Field(None, min_length=16, description="lets POST /internal/tick in")
    tick_only: bool = Field(False, description="the engine works only while a tick asks it to")
    otlp_endpoint: str | None = Field(None, pattern="^https?://", description="where traces are sent")
    shared_cache_url: str | None = Field(
        None,
        pattern="^s3://",
        validation_alias=AliasChoices("MOORAGE_SHARED_CACHE_URL", "S3_MODEL_URL"),
        description="s3://bucket/prefix of the operator's bucket of weights",
    )
    shared_cache_access_key_id: SecretStr | None = Field(
        None, validation_alias=AliasChoices("MOORAGE_SHARED_CACHE_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID")
    )
    shared_cache_secret_access_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("MOORAGE_SHARED_CACHE_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY")
    )
    shared_cache_endpoint_url: str | None = Field(
        None, validation_alias=AliasChoices("MOORAGE_SHARED_CACHE_ENDPOINT_URL", "AWS_ENDPOINT_URL")
    )
    shared_cache_allowed_models: str = Field(
        "",
        validation_alias=AliasChoices("MOORAGE_SHARED_CACHE_ALLOWED_MODELS", "SHARED_CACHE_ALLOWED_MODELS"),
        description="repo ids by comma",
    )
    shared_cache_reject_unlisted: bool = Field(
        True,
        validation_alias=AliasChoices("MOORAGE_SHARED_CACHE_REJECT_UNLISTED", "SHARED_CACHE_REJECT_UNLISTED"),
    )
    log_format: str = Field("auto", pattern="^(auto|json|console)$")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    max_body_bytes: int = Field(1 << 20, gt=0)
    max_infer_bytes: int = Field(32 << 20, gt=0)
    infer_timeout_seconds: float = Field(300.0, gt=0)
    wake_seconds: float = Field(60.0, gt=0)
    metrics: bool = True
    token_hours: float = Field(1.0, gt=0)
    lease_seconds: float = Field(10.0, gt=0)
    ready_timeout_seconds: float = Field(900.0, gt=0)
    loading_look_seconds: float = Field(5.0, gt=0)
    ready_look_seconds: float = Field(60.0, gt=0)
    sweep_seconds: float = Field(60.0, gt=0)
    sweep_grace_seconds: float = Field(120.0, ge=0)

    @model_validator(mode="after")
    def _replicas_share_keys(self) -> Self:
        if self.shares_store and self.secret_keys is None:
            raise PydanticCustomError(
                "shared_store",
                "MOORAGE_SECRET_KEYS must be set where processes on several machines share the store: a key "
                "that one of them made up would seal what the others cannot open. "
                "`k1:$(openssl rand -base64 32)` makes one",
            )
        if self.shares_store and self.installation is None:
            raise PydanticCustomError(
                "shared_store",
                "MOORAGE_INSTALLATION must be set where processes on several machines share the store: they "
                "would take each other's endpoints for a stranger's. A name of 4 to 40 letters or digits",
            )
        if self.tick_only and self.tick_token is None:
            raise PydanticCustomError("tick_only", "MOORAGE_TICK_ONLY needs MOORAGE_TICK_TOKEN")
        return self

    @property
    def store_url(self) -> str:
        if self.database_url is not None:
            return self.database_url
        if self.gcp_project is not None:
            return f"firestore://{self.gcp_project}/(default)"
        return f"sqlite:///{(self.data_dir / 'moorage.db').resolve()}"

    @property
    def shares_store(self) -> bool:
        """Whether processes on other machines may work on the same store."""
        return not self.store_url.startswith("sqlite:")

    def base_url(self, port: int) -> str:
        """Without a final slash; `port` is the one really bound."""
        return (self.public_url or f"http://{self.host}:{port}").rstrip("/")
