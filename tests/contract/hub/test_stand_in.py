"""The stand-in is Hub enough for the real client: information, trees, whole snapshots; as a process too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError

from moorage.testing.hub import HubStandIn

MakeRepo = Callable[[dict[str, Any]], Path]  # Any: any JSON object, text or bytes
Safetensors = Callable[[dict[str, tuple[str, list[int]]]], bytes]
README = "---\nlicense: mit\nlibrary_name: onnx\npipeline_tag: image-classification\n---\n# Digits\n"


@pytest.fixture
def repo(make_repo: MakeRepo, safetensors: Safetensors) -> Path:
    return make_repo(
        {
            "README.md": README,
            "config.json": {"architectures": ["DigitsForImageClassification"], "model_type": "mlp"},
            "model.safetensors": safetensors({"w": ("F32", [300_000])}),
            "onnx/model.onnx": bytes(range(256)) * 10_000,
            ".hidden/secret": "no",
        }
    )


async def test_model_info_tells_what_the_hub_would(hub: HubStandIn, repo: Path) -> None:
    sha = await hub.add_repo("acme/digits", repo, gated=True)
    api = HfApi(endpoint=hub.url, token=False)
    info = await asyncio.to_thread(api.model_info, "acme/digits", files_metadata=True)
    assert (info.id, info.sha, info.private, info.gated) == ("acme/digits", sha, False, "manual")
    assert (info.library_name, info.pipeline_tag) == ("onnx", "image-classification")
    assert info.safetensors is not None
    assert dict(info.safetensors.parameters) == {"F32": 300_000}
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert set(siblings) == {"README.md", "config.json", "model.safetensors", "onnx/model.onnx"}
    assert siblings["onnx/model.onnx"].size == 2_560_000
    assert siblings["onnx/model.onnx"].lfs is not None
    assert siblings["README.md"].lfs is None

    expanded = await asyncio.to_thread(api.model_info, "acme/digits", expand=["pipeline_tag", "sha"])
    assert (expanded.sha, expanded.pipeline_tag, expanded.siblings) == (sha, "image-classification", None)


async def test_a_snapshot_arrives_byte_for_byte(hub: HubStandIn, repo: Path, tmp_path: Path) -> None:
    sha = await hub.add_repo("acme/digits", repo)
    folder = Path(
        await asyncio.to_thread(
            snapshot_download, "acme/digits", endpoint=hub.url, cache_dir=tmp_path / "cache", token=False
        )
    )
    assert folder.name == sha
    for name in ("README.md", "config.json", "model.safetensors", "onnx/model.onnx"):
        assert (folder / name).read_bytes() == (repo / name).read_bytes()
    assert not (folder / ".hidden").exists()


async def test_trees_and_paths(hub: HubStandIn, repo: Path) -> None:
    await hub.add_repo("acme/digits", repo)
    api = HfApi(endpoint=hub.url, token=False)

    def paths(**how: Any) -> list[str]:  # Any: keywords of the client
        return [entry.path for entry in api.list_repo_tree("acme/digits", **how)]

    assert await asyncio.to_thread(paths) == ["onnx", "README.md", "config.json", "model.safetensors"]
    assert "onnx/model.onnx" in await asyncio.to_thread(lambda: paths(recursive=True))
    assert await asyncio.to_thread(lambda: paths(path_in_repo="onnx")) == ["onnx/model.onnx"]
    found = await asyncio.to_thread(api.get_paths_info, "acme/digits", ["README.md", "gone.txt"])
    assert [entry.path for entry in found] == ["README.md"]
    assert await asyncio.to_thread(api.file_exists, "acme/digits", "config.json")
    assert not await asyncio.to_thread(api.file_exists, "acme/digits", "gone.json")


async def test_files_of_a_gated_repository_need_its_token(
    hub: HubStandIn, repo: Path, tmp_path: Path
) -> None:
    await hub.add_repo("acme/gated", repo, gated=True, token="hf_owner")

    def download(token: str | bool) -> str:
        return str(
            snapshot_download("acme/gated", endpoint=hub.url, cache_dir=tmp_path / "cache", token=token)
        )

    with pytest.raises(GatedRepoError):
        await asyncio.to_thread(download, False)
    assert await asyncio.to_thread(download, "hf_owner")


async def test_the_commit_follows_the_content(hub: HubStandIn, make_repo: MakeRepo) -> None:
    same = [await hub.add_repo("acme/m", make_repo({"a": "1"})) for _ in range(2)]
    assert same[0] == same[1]
    assert await hub.add_repo("acme/m", make_repo({"a": "2"})) != same[0]


DOWNLOAD = (
    "import sys; from huggingface_hub import model_info, snapshot_download; "
    "print(model_info('acme/digits').sha); snapshot_download('acme/digits', cache_dir=sys.argv[1])"
)


async def test_as_a_process_of_its_own_for_a_client_that_knows_hf_endpoint(
    repo: Path, tmp_path: Path
) -> None:
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "moorage.testing.hub",
        "--repo",
        f"acme/digits={repo}",
        "--port",
        "0",
        stdout=pipe,
    )
    try:
        assert server.stdout is not None
        url = json.loads(await server.stdout.readline())["url"]
        environ = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DOWNLOAD, str(tmp_path / "cache"), env=environ, stdout=pipe
        )
        out, _ = await client.communicate()
        assert client.returncode == 0
        snapshot = tmp_path / "cache" / "models--acme--digits" / "snapshots" / out.decode().split()[0]
        assert (snapshot / "onnx" / "model.onnx").read_bytes() == (repo / "onnx" / "model.onnx").read_bytes()
    finally:
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_a_wrong_argument_is_told() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "moorage.testing.hub", "--repo", "nonsense", stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    assert process.returncode == 1
    assert b"must be OWNER/NAME=PATH" in told
