"""The signer against botocore's, for any key, path and time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth  # type: ignore[import-untyped]  # botocore has no types
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]  # botocore has no types
from botocore.credentials import Credentials  # type: ignore[import-untyped]  # botocore has no types
from hypothesis import given
from hypothesis import strategies as st

from moorage.adapters.object_storage import Bucket, BucketKeys, presigned

KEYS = BucketKeys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
AT = datetime(2026, 11, 21, 7, 5, 9, tzinfo=UTC)

names = st.text("abcXYZ019-_.~ +@&=?#%'()[]!*$,;:üß漢", min_size=1, max_size=12)
keys = st.lists(names, min_size=1, max_size=4).map("/".join)
regions = st.sampled_from(["us-east-1", "eu-central-1", "auto"])


def botocore_signature(url: str, region: str, at: datetime, valid: timedelta) -> str:
    judge = S3SigV4QueryAuth(
        Credentials(KEYS.access_key_id, KEYS.secret_access_key), "s3", region, int(valid.total_seconds())
    )
    request = AWSRequest("GET", url)
    request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
    judge._modify_request_before_signing(request)
    signature = judge.signature(judge.string_to_sign(request, judge.canonical_request(request)), request)
    return str(signature)


@given(
    keys,
    regions,
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.integers(1, 604_800),
    st.sampled_from(
        [None, "http://127.0.0.1:9000", "https://account.r2.example.com:443/", "https://x/storage/s3"]
    ),
)
def test_botocore_signs_the_same(
    key: str, region: str, at: datetime, seconds: int, endpoint: str | None
) -> None:
    url = Bucket.parse("s3://weights/models", endpoint, region).url(key)
    signed = presigned(url, region, KEYS, at, timedelta(seconds=seconds))
    [ours] = parse_qs(urlsplit(signed).query)["X-Amz-Signature"]
    assert ours == botocore_signature(url, region, at, timedelta(seconds=seconds))


def test_the_example_of_the_specification() -> None:
    """The one that AWS publishes for query signatures: bucket examplebucket, /test.txt, 24 May 2013."""
    signed = presigned(
        "https://examplebucket.s3.amazonaws.com/test.txt",
        "us-east-1",
        BucketKeys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        datetime(2013, 5, 24, tzinfo=UTC),
        timedelta(days=1),
    )
    assert signed.endswith(
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_a_time_in_another_zone_is_the_same_time() -> None:
    from datetime import timezone

    local = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    url = "https://weights.s3.us-east-1.amazonaws.com/a"
    hour = timedelta(hours=1)
    assert presigned(url, "us-east-1", KEYS, local, hour) == presigned(url, "us-east-1", KEYS, AT, hour)


@pytest.mark.parametrize(
    ("url", "endpoint", "object_url"),
    [
        ("s3://weights/models/", None, "https://weights.s3.us-east-1.amazonaws.com/models/a%20b/c"),
        ("s3://weights", None, "https://weights.s3.us-east-1.amazonaws.com/a%20b/c"),
        ("s3://of.ours/m", None, "https://s3.us-east-1.amazonaws.com/of.ours/m/a%20b/c"),
        (
            "s3://weights/m",
            "https://account.r2.example.com/",
            "https://account.r2.example.com/weights/m/a%20b/c",
        ),
    ],
)
def test_where_objects_are(url: str, endpoint: str | None, object_url: str) -> None:
    assert Bucket.parse(url, endpoint).url("a b/c") == object_url


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://weights/models", None),
        ("s3://", None),
        ("s3://UPPER/x", None),
        ("s3://weights", "account.r2.example.com"),
        ("s3://weights", "https://user:password@host"),
    ],
)
def test_places_that_cannot_be(url: str, endpoint: str | None) -> None:
    with pytest.raises(ValueError, match="shared cache's"):
        Bucket.parse(url, endpoint)


def test_no_repr_tells_the_secret() -> None:
    assert KEYS.secret_access_key not in repr(KEYS)
