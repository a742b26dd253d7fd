"""All settings, read once from the environment into one typed value.

Every variable is listed in `.env.example`; a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="MOORAGE_", extra="ignore", frozen=True, populate_by_name=True
    )

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535, description="0 takes a free one")
    public_url: str | None = Field(None, description="base of the URLs given to users; from host and port")
    data_dir: Path = Path("var")
    database_url: str | None = Field(None, description="SQLite under the data dir")
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

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.data_dir / 'moorage.db').resolve()}"

    def base_url(self, port: int) -> str:
        """Without a final slash; `port` is the one really bound."""
        return (self.public_url or f"http://{self.host}:{port}").rstrip("/")
