"""Results that are too large to be answered, in the user's bucket."""

from __future__ import annotations

import httpx
import pytest
from worker_harness.s3 import READ_ONLY, Keys, S3Server

from moorage_worker.cache.errors import ResultNotStored
from moorage_worker.cache.results import ResultBucket
from moorage_worker.cache.settings import BucketKeys, BucketPlace, CacheScope, CacheSettings
from moorage_worker.errors import BadInput

PICTURE = b"\x89PNG\r\n" + bytes(range(256)) * 1000


def results_in(s3: S3Server, bucket: str, keys: Keys) -> ResultBucket:
    opened = BucketKeys(keys.access_key_id, keys.secret_access_key)
    place = BucketPlace(f"s3://{bucket}/models", opened, s3.url)
    return ResultBucket.of(CacheSettings(CacheScope.PRIVATE, bucket=place))


def test_a_result_is_stored_with_its_type_and_opens_by_its_url(s3: S3Server) -> None:
    bucket, keys = s3.add_bucket(), s3.add_user()
    stored = results_in(s3, bucket, keys).put("job-1/0 of 1+.png", PICTURE, "image/png")
    assert stored.url == f"s3://{bucket}/models/results/job-1/0 of 1+.png"
    assert s3.read(bucket, "models/results/job-1/0 of 1+.png") == PICTURE
    answer = httpx.get(stored.download_url)
    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert answer.headers["content-type"] == "image/png"
    assert "X-Amz-Expires=86400" in stored.download_url
    assert httpx.get(stored.download_url.partition("?")[0]).status_code == 403
    assert keys.secret_access_key not in stored.download_url
    assert "X-Amz" not in repr(stored)


def test_without_a_bucket_the_caller_is_told_what_to_do() -> None:
    with pytest.raises(BadInput, match="cache_scope private") as caught:
        ResultBucket.of(CacheSettings()).put("job-1/0.png", PICTURE, "image/png")
    assert (caught.value.status, caught.value.field, caught.value.rule) == (
        422,
        "parameters.result",
        "no_bucket",
    )


def test_what_the_bucket_refuses_is_told_without_a_secret(s3: S3Server) -> None:
    keys = s3.add_user(READ_ONLY)
    cases = {
        "s3:PutObject": results_in(s3, s3.add_bucket(), keys),
        "there is no such bucket": results_in(s3, "not-there", s3.add_user()),
        "keys are refused": results_in(s3, s3.add_bucket(), Keys(keys.access_key_id, "not-the-secret")),
    }
    for said, results in cases.items():
        with pytest.raises(ResultNotStored, match=said) as caught:
            results.put("job-1/0.png", PICTURE, "image/png")
        assert caught.value.status == 502
        assert "not-the-secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["../models/x", "/x", "a//b", "", "a\n"])
def test_a_name_that_would_leave_the_folder_is_refused(s3: S3Server, name: str) -> None:
    bucket = s3.add_bucket()
    with pytest.raises(ResultNotStored, match="no name for a result"):
        results_in(s3, bucket, s3.add_user()).put(name, PICTURE, "image/png")
    assert s3.objects(bucket) == {}
