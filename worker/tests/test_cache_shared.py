"""The operator's cache: presigned URLs of a bucket whose keys no worker has, in parts, read only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from worker_harness.hub import COMMIT, Hub
from worker_harness.models import LARGE, digits_copy, large_file
from worker_harness.moorage import SECRET, MoorageStandIn
from worker_harness.running import StartWorker, WorkerProcess
from worker_harness.s3 import Keys, S3Server

from moorage_worker.cache.disk import DiskCache
from moorage_worker.cache.errors import (
    CopyBroken,
    CredentialsRefused,
    EndpointUnreachable,
    PermissionMissing,
    StorageTrouble,
)
from moorage_worker.cache.layout import FileEntry, Marker, ModelKey
from moorage_worker.cache.model_cache import fill_bucket
from moorage_worker.cache.s5cmd import S5cmd
from moorage_worker.cache.settings import BucketKeys, BucketPlace, ManifestPlace
from moorage_worker.cache.shared import SharedCache

MODEL = ModelKey("team/large", "e" * 40)
MIB = 1024**2
VALID = timedelta(hours=1)
FILES = (FileEntry("a/config.json", 3), FileEntry("empty.txt", 0), FileEntry(LARGE, 3 * MIB))


class Operator:
    """A bucket filled by the operator, and what Moorage tells of it."""

    def __init__(self, s3: S3Server) -> None:
        self.bucket, keys = s3.add_bucket(), s3.add_user()
        self.keys: Keys = keys
        self.place = BucketPlace(
            f"s3://{self.bucket}/models", BucketKeys(keys.access_key_id, keys.secret_access_key), s3.url
        )
        self.listed: tuple[ModelKey, tuple[FileEntry, ...]] | None = None

    def fill(self, model: ModelKey, engine: str, sources: dict[str, Path]) -> None:
        fill_bucket(self.place, model, engine, sources)
        self.listed = model, tuple(FileEntry(p, local.stat().st_size) for p, local in sources.items())

    def manifest(self) -> list[dict[str, object]] | None:
        if self.listed is None:
            return None
        model, files = self.listed
        tool, url = S5cmd(self.place), f"{self.place.url}/{model.folder}"
        return [
            {"path": f.path, "size": f.size, "url": tool.presign(f"{url}/{f.path}", VALID)} for f in files
        ]


@pytest.fixture
def operator(s3: S3Server) -> Operator:
    return Operator(s3)


@pytest.fixture
def moorage(operator: Operator) -> Iterator[MoorageStandIn]:
    with MoorageStandIn(operator.manifest).serving() as serving:
        yield serving


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    root = tmp_path / "model"
    large_file(root / LARGE, 3)
    (root / "a").mkdir()
    (root / "a/config.json").write_bytes(b"{ }")
    (root / "empty.txt").touch()
    return {file.path: root / file.path for file in FILES}


def fetch(moorage: MoorageStandIn, root: Path, secret: str = SECRET) -> Path:
    """Everything, in parts of one mebibyte."""
    disk = DiskCache(root)
    with closing(SharedCache(ManifestPlace(moorage.url, secret), part_bytes=MIB)) as shared:
        manifest = shared.manifest()
        assert manifest is not None
        with disk.filling(MODEL) as filling:
            shared.download(manifest, filling.missing(manifest.files), filling)
            filling.finish(Marker(MODEL, manifest.files))
    return disk.folder(MODEL)


def test_files_come_in_parts_by_url_alone(
    s3: S3Server, operator: Operator, moorage: MoorageStandIn, sources: dict[str, Path], tmp_path: Path
) -> None:
    operator.fill(MODEL, "onnx", sources)
    folder = fetch(moorage, tmp_path / "disk")
    assert all((folder / path).read_bytes() == source.read_bytes() for path, source in sources.items())
    gets = [r for r in s3.requests if r.method == "GET" and r.presigned and operator.bucket in r.path]
    assert sorted(str(r.range) for r in gets if r.path.endswith(LARGE)) == [
        f"bytes={MIB * n}-{MIB * (n + 1) - 1}" for n in range(3)
    ]
    assert not any(r.path.endswith("empty.txt") for r in gets)


def test_a_part_that_is_cut_off_goes_on_where_it_stopped(
    s3: S3Server, operator: Operator, moorage: MoorageStandIn, sources: dict[str, Path], tmp_path: Path
) -> None:
    operator.fill(MODEL, "onnx", sources)
    s3.cut_after = {LARGE: 1000}
    folder = fetch(moorage, tmp_path / "disk")
    assert (folder / LARGE).read_bytes() == sources[LARGE].read_bytes()
    asked = [r for r in s3.requests if r.presigned and operator.bucket in r.path and r.path.endswith(LARGE)]
    starts = [int(str(r.range).removeprefix("bytes=").partition("-")[0]) for r in asked]
    assert [start % MIB for start in starts if start % MIB] == [1000], "three whole parts and one rest"


def test_urls_that_have_run_out_are_asked_for_again(
    operator: Operator, moorage: MoorageStandIn, sources: dict[str, Path], tmp_path: Path
) -> None:
    operator.fill(MODEL, "onnx", sources)
    listed = operator.manifest
    first = True

    def manifest() -> list[dict[str, object]] | None:
        nonlocal first
        files = listed() or []
        if first:
            first = False
            files = [{**file, "url": str(file["url"])[:-4] + "0000"} for file in files]
        return files

    moorage.files = manifest
    folder = fetch(moorage, tmp_path / "disk")
    assert (folder / LARGE).read_bytes() == sources[LARGE].read_bytes()
    assert moorage.asked == 2, "once more, for all parts together"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"short", f"{LARGE} has 5 bytes, not {3 * MIB}|fewer than its"),
        (b"x" * (3 * MIB + 1), f"{LARGE} has {3 * MIB + 1} bytes, not {3 * MIB}"),
        (None, f"{LARGE} is missing"),
    ],
)
def test_a_file_that_is_not_as_listed_is_not_kept(
    s3: S3Server,
    operator: Operator,
    moorage: MoorageStandIn,
    sources: dict[str, Path],
    tmp_path: Path,
    data: bytes | None,
    said: str,
) -> None:
    operator.fill(MODEL, "onnx", sources)
    key = f"models/{MODEL.folder}/{LARGE}"
    if data is None:
        s3.delete(operator.bucket, key)
    else:
        s3.put(operator.bucket, key, data)
    with pytest.raises(CopyBroken, match=said):
        fetch(moorage, tmp_path / "disk")
    disk = DiskCache(tmp_path / "disk")
    assert disk.marker(MODEL) is None
    assert not (disk.folder(MODEL) / LARGE).exists()


def test_a_url_that_nobody_renews_is_an_error_with_no_url_in_it(
    operator: Operator, moorage: MoorageStandIn, sources: dict[str, Path], tmp_path: Path
) -> None:
    operator.fill(MODEL, "onnx", sources)
    listed = operator.manifest() or []
    moorage.files = lambda: [{**f, "url": str(f["url"])[:-4] + "0000"} for f in listed]
    with pytest.raises(PermissionMissing, match="its URL is refused") as caught:
        fetch(moorage, tmp_path / "disk")
    assert "X-Amz" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, CredentialsRefused), (403, PermissionMissing), (503, StorageTrouble)]
)
def test_refusals_of_the_manifest(moorage: MoorageStandIn, status: int, kind: type[StorageTrouble]) -> None:
    moorage.status = status
    with closing(SharedCache(ManifestPlace(moorage.url, SECRET))) as shared, pytest.raises(kind):
        shared.manifest()


def test_a_wrong_secret_and_a_moorage_that_is_not_there(moorage: MoorageStandIn) -> None:
    wrong = ManifestPlace(moorage.url, "whsec_d3Jvbmc=")
    with closing(SharedCache(wrong)) as shared, pytest.raises(CredentialsRefused):
        shared.manifest()
    nowhere = ManifestPlace("http://127.0.0.1:9/cache", SECRET)
    with closing(SharedCache(nowhere)) as shared, pytest.raises(EndpointUnreachable):
        shared.manifest()


# -- whole workers --------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub({"team/digits": digits_copy(tmp_path / "repository")}).serving() as serving:
        yield serving


Start = Callable[..., WorkerProcess]


@pytest.fixture
def start(hub: Hub, moorage: MoorageStandIn, start_worker: StartWorker, tmp_path: Path) -> Start:
    def start(machine: str, *options: str, secret: str = SECRET) -> WorkerProcess:
        shared = {
            "HF_ENDPOINT": hub.url,
            "MOORAGE_CACHE_SCOPE": "shared",
            "MOORAGE_CACHE_MANIFEST_URL": moorage.url,
            "MOORAGE_CALLBACK_SECRET": secret,
        }
        return start_worker("team/digits", "--cache-dir", str(tmp_path / machine), *options, env=shared)

    return start


def digits_sources(tmp_path: Path) -> dict[str, Path]:
    names = ("config.json", "onnx/model.onnx", "preprocessor_config.json")
    return {name: tmp_path / "repository" / name for name in names}


def test_a_worker_takes_it_from_the_shared_cache_and_writes_nothing(
    s3: S3Server, operator: Operator, hub: Hub, start: Start, tmp_path: Path
) -> None:
    operator.fill(ModelKey("team/digits", COMMIT), "onnx", digits_sources(tmp_path))
    writes = s3.count("PUT") + s3.count("POST")
    worker = start("a", "--revision", COMMIT).ready()
    assert hub.sent == []
    assert worker.infer([[0] * 8] * 8)
    assert s3.count("PUT") + s3.count("POST") == writes
    assert not any("s5cmd" in line or "model cache filled" in line for line in worker.lines)
    assert operator.keys.access_key_id not in "\n".join(worker.lines)


def test_what_is_not_cached_and_what_is_refused_comes_from_the_hub(
    operator: Operator, hub: Hub, start: Start
) -> None:
    start("a").ready().wait_for_line("is not in the shared model cache")
    assert len(hub.sent) == 3
    refused = start("b", secret="whsec_d3Jvbmc=").ready()
    refused.wait_for_line("Moorage refuses the signature")
    assert len(hub.sent) == 6


def test_a_copy_for_another_engine_is_not_used(
    operator: Operator, hub: Hub, start: Start, tmp_path: Path
) -> None:
    only_settings = {"config.json": tmp_path / "repository" / "config.json"}
    operator.fill(ModelKey("team/digits", COMMIT), "onnx", only_settings)
    start("a").ready().wait_for_line("is for another engine")
    assert len(hub.sent) == 3


def test_a_worker_killed_in_the_middle_starts_again_with_the_rest(
    s3: S3Server, operator: Operator, hub: Hub, start: Start, tmp_path: Path
) -> None:
    operator.fill(ModelKey("team/digits", COMMIT), "onnx", digits_sources(tmp_path))
    hold = s3.hold(lambda seen: seen.presigned and operator.bucket in seen.path and ".onnx" in seen.path)
    killed = start("a", "--revision", COMMIT).listening()
    assert hold.caught()
    copy = tmp_path / "a" / "moorage" / "team--digits" / COMMIT
    while not (copy / "config.json").is_file():
        time.sleep(0.01)  # another process writes it
    killed.stop()
    hold.release()
    assert not (copy / "onnx/model.onnx").exists()
    again = start("a", "--revision", COMMIT).ready()
    again.wait_for_line("from the model cache")
    assert hub.sent == []
    assert (copy / "onnx/model.onnx").read_bytes() == (tmp_path / "repository/onnx/model.onnx").read_bytes()
    asked = [r for r in s3.requests if r.presigned and operator.bucket in r.path]
    assert sum(seen.path.endswith("/config.json") for seen in asked) == 1, "what was whole was kept"
