"""The demo data set: eight classes of short videos that it renders itself, as real H.264 files in mp4.

In: a seed and counts. Out: `data/{dataset}/videos/CLASS/ID.mp4`, ids such as `drink_train_003`; then on as any other
data set. The first stage for `adapter: demo`; also alone:

    python -m ccs.datasets.demo --output-dir data/demo/videos --workers 2

Two people are in view; one acts, and the class is what that one does; the other holds another thing and keeps still, in
a pose of the same action. A frame shows both things, and not which of them moves. Flow shows where something moves and
how, and little of what it is: `drink`, `eat`, `smoke` and `sing` share one motion, a hand that goes to the mouth and
back, and held things, as those that are raised and lowered, have nearly one outline. So the sum of the two verdicts can
name the motion, and has to guess which of the two things it was, but for what flow sees of patterns and edges and for a
weak cue of pose (`ccs.datasets.demo_scene`): about half of the videos. Who relates what moves to what it looks like, as
the connection block can, may name all. `raise_` and `lower_` share every pose and differ in the direction of time: one
is the other's generator played backwards.

A video depends on (seed, split, class, index) and on the format (size, rate, frames), on nothing else. Video number
`index` of every class shows the same two figures in the same kind of place, either of them acting, so that none of it
says anything about the class; the figures are the video's group. Train and test share no figure and no place: clothes
have other patterns and other hues, bodies and faces are drawn anew, and the walls come from other families of texture.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from ccs.datasets.holdout import hold_out
from ccs.datasets.manifests import Manifest, Video
from ccs.datasets.settings import DatasetSettings
from ccs.pool import ordered_map
from ccs.settings import Flags, Ge, Integer, MultipleOf, add_settings, settings, settings_from
from ccs.signals import end_with_parent
from ccs.stage import CcsError, atomic, progress, raise_if_full, remove_left_parts, run

if TYPE_CHECKING:
    import numpy as np

THING_AND_MOTION = {  # class -> what is held, and how it moves
    "drink": ("a drink", "to the mouth"),
    "eat": ("food", "to the mouth"),
    "lower_crate": ("crate", "down"),
    "lower_present": ("present", "down"),
    "raise_crate": ("crate", "up"),
    "raise_present": ("present", "up"),
    "sing": ("microphone", "to the mouth"),
    "smoke": ("cigarette", "to the mouth"),
}
CLASSES = tuple(THING_AND_MOTION)
SPLITS = ("train", "test")
# On a busy machine x264 makes another stream of the same frames about once in three thousand times (2 of 5,600 on an
# AMD EPYC, with one thread and the same options): a file is taken that came out twice, of so many at most.
ATTEMPTS = 5


Side = Annotated[Integer, Ge(32), MultipleOf(2)]


@settings
class Rendering:
    """What is rendered."""

    seed: Annotated[Integer, Ge(0)] = 0
    """changes every video"""
    train_per_class: Annotated[Integer, Ge(1)] = 40
    """training videos a class, validation included"""
    test_per_class: Annotated[Integer, Ge(1)] = 25
    """test videos a class"""
    width: Side = 192
    """of the videos in pixels"""
    height: Side = 144
    """of the videos in pixels"""
    frames: Annotated[Integer, Ge(2)] = 16
    """frames a video"""
    fps: Annotated[Integer, Ge(1)] = 12
    """frames a second"""


@settings
class Settings(Rendering, DatasetSettings):
    """Videos that the pipeline renders itself."""


class Recipe(NamedTuple):
    """One video to be: its id and what it is made from."""

    video: str
    split: str
    class_name: str
    index: int


def recipes(settings: Rendering) -> list[Recipe]:
    """Every video of the data set in the order of its id, without rendering any."""
    counts = {"train": settings.train_per_class, "test": settings.test_per_class}
    return sorted(
        Recipe(f"{class_name}_{split}_{index:03d}", split, class_name, index)
        for class_name in CLASSES
        for split in SPLITS
        for index in range(counts[split])
    )


def group_of(video: str) -> str:
    """The group of a video, its figures: `drink_train_003` and `sing_train_003` show the same two."""
    return "_".join(video.rsplit("_", 2)[1:])


def video_paths(dataset: str, settings: Rendering) -> dict[str, str]:
    """The file of each video id, relative to the working directory."""
    return {r.video: f"data/{dataset}/videos/{r.class_name}/{r.video}.mp4" for r in recipes(settings)}


def manifest(dataset: str, settings: Settings, split: int = 1) -> Manifest:
    """The videos of the demo, whether they are rendered or not. It has one split, number 1."""
    if split != 1:
        raise CcsError(f"{dataset}: the demo has split 1 only, not {split}; set splits: [1]")
    listed, paths = recipes(settings), video_paths(dataset, settings)
    train = [(group_of(r.video), CLASSES.index(r.class_name)) for r in listed if r.split == "train"]
    held_out = hold_out(train, settings.val_fraction, settings.seed)
    videos = tuple(
        Video(
            video=recipe.video,
            path=paths[recipe.video],
            label=CLASSES.index(recipe.class_name),
            class_name=recipe.class_name,
            split="val" if group_of(recipe.video) in held_out else recipe.split,
        )
        for recipe in listed
    )
    return Manifest(dataset=dataset, classes=CLASSES, videos=videos)


def render(recipe: Recipe, settings: Rendering) -> np.ndarray:
    """Draw one video: (T, H, W, 3) uint8 RGB."""
    from ccs.datasets import demo_scene

    scene = demo_scene.draw_scene(settings.seed, recipe.split, recipe.class_name, recipe.index, settings.frames)
    shown = demo_scene.moments(scene, recipe.class_name, settings.frames)
    return demo_scene.frames(scene, shown, settings.height, settings.width)


def find_ffmpeg() -> str:
    """The ffmpeg on the PATH if it can write H.264 with libx264, otherwise the one that imageio-ffmpeg brings."""
    import shutil

    found = shutil.which("ffmpeg")
    if found:
        encoders = subprocess.run([found, "-v", "error", "-encoders"], capture_output=True, text=True, check=False)
        if "libx264" in encoders.stdout:
            return found
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def encode(frames: np.ndarray, path: str | Path, fps: int, ffmpeg: str) -> None:
    """Write frames (T, H, W, 3) uint8 RGB as H.264 in mp4; the same frames give the same file."""
    _, height, width, _ = frames.shape
    command = [ffmpeg, "-v", "error", "-nostdin", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "-", "-map_metadata", "-1", "-fflags", "+bitexact"]
    # one thread: as fast with a worker per core, and the same stream everywhere
    command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "17", "-threads", "1", "-flags:v", "+bitexact"]
    command += ["-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    with atomic(path) as part:
        seen: set[bytes] = set()
        for _ in range(ATTEMPTS):
            digest = _encoded([*command, str(part)], frames, path, part)
            if digest in seen:
                break
            seen.add(digest)


def _encoded(command: list[str], frames: np.ndarray, path: str | Path, part: Path) -> bytes:
    """The digest of what `command` has written to `part`."""
    # with a worker that is ended its ffmpeg ends, too, and begins no file any more
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True, preexec_fn=end_with_parent)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise_if_full(said, done.returncode)
        lacks = "it must have libx264" if "libx264" in said else f"it ended with status {done.returncode}"
        raise CcsError(f"{path}: {command[0]} could not encode the video ({said[-500:]}); {lacks}")
    return hashlib.sha256(part.read_bytes()).digest()


def render_all(
    output_dir: str | Path, settings: Rendering, workers: int = 1, only: Sequence[Recipe] | None = None
) -> None:
    """Render every video (or those in `only`) to `output_dir/CLASS/ID.mp4`; existing files are replaced."""
    listed = recipes(settings) if only is None else list(only)
    ffmpeg = find_ffmpeg()
    jobs = [
        (recipe, settings, str(Path(output_dir, recipe.class_name, f"{recipe.video}.mp4")), ffmpeg) for recipe in listed
    ]
    try:
        with closing(_each(jobs, workers)) as done:
            for _ in progress(done, total=len(jobs), desc="demo", unit="video"):
                pass
    except BaseException:
        for _, _, path, _ in jobs:  # of workers that were ended
            remove_left_parts(Path(path))
        raise


def _each(jobs: list[tuple], workers: int) -> Generator[None]:
    if workers <= 1:
        yield from map(_job, jobs)
    else:
        yield from ordered_map(_job, jobs, min(workers, len(jobs)), _one_thread)


def _one_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(1)


def _job(job: tuple) -> None:
    recipe, settings, path, ffmpeg = job
    encode(render(recipe, settings), path, settings.fps, ffmpeg)


def main(argv: Sequence[str] | None = None) -> None:
    """Render the demo's videos."""
    parser = Flags(prog="python -m ccs.datasets.demo", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output-dir", required=True, help="directory of CLASS/ID.mp4, e.g. data/demo/videos")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    add_settings(parser, Rendering)
    args = parser.parse_args(argv)
    render_all(args.output_dir, settings_from(args, Rendering), args.workers)


if __name__ == "__main__":
    run(main)
