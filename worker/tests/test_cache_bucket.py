"""A bucket and a disk with a file that travels in parts: cut off, done twice at once, and never half."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from worker_harness.models import LARGE, PART_MIB, large_file
from worker_harness.s3 import Keys, S3Server, SeenRequest

from moorage_worker.cache.bucket import ModelBucket
from moorage_worker.cache.disk import DiskCache
from moorage_worker.cache.errors import CopyBroken, StorageTrouble
from moorage_worker.cache.layout import MARKER, FileEntry, Marker, ModelKey
from moorage_worker.cache.model_cache import Choice, Found, ModelCache
from moorage_worker.cache.s5cmd import S5cmd
from moorage_worker.cache.settings import BucketKeys, BucketPlace, CacheScope, CacheSettings

MODEL = ModelKey("team/large", "d" * 40)
LARGE_MIB = 12
FILES = (
    FileEntry("config.json", 3),
    FileEntry("model.onnx", 5),
    FileEntry(LARGE, LARGE_MIB * 1024**2),
    FileEntry("odd [name] 'x'*?.json", 0),
)
MARKED = Marker(MODEL, FILES, ("onnx",))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("model")
    (root / "config.json").write_bytes(b"{ }")
    (root / "model.onnx").write_bytes(b"graph")
    (root / FILES[3].path).touch()
    large_file(root / LARGE, LARGE_MIB)
    return {file.path: root / file.path for file in FILES}


@pytest.fixture
def place(s3: S3Server) -> BucketPlace:
    return place_of(s3, s3.add_bucket(), s3.add_user())


def place_of(s3: S3Server, bucket: str, keys: Keys) -> BucketPlace:
    return BucketPlace(
        f"s3://{bucket}/models", BucketKeys(keys.access_key_id, keys.secret_access_key), s3.url
    )


def bucket_of(place: BucketPlace) -> ModelBucket:
    return ModelBucket(place, S5cmd(place, part_mib=PART_MIB))


def name_of(place: BucketPlace) -> str:
    return place.url.split("/")[2]


def fill_disk(place: BucketPlace, disk: DiskCache) -> None:
    with disk.filling(MODEL) as filling:
        bucket_of(place).download(MODEL, filling.missing(FILES), filling)
        filling.finish(MARKED)


def same(folder: Path, sources: dict[str, Path]) -> bool:
    return all((folder / path).read_bytes() == source.read_bytes() for path, source in sources.items())


def test_there_and_back_in_parts(
    s3: S3Server, place: BucketPlace, sources: dict[str, Path], tmp_path: Path
) -> None:
    stored: list[FileEntry] = []
    assert bucket_of(place).upload(MARKED, sources, stored.append)
    assert set(stored) == set(FILES)
    parts = [r for r in s3.requests if name_of(place) in r.path and "partNumber" in r.query]
    assert sorted(part.length // 1024**2 for part in parts) == [2, 5, 5]
    assert bucket_of(place).look(MODEL).whole == MARKED
    assert not bucket_of(place).upload(MARKED, sources), "it is there already"
    disk = DiskCache(tmp_path)
    assert disk.marker(MODEL) is None
    fill_disk(place, disk)
    ranges = [r.range for r in s3.requests if r.path.endswith(LARGE) and r.method == "GET"]
    assert len(ranges) == 3
    assert disk.marker(MODEL) == MARKED
    assert same(disk.folder(MODEL), sources)
    assert [p.name for p in disk.folder(MODEL).parent.iterdir() if "incoming" in p.name] == []


def test_parts_are_of_50_mib_and_workers_50(s3: S3Server, place: BucketPlace, tmp_path: Path) -> None:
    path = large_file(tmp_path / LARGE, 60)
    marker = Marker(MODEL, (FileEntry(LARGE, 60 * 1024**2),))
    ModelBucket(place).upload(marker, {LARGE: path})
    parts = [r for r in s3.requests if name_of(place) in r.path and "partNumber" in r.query]
    assert sorted(part.length // 1024**2 for part in parts) == [10, 50]


def in_process(work: Callable[[], object]) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    return process


def test_an_upload_killed_in_the_middle_of_a_file_leaves_nothing_to_read(
    s3: S3Server, place: BucketPlace, sources: dict[str, Path]
) -> None:
    hold = s3.hold(lambda seen: name_of(place) in seen.path and "partNumber=2" in seen.query)
    process = in_process(lambda: bucket_of(place).upload(MARKED, sources))
    assert hold.caught()
    process.kill()
    process.join()
    hold.release()
    assert f"models/{MODEL.folder}/{LARGE}" not in s3.objects(name_of(place))
    assert bucket_of(place).look(MODEL).whole is None
    assert bucket_of(place).upload(MARKED, sources)
    assert bucket_of(place).look(MODEL).whole == MARKED
    assert s3.read(name_of(place), f"models/{MODEL.folder}/{LARGE}") == sources[LARGE].read_bytes()


def test_a_download_killed_in_the_middle_of_a_file_goes_on_with_the_others_kept(
    s3: S3Server, place: BucketPlace, sources: dict[str, Path], tmp_path: Path
) -> None:
    bucket_of(place).upload(MARKED, sources)
    disk = DiskCache(tmp_path)

    def second_part(seen: SeenRequest) -> bool:
        return name_of(place) in seen.path and (seen.range or "").startswith(f"bytes={PART_MIB * 1024**2}-")

    hold = s3.hold(second_part)
    process = in_process(lambda: fill_disk(place, disk))
    assert hold.caught()
    while not all((disk.folder(MODEL) / path).is_file() for path in ("config.json", "model.onnx")):
        time.sleep(0.01)  # another process writes them
    process.kill()
    process.join()
    hold.release()
    assert disk.marker(MODEL) is None
    assert not (disk.folder(MODEL) / LARGE).exists(), "what is in the copy is whole"
    assert list(disk.folder(MODEL).parent.glob("*.incoming-*")), "the half file lies beside it"
    reads_before = s3.count("GET", "config.json")
    fill_disk(place, disk)
    assert s3.count("GET", "config.json") == reads_before
    assert same(disk.folder(MODEL), sources)
    assert not list(disk.folder(MODEL).parent.glob("*.incoming-*"))


def test_of_two_that_fill_a_disk_at_once_one_waits_and_finds_all(
    s3: S3Server, place: BucketPlace, sources: dict[str, Path], tmp_path: Path
) -> None:
    bucket_of(place).upload(MARKED, sources)
    private = CacheSettings(CacheScope.PRIVATE, bucket=place)
    found: list[Found | None] = []

    def load() -> None:
        found.append(ModelCache(private, tmp_path).find(MODEL, lambda m: Choice("onnx", tuple(m.sizes))))

    hold = s3.hold(lambda seen: seen.method == "GET" and seen.path.endswith(LARGE))
    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert hold.caught()
    hold.release()
    for thread in threads:
        thread.join()
    assert [f is not None and same(f.folder, sources) for f in found] == [True, True]
    fetched = [r for r in s3.requests if name_of(place) in r.path and r.path.endswith("config.json")]
    assert sum(seen.method == "GET" for seen in fetched) == 1


def test_two_uploads_at_once_leave_the_same_bytes(
    s3: S3Server, place: BucketPlace, sources: dict[str, Path]
) -> None:
    hold = s3.hold(lambda seen: name_of(place) in seen.path and "partNumber" in seen.query)
    errors: list[Exception] = []

    def upload() -> None:
        try:
            bucket_of(place).upload(MARKED, sources)
        except StorageTrouble as error:
            errors.append(error)

    threads = [threading.Thread(target=upload) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert hold.caught(6)
    hold.release()
    for thread in threads:
        thread.join()
    assert errors == []
    assert bucket_of(place).look(MODEL).whole == MARKED
    assert s3.read(name_of(place), f"models/{MODEL.folder}/{LARGE}") == sources[LARGE].read_bytes()


def test_a_file_that_is_not_what_the_marker_says_is_not_kept(
    s3: S3Server, place: BucketPlace, sources: dict[str, Path], tmp_path: Path
) -> None:
    bucket_of(place).upload(MARKED, sources)
    s3.put(name_of(place), f"models/{MODEL.folder}/model.onnx", b"longer than it was")
    assert bucket_of(place).look(MODEL).faults == ["model.onnx has 18 bytes, not 5"]
    disk = DiskCache(tmp_path)
    with pytest.raises(CopyBroken, match=r"model.onnx has 18 bytes, not 5"):
        fill_disk(place, disk)
    assert disk.marker(MODEL) is None
    assert not (disk.folder(MODEL) / "model.onnx").exists()


def test_another_engine_s_files_are_added_to_a_copy(
    s3: S3Server, place: BucketPlace, sources: dict[str, Path], tmp_path: Path
) -> None:
    first = Marker(MODEL, FILES[:2], ("onnx",))
    second = Marker(MODEL, (FILES[0], FILES[2]), ("transformers",))
    assert bucket_of(place).upload(first, sources)
    assert bucket_of(place).upload(second, sources)
    whole = bucket_of(place).look(MODEL).whole
    assert whole is not None
    assert {file.path for file in whole.files} == {file.path for file in FILES[:3]}
    assert whole.engines == ("onnx", "transformers")
    assert not bucket_of(place).upload(first, sources)


def test_a_copy_on_disk_that_was_cut_is_not_used(
    place: BucketPlace, sources: dict[str, Path], tmp_path: Path
) -> None:
    bucket_of(place).upload(MARKED, sources)
    disk = DiskCache(tmp_path)
    fill_disk(place, disk)
    (disk.folder(MODEL) / "model.onnx").write_bytes(b"gr")
    assert disk.marker(MODEL) is None
    fill_disk(place, disk)
    assert disk.marker(MODEL) == MARKED
    (disk.folder(MODEL) / MARKER).write_text("{")
    assert disk.marker(MODEL) is None


def test_progress_is_told_in_bytes_and_never_falls(
    s3: S3Server, place: BucketPlace, sources: dict[str, Path], tmp_path: Path
) -> None:
    bucket_of(place).upload(MARKED, sources)
    told: list[tuple[int, int]] = []
    cache = ModelCache(CacheSettings(CacheScope.PRIVATE, bucket=place), tmp_path)
    hold = s3.hold(lambda seen: seen.method == "GET" and seen.path.endswith(LARGE))
    sampled = threading.Event()

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if 0 < done < total or len(told) > 2:
            sampled.set()

    thread = threading.Thread(
        target=cache.find, args=(MODEL, lambda m: Choice("onnx", tuple(m.sizes)), progress)
    )
    thread.start()
    assert hold.caught()
    assert sampled.wait(30)
    hold.release()
    thread.join()
    assert told[0] == (0, MARKED.total)
    assert told[-1] == (MARKED.total, MARKED.total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
