"""The job handler without RunPod: what a job may say, what it is answered, and how it is given up.

`test_jobs_process` has the same handler in a process, driven by RunPod's own loop.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any  # a job and its output are JSON

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_harness.running import DIGITS
from worker_harness.s3 import S3Server
from worker_harness.stepping import SteppingEngine, loaded

from moorage_worker.arrival import Arrival
from moorage_worker.cache.results import ResultBucket
from moorage_worker.cache.settings import BucketKeys, BucketPlace
from moorage_worker.engines.media import Media
from moorage_worker.errors import BadInput, LoadFailed
from moorage_worker.faces.job_progress import JobProgress
from moorage_worker.faces.jobs import JobFace, request_of
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.pool import InferencePool
from moorage_worker.readiness import Stage
from moorage_worker.settings import parse_settings

WAIT_SECONDS = 20.0
PICTURE = Media(b"\x89PNG not really", "image/png", width=32, height=16)


class Service:
    """A job face over an engine that steps; `words` is what jobs tell of their progress, by job."""

    def __init__(self, bucket: ResultBucket | None = None, threads: int = 1) -> None:
        self.engine = SteppingEngine()
        self.arrival = Arrival(parse_settings(["--model", str(DIGITS)], {}))
        self.words: list[tuple[str, Any]] = []
        self.word_taken = asyncio.Event()
        media = MediaResults(bucket or ResultBucket(None))
        self.face = JobFace("acme/m", self.arrival, InferencePool(threads, 100), media, self._take_word)
        self._number = 0

    async def _take_word(self, job: Any, word: object) -> None:
        self.words.append((job["id"], word))
        self.word_taken.set()

    def arrive(self) -> Service:
        self.arrival.loaded.set_result(loaded(self.engine))
        return self

    def start(self, asked: object) -> asyncio.Task[dict[str, Any]]:
        self._number += 1
        return asyncio.create_task(self.face.handle({"id": f"job-{self._number}", "input": asked}))

    async def run(self, asked: object) -> dict[str, Any]:
        self.engine.let_go.set()
        return await asyncio.wait_for(self.start(asked), WAIT_SECONDS)

    async def problem(self, asked: object) -> dict[str, Any]:
        """The problem of a job that must fail."""
        answer = await self.run(asked)
        assert list(answer) == ["error"]
        found: dict[str, Any] = json.loads(answer["error"])
        return found

    async def engine_started(self) -> None:
        assert await asyncio.to_thread(self.engine.started.wait, WAIT_SECONDS)

    async def engine_stopped(self) -> None:
        assert await asyncio.to_thread(self.engine.stopped.wait, WAIT_SECONDS)


@pytest.fixture
def service() -> Service:
    return Service().arrive()


async def test_a_job_is_answered_as_a_request_over_http_is(service: Service) -> None:
    answer = await service.run({"inputs": "a red square", "parameters": {"steps": 4}})
    assert answer["model_id"] == "acme/m"
    assert answer["outputs"] == {"inputs": "a red square", "parameters": {"steps": 4}}
    assert answer["metadata"]["model_version"] == "v1"
    assert answer["metadata"]["inference_time_ms"] >= 0


async def test_a_prompt_is_short_for_inputs(service: Service) -> None:
    answer = await service.run({"prompt": "a red square", "steps": 4, "parameters": {"seed": 7}})
    assert answer["outputs"] == {"inputs": "a red square", "parameters": {"steps": 4, "seed": 7}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(prompt=JSON, parameters=st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_the_short_form_means_the_long_one(prompt: Any, parameters: dict[str, Any]) -> None:
    short = {name: value for name, value in parameters.items() if name not in ("inputs", "parameters")}
    beside = {name: value for name, value in short.items() if name != "prompt"}
    assert request_of({**beside, "prompt": prompt}) == {"inputs": prompt, "parameters": beside}
    long = {"inputs": prompt, "parameters": parameters}
    assert request_of(long) == long


def wrong_field(asked: Any) -> str | None:
    if not isinstance(asked, dict):
        return "input"
    short = "prompt" in asked and "inputs" not in asked
    return "parameters" if short and not isinstance(asked.get("parameters"), dict | None) else None


@given(JSON | st.fixed_dictionaries({"prompt": JSON}, optional={"inputs": JSON, "parameters": JSON}))
def test_any_input_is_a_request_or_is_refused_by_name(asked: Any) -> None:
    wrong = wrong_field(asked)
    if wrong is None:
        assert isinstance(request_of(asked), dict)
        return
    with pytest.raises(BadInput) as caught:
        request_of(asked)
    assert caught.value.field == wrong


@pytest.mark.parametrize(
    ("asked", "field", "rule"),
    [
        (None, "input", "type"),
        ([1], "input", "type"),
        ({}, "inputs", "required"),
        ({"inputs": 1, "prompt": 2}, "prompt", "unknown"),
        ({"inputs": 1, "parameters": []}, "parameters", "type"),
        ({"prompt": "x", "parameters": 5}, "parameters", "type"),
        ({"prompt": "x", "result": "ftp"}, "parameters.result", "one_of"),
        ({"prompt": "x", "parameters": {"result": "s3"}}, "parameters.result", "no_bucket"),
    ],
)
async def test_a_wrong_job_fails_with_a_problem(service: Service, asked: Any, field: str, rule: str) -> None:
    problem = await service.problem(asked)
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    [error] = problem["errors"]
    assert (error["field"], error["rule"]) == (field, rule)
    assert problem["detail"].startswith(f"{field}: ")
    assert service.engine.asked == []


async def test_what_breaks_in_the_engine_is_told_without_secrets(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_tell")
    service.engine.failure = OSError("GET https://hub?token=hf_do_not_tell: refused")
    problem = await service.problem({"inputs": 1})
    assert (problem["status"], problem["code"]) == (500, "engine_failed")
    assert problem["detail"] == "OSError: GET https://hub?token=<HF_TOKEN>: refused"


async def test_a_warm_up_is_answered_with_how_the_model_came(service: Service) -> None:
    answer = await service.run({"moorage": "warm_up"})
    assert answer == {"ready": True, "load_seconds": 1.5, "from_cache": True, "version": "v1"}
    assert service.engine.asked == []


async def test_pictures_are_in_the_answer_wherever_they_are(service: Service) -> None:
    service.engine.answer = {"pictures": [PICTURE, {"second": PICTURE}], "seed": 7}
    answer = await service.run({"prompt": "a red square"})
    picture = {
        "content_type": "image/png",
        "width": 32,
        "height": 16,
        "base64": base64.b64encode(PICTURE.data).decode(),
    }
    assert answer["outputs"] == {"pictures": [picture, {"second": picture}], "seed": 7}


async def test_pictures_go_to_the_bucket_when_asked(s3: S3Server) -> None:
    bucket, keys = s3.add_bucket(), s3.add_user()
    opened = BucketKeys(keys.access_key_id, keys.secret_access_key)
    service = Service(ResultBucket(BucketPlace(f"s3://{bucket}/mine", opened, s3.url))).arrive()
    service.engine.answer = [PICTURE, PICTURE]
    answer = await service.run({"prompt": "a red square", "parameters": {"result": "s3"}})
    urls = {output.pop("url") for output in answer["outputs"]}
    assert len(urls) == 2
    for url in urls:
        assert s3.read(bucket, url.removeprefix(f"s3://{bucket}/")) == PICTURE.data
    for output in answer["outputs"]:
        async with httpx.AsyncClient() as client:
            assert (await client.get(output.pop("download_url"))).content == PICTURE.data
        assert output == {"content_type": "image/png", "width": 32, "height": 16}
    assert keys.secret_access_key not in json.dumps(answer)


async def test_a_job_tells_how_far_it_is(service: Service) -> None:
    job = service.start({"inputs": 1})
    await asyncio.wait_for(service.word_taken.wait(), WAIT_SECONDS)
    service.engine.let_go.set()
    await job
    assert service.words == [("job-1", {"stage": "running", "percent": 25.0, "what": "step 1 of 4"})]


async def test_a_cancelled_job_stops_the_engine_and_the_next_is_served(service: Service) -> None:
    job = service.start({"inputs": "unwanted"})
    await service.engine_started()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    await service.engine_stopped()
    assert (await service.run({"inputs": "wanted"}))["outputs"]["inputs"] == "wanted"


async def test_a_job_that_is_cancelled_before_its_turn_never_runs(service: Service) -> None:
    first = service.start({"inputs": "first"})
    await service.engine_started()
    second = service.start({"inputs": "second"})
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    service.engine.let_go.set()
    await first
    await service.run({"inputs": "third"})
    assert service.engine.asked == ["first", "third"]


async def test_jobs_wait_for_the_model_and_tell_how_far_it_is() -> None:
    service = Service()
    job, warm_up = service.start({"inputs": 1}), service.start({"moorage": "warm_up"})
    service.engine.let_go.set()
    await settle()

    def load() -> None:
        service.arrival.readiness.progress(50, 200)  # too soon after the first word
        service.arrival.readiness.stage = Stage.LOADING
        service.arrival.readiness.stage = Stage.WARMING

    await asyncio.to_thread(load)
    await settle()
    service.arrive()
    assert (await job)["outputs"]["inputs"] == 1
    assert (await warm_up)["ready"] is True
    told = [word for id_, word in service.words if id_ == "job-2"]
    assert told[0] == {"stage": "downloading", "percent": None}
    assert told[-1] == {"stage": "warming", "percent": None}


async def test_a_job_that_is_given_up_while_the_model_loads_takes_it_from_nobody() -> None:
    service = Service()
    given_up, stays = service.start({"inputs": "given up"}), service.start({"inputs": "stays"})
    await settle()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    service.engine.let_go.set()
    service.arrive()
    assert (await stays)["outputs"]["inputs"] == "stays"
    assert service.engine.asked == ["stays"]


@pytest.mark.parametrize("asked", [{"inputs": 1}, {"moorage": "warm_up"}])
async def test_jobs_that_wait_in_vain_are_told_why(asked: Any) -> None:
    service = Service()
    before = service.start(asked)
    await settle()
    service.arrival.loaded.set_exception(LoadFailed("acme/m is not on the Hub"))
    for answer in (await before, await service.run(asked)):
        problem = json.loads(answer["error"])
        assert (problem["status"], problem["code"]) == (503, "model_failed_to_load")
        assert problem["detail"] == "the model cannot be loaded: acme/m is not on the Hub"


async def test_a_wrong_job_need_not_wait_for_the_model() -> None:
    problem = await Service().problem([1])
    assert problem["errors"][0]["field"] == "input"


async def test_settled_is_when_the_last_result_is_sent() -> None:
    service, sent = Service().arrive(), asyncio.Event()

    async def as_the_package_does() -> None:
        await service.face.handle({"id": "job-1", "input": {"inputs": 1}})
        await sent.wait()

    service.engine.let_go.set()
    job = asyncio.create_task(as_the_package_does())
    await service.engine_started()
    assert service.face.in_hand == 1
    settled = asyncio.create_task(service.face.settled())
    done, _ = await asyncio.wait([settled], timeout=0.2)
    assert not done
    sent.set()
    await asyncio.wait_for(settled, WAIT_SECONDS)
    await job
    assert service.face.in_hand == 0


async def settle() -> None:
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Line:
    """A slow way to send words: each is under way until the test lets it through."""

    def __init__(self) -> None:
        self.begun: list[object] = []
        self.sent: list[object] = []
        self.failing = False
        self.let_through = asyncio.Event()

    async def send(self, word: object) -> None:
        self.begun.append(word)
        await self.let_through.wait()
        if self.failing:
            raise OSError("no connection")
        self.sent.append(word)

    def progress(self) -> JobProgress:
        return JobProgress(self.send)


async def test_words_go_one_after_the_other_and_only_the_newest_waits() -> None:
    line = Line()
    async with line.progress() as progress:
        for number in range(5):
            progress.tell(number)
            await settle()
        assert line.begun == [0]
        line.let_through.set()
        await settle()
        assert line.sent == [0, 4]
        progress.tell(5)
        await settle()
    assert line.sent == [0, 4, 5]


async def test_the_end_waits_for_the_word_under_way_and_lets_go_of_the_rest() -> None:
    line, told = Line(), asyncio.Event()

    async def job() -> JobProgress:
        async with line.progress() as progress:
            progress.tell("under way")
            await settle()
            progress.tell("waits")
            await settle()
            told.set()
        return progress

    task = asyncio.create_task(job())
    await told.wait()
    await settle()
    assert not task.done()
    line.let_through.set()
    progress = await asyncio.wait_for(task, WAIT_SECONDS)
    progress.tell("too late")
    await settle()
    assert line.sent == ["under way"]


async def test_a_word_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage_worker.faces.job_progress.LAST_SECONDS", 0.05)
    line = Line()
    async with line.progress() as progress:
        progress.tell("hangs")
        await settle()
    line.let_through.set()
    await settle()
    assert line.sent == []


async def test_words_that_cannot_be_sent_are_no_failure_of_the_job() -> None:
    line = Line()
    line.failing = True
    line.let_through.set()
    async with line.progress() as progress:
        progress.tell("lost")
        await settle()
        line.failing = False
        progress.tell("found")
        await settle()
    assert line.sent == ["found"]
