"""`python -m moorage_worker.cache`: fills a bucket with a model before it is asked for, and checks a copy.

For the operator of a shared cache, and for whoever wants the first start of a deployment to be warm. Exit
codes: 0 done, or whole; 1 it cannot be done, the reason is the last line; 2 wrong usage; 3 `check` found no
whole copy.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from moorage_worker.cache.bucket import ModelBucket
from moorage_worker.cache.errors import CacheSettingsError, StorageTrouble
from moorage_worker.cache.layout import FileEntry, Marker, ModelKey
from moorage_worker.cache.model_cache import fill_bucket
from moorage_worker.cache.settings import BucketKeys, BucketPlace, bucket_url, endpoint_url
from moorage_worker.engines.catalog import ENGINES
from moorage_worker.errors import LoadFailed, cause_line
from moorage_worker.hub import HubRepository
from moorage_worker.source import wanted_of

DONE, FAILED, USAGE, NOT_WHOLE = 0, 1, 2, 3
# Of either name the first that is set: the worker's own, then the one that every S3 tool reads.
_KEY_ID = ("MOORAGE_CACHE_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID")
_SECRET = ("MOORAGE_CACHE_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY")
_ENDPOINT = ("MOORAGE_CACHE_ENDPOINT_URL", "AWS_ENDPOINT_URL")

Say = Callable[[str], None]


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Runs one command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        place = _place(args.url, args.endpoint_url, environ)
    except CacheSettingsError as error:
        parser.error(str(error))
    repository = HubRepository(args.model, args.revision, args.cache_dir)
    try:
        code: int = args.run(args, repository, ModelBucket(place), place)
    except (LoadFailed, StorageTrouble, OSError) as error:
        _say(cause_line(error))
        return FAILED
    return code


def _fill(
    args: argparse.Namespace, repository: HubRepository, bucket: ModelBucket, place: BucketPlace
) -> int:
    """From the Hub to the bucket; nothing is fetched when the bucket has it."""
    model = _model(args, repository)
    sizes = repository.patiently(lambda: repository.listing(model.commit), args.hub_patience)
    # The operator's machine needs no engine: it only has to know what each reads.
    wanted = wanted_of(sizes, None if args.engine == "auto" else args.engine, dict.fromkeys(ENGINES))
    listed = tuple(FileEntry(path, size) for path, size in sorted(wanted.sizes.items()))
    marker = Marker(model, listed, (wanted.engine,))
    _say(f"{model.repo_id} at {model.commit}: {len(listed)} files, {_amount(marker.total)}, {wanted.engine}")
    whole = bucket.look(model).whole
    if whole is not None and whole.covers(marker):
        _say(f"{bucket.url(model)} is complete already")
        return DONE
    fetching = _Meter("fetched from the Hub", marker.total)
    repository.patiently(
        lambda: repository.download(model.commit, wanted.sizes, fetching.at), args.hub_patience
    )
    storing, folder = _Meter("stored", marker.total), repository.snapshot(model.commit)
    local = {path: folder / path for path in wanted.sizes}
    fill_bucket(place, model, wanted.engine, local, lambda file: storing.add(file.size))
    _say(f"{bucket.url(model)} is complete")
    return DONE


def _check(
    args: argparse.Namespace, repository: HubRepository, bucket: ModelBucket, _place: BucketPlace
) -> int:
    """What the bucket has of the model; reads no file but the marker."""
    model = _model(args, repository)
    state = bucket.look(model)
    if state.whole is None:
        for fault in state.faults:
            _say(fault)
        _say(f"{bucket.url(model)} is not whole")
        return NOT_WHOLE
    held = f"{len(state.whole.files)} files, {_amount(state.whole.total)}, {', '.join(state.whole.engines)}"
    _say(f"{bucket.url(model)} is whole: {held}")
    return DONE


def _model(args: argparse.Namespace, repository: HubRepository) -> ModelKey:
    return ModelKey(repository.repo_id, repository.patiently(repository.commit, args.hub_patience))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m moorage_worker.cache",
        description="Fill an S3 bucket with a model from the Hub, or check what it has of one.",
        epilog=f"Keys come from the environment: {' or '.join(_KEY_ID)}, {' or '.join(_SECRET)}. "
        "HF_TOKEN and HF_ENDPOINT work as for the Hub's client.",
    )
    commands = parser.add_subparsers(required=True, metavar="fill|check")
    told = {
        "fill": (_fill, "bring a model to the bucket"),
        "check": (_check, "say whether it is whole there"),
    }
    for name, (run, what) in told.items():
        command = commands.add_parser(name, help=what, description=run.__doc__, epilog=parser.epilog)
        command.add_argument("--model", required=True, help="repository id on the Hub")
        command.add_argument("--revision", help="branch, tag or commit; default: the main branch")
        command.add_argument("--url", required=True, help="s3://bucket/prefix that holds all models")
        command.add_argument("--endpoint-url", help=f"of R2 or MinIO; default: {' or '.join(_ENDPOINT)}")
        command.add_argument("--cache-dir", type=Path, help="folder for downloads from the Hub")
        command.add_argument("--hub-patience", type=float, default=60.0, help="seconds to wait for the Hub")
        command.set_defaults(run=run)
        if name == "fill":
            command.add_argument("--engine", default="auto", choices=["auto", *ENGINES])
    return parser


def _place(url: str, endpoint: str | None, environ: Mapping[str, str]) -> BucketPlace:
    keys = BucketKeys(_required(environ, _KEY_ID), _required(environ, _SECRET))
    endpoint = endpoint or _first(environ, _ENDPOINT)
    return BucketPlace(
        bucket_url("--url", url), keys, endpoint_url("--endpoint-url", endpoint) if endpoint else None
    )


def _required(environ: Mapping[str, str], names: Sequence[str]) -> str:
    value = _first(environ, names)
    if not value:
        raise CacheSettingsError(
            " or ".join(names), "must be set: the bucket's keys come from the environment"
        )
    return value


def _first(environ: Mapping[str, str], names: Sequence[str]) -> str:
    return next((value for name in names if (value := environ.get(name, "").strip())), "")


class _Meter:
    """Prints a line each time another tenth has come."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._done = self._told = 0
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        self.at(self._done + amount, self._total)

    def at(self, done: int, _total: int) -> None:
        with self._lock:
            self._done = done
            tenths = 10 * done // max(self._total, 1)
            if tenths > self._told:
                self._told = tenths
                _say(f"{self._what}: {10 * tenths} % of {_amount(self._total)}")


def _amount(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
