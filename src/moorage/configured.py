"""What the settings alone decide: the keys that secrets are sealed with, and the cache that workers share."""

from __future__ import annotations

from moorage.adapters.object_storage import Bucket, BucketKeys, SharedCache
from moorage.adapters.secrets import KeyRing
from moorage.domain.model import SharedCachePolicy
from moorage.ports.outside import Clock
from moorage.settings import Settings


def key_ring(settings: Settings) -> KeyRing:
    """The operator's keys, or those of the data directory, made on the first start."""
    if settings.secret_keys is not None:
        return KeyRing.parse(settings.secret_keys.get_secret_value())
    return KeyRing.load_or_create(settings.data_dir / "secret_keys")


def shared_cache(settings: Settings, clock: Clock) -> SharedCache | None:
    """Raises ValueError for a bucket without its keys."""
    if settings.shared_cache_url is None:
        return None
    key, secret = settings.shared_cache_access_key_id, settings.shared_cache_secret_access_key
    if key is None or secret is None:
        raise ValueError(
            "MOORAGE_SHARED_CACHE_URL needs MOORAGE_SHARED_CACHE_ACCESS_KEY_ID and "
            "MOORAGE_SHARED_CACHE_SECRET_ACCESS_KEY"
        )
    bucket = Bucket.parse(settings.shared_cache_url, settings.shared_cache_endpoint_url)
    return SharedCache(bucket, BucketKeys(key.get_secret_value(), secret.get_secret_value()), clock)


def shared_cache_policy(settings: Settings) -> SharedCachePolicy:
    names = settings.shared_cache_allowed_models.split(",")
    return SharedCachePolicy(
        settings.shared_cache_url is not None,
        frozenset(name.strip().lower() for name in names if name.strip()),
        settings.shared_cache_reject_unlisted,
    )
