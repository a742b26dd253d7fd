"""Which task a pipeline serves, from what its call takes. Pure, so that no pipeline is needed to decide."""

from __future__ import annotations

from collections.abc import Collection

from moorage_worker.errors import LoadFailed
from moorage_worker.model_layout import IMAGE_TO_IMAGE, TEXT_TO_IMAGE, TEXT_TO_VIDEO

SERVED = (TEXT_TO_IMAGE, IMAGE_TO_IMAGE, TEXT_TO_VIDEO)


def choose_task(asked: str | None, name: str, takes: Collection[str], needs: Collection[str]) -> str:
    """The task of pipeline `name`, whose call takes the arguments `takes` and cannot do without `needs`.

    Raises LoadFailed when the pipeline does not serve it, or no task at all.
    """
    if asked is not None and asked not in SERVED:
        raise LoadFailed(f"engine diffusers does not serve {asked} (it serves {', '.join(SERVED)})")
    if "prompt" not in takes:
        raise LoadFailed(f"pipeline {name} takes no prompt, so it is only a part of what makes a picture")
    missing = sorted(set(needs) - {"prompt"})
    if missing:
        raise LoadFailed(f"pipeline {name} needs {missing[0]} beside a prompt, which no task here gives")
    video = "num_frames" in takes
    task = asked or (TEXT_TO_VIDEO if video else TEXT_TO_IMAGE)
    if video != (task == TEXT_TO_VIDEO):
        kind = "videos" if video else "pictures"
        raise LoadFailed(f"pipeline {name} makes {kind}, so it does not serve {task}")
    return task
