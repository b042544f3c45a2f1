"""The demo data set: that it is fixed by its seed, and that it asks for both streams together as it says."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ccs.clips.sampling import frame_indices, segment_starts
from ccs.datasets import adapters, demo, demo_scene
from ccs.datasets.demo_rooms import FAMILIES
from ccs.models.snippet import Snippet
from ccs.stage import CcsError

PAIRS = (("raise_crate", "lower_crate"), ("raise_present", "lower_present"))
HELD = ("drink", "eat", "smoke", "sing")
SMALL = demo.Settings(train_per_class=1, test_per_class=1, width=96, height=72, frames=7)


def scene_of(class_name: str, index: int, split: str = "train", num_frames: int = 16) -> demo_scene.Scene:
    return demo_scene.draw_scene(0, split, class_name, index, num_frames)


def decode(path: Path, height: int, width: int) -> np.ndarray:
    """All frames of a file by ffmpeg, (T, H, W, 3)."""
    command = [demo.find_ffmpeg(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)


def mean_motion(frames: np.ndarray) -> np.ndarray:
    """Mean TV-L1 flow (x, y) in pixels at 85x64 of what moves against the background, over three pairs."""
    tvl1 = cv2.optflow.DualTVL1OpticalFlow_create()
    tvl1.setOuterIterations(4)
    grey = [cv2.cvtColor(cv2.resize(f, (85, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for f in frames]
    flows = []
    for t in (4, 7, 10):
        flow = tvl1.calc(grey[t], grey[t + 1], None)
        flow -= np.median(flow, axis=(0, 1))
        flows.append(flow[np.hypot(flow[..., 0], flow[..., 1]) > 0.5].mean(0))
    return np.mean(flows, 0)


def test_listing_needs_no_drawing():
    code = (
        "import sys; from ccs.datasets.adapters import load; m = load('demo', {'adapter': 'demo'}); "
        "print(len(m.videos), *{'cv2', 'torch', 'pandas', 'h5py', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "520\n"


def test_manifest():
    settings = {"adapter": "demo", "train_per_class": 20, "test_per_class": 5, "val_fraction": 0.2, "seed": 3}
    videos = adapters.load("clips", settings).videos
    assert len({video.video for video in videos}) == 8 * 25
    for label, name in enumerate(demo.CLASSES):
        splits = [video.split for video in videos if video.label == label and video.class_name == name]
        assert {split: splits.count(split) for split in set(splits)} == {"train": 16, "val": 4, "test": 5}
    figures = {part: {demo.group_of(v.video) for v in videos if v.split == part} for part in ("train", "val", "test")}
    assert not figures["train"] & figures["val"] | figures["test"] & (figures["train"] | figures["val"])
    assert {video.path for video in videos if video.video == "raise_crate_train_003"} == {
        "data/clips/videos/raise_crate/raise_crate_train_003.mp4"
    }
    # more videos leave those that were there as they are
    more = {video.video: video[:4] for video in adapters.load("clips", {**settings, "train_per_class": 21}).videos}
    assert all(more[video.video] == video[:4] for video in videos)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_per_class": 0}, "train_per_class: expected a whole number of 1 or more, found 0"),
        ({"width": 85}, "width: expected a whole number of 32 or more, a multiple of 2, found 85"),
        ({"seed": "x"}, "seed: expected a whole number of 0 or more, found 'x'"),
    ],
)
def test_bad_settings(settings: dict, message: str):
    with pytest.raises(CcsError, match=message):
        adapters.load("demo", {"adapter": "demo", **settings})


def test_other_split_is_refused():
    with pytest.raises(CcsError, match="split 1 only, not 2"):
        adapters.load("demo", {"adapter": "demo"}, 2)


def test_rendered_files(tmp_path: Path):
    """Two renders, by one process and by two, decode to the same frames: as many and as large as stated."""
    flags = ["--train-per-class", "1", "--test-per-class", "1", "--width", "96", "--height", "72", "--frames", "7"]
    for workers in ("1", "2"):
        command = [sys.executable, "-m", "ccs.datasets.demo", "--output-dir", str(tmp_path / workers), *flags]
        subprocess.run([*command, "--workers", workers], check=True, capture_output=True)
    listed = demo.recipes(SMALL)
    found = sorted(str(path.relative_to(tmp_path / "1")) for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert found == sorted(f"{recipe.class_name}/{recipe.video}.mp4" for recipe in listed)
    for recipe in listed:
        first, second = (tmp_path / workers / recipe.class_name / f"{recipe.video}.mp4" for workers in ("1", "2"))
        assert first.read_bytes() == second.read_bytes()
    for recipe in listed[::5]:
        decoded = decode(tmp_path / "1" / recipe.class_name / f"{recipe.video}.mp4", 72, 96)
        drawn = demo.render(recipe, SMALL)
        assert decoded.shape == drawn.shape == (7, 72, 96, 3)
        error = np.mean((decoded.astype(float) - drawn) ** 2, axis=(1, 2, 3))
        assert (10 * np.log10(255**2 / error) > 28).all()  # dB, of every frame: none dropped, doubled or swapped
        assert np.mean((decoded[0].astype(float) - drawn[-1]) ** 2) > 2 * error.max()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_a_killed_worker_ends_the_stage(tmp_path: Path):
    command = [sys.executable, "-m", "ccs.datasets.demo", "--output-dir", str(tmp_path), "--workers", "2"]
    stage = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{stage.pid}/task/{stage.pid}/children")
    try:
        while not any(tmp_path.rglob("*.mp4")):
            assert stage.poll() is None, stage.stderr.read()
            time.sleep(0.05)
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()}
        workers = [pid for pid, line in lines.items() if b"spawn_main" in line]
        os.kill(workers[0], signal.SIGKILL)
        _, log = stage.communicate(timeout=60)
    finally:
        stage.kill()
    assert stage.returncode == 1
    assert "ccs: error: a worker process was killed before its task was done. Most often memory ran out" in log
    assert "Traceback" not in log
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_video_depends_on_seed_and_own_name_only():
    recipe = demo.Recipe("drink_train_001", "train", "drink", 1)
    frames = demo.render(recipe, SMALL)
    assert np.array_equal(demo.render(recipe, demo.Settings(**{**vars(SMALL), "train_per_class": 9})), frames)
    assert not np.array_equal(demo.render(recipe, demo.Settings(**{**vars(SMALL), "seed": 1})), frames)
    assert not np.array_equal(demo.render(recipe._replace(split="test"), SMALL), frames)


def test_an_ffmpeg_that_is_not_the_same_every_time_gives_the_same_file(tmp_path: Path):
    """As happens on a busy machine, once in thousands of videos."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 72, 96, 3), np.uint8)
    odd = tmp_path / "ffmpeg"
    odd.write_text(
        f"""#!/bin/sh
for path; do :; done
{demo.find_ffmpeg()} "$@" && [ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; printf x >> "$path"; }}
"""
    )
    odd.chmod(0o755)
    demo.encode(frames, tmp_path / "a.mp4", 12, demo.find_ffmpeg())
    demo.encode(frames, tmp_path / "b.mp4", 12, str(odd))
    assert (tmp_path / "once").exists()
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


def test_failing_ffmpeg_leaves_no_file(tmp_path: Path):
    with pytest.raises(CcsError, match=r"clip\.mp4: .* could not encode"):
        demo.encode(np.zeros((2, 72, 97, 3), np.uint8), tmp_path / "clip.mp4", 12, demo.find_ffmpeg())  # odd width
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_second_of_a_pair_is_the_first_backwards(first: str, second: str):
    scene = scene_of(first, 2)
    there, back = (demo_scene.moments(scene, name, 16) for name in (first, second))
    assert back == there[::-1]
    assert np.array_equal(demo_scene.frames(scene, back, 72, 96), demo_scene.frames(scene, there, 72, 96)[::-1])
    progress = np.array([moment.progress for moment in there])
    assert (np.diff(progress) >= 0).all()
    assert (np.diff(progress) > 0.01).mean() > 0.75  # moves for most of the clip


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_direction_shows_in_the_flow_alone(first: str, second: str):
    for index in (0, 1):
        for name in (first, second):
            scene = scene_of(name, index)
            _, y = mean_motion(demo_scene.frames(scene, demo_scene.moments(scene, name, 16), 144, 192))
            assert -y * (1 if name == first else -1) > 0.15, (name, index, y)


@pytest.mark.parametrize("class_name", demo.CLASSES)
def test_the_acting_one_moves_and_the_other_does_not(class_name: str):
    for index in range(4):
        scene = scene_of(class_name, index)._replace(shake=((0.0, 0.0),) * 16, drift=(0.0, 0.0))
        frames = demo_scene.frames(scene, demo_scene.moments(scene, class_name, 16), 144, 192).astype(int)
        moving = (np.abs(np.diff(frames, axis=0)).max((0, 3)) > 25).mean(0)  # share of rows, by column
        halves = {-1: moving[:96].mean(), 1: moving[96:].mean()}
        assert halves[scene.side] > max(0.05, 5 * halves[-scene.side]), (index, halves)


def numbers(name: str, scene: demo_scene.Scene) -> dict[str, float]:
    """Every number drawn for a scene but the things and their colours; figures and place are the index's own.

    Times and poses are counted from the first frame of a video, whichever way it is played.
    """
    back = name in demo_scene.BACKWARDS
    flat: dict[str, float] = {"halted": 1 - scene.halted if back else scene.halted}
    for role in ("actor", "other"):
        person = getattr(scene, role)
        names = ("start", "end", "ease", "extent", "zoom", "sway", "thing_size", "mirror")
        flat |= {f"{role}_{name}": getattr(person, name) for name in names}
        flat |= {f"{role}_x": person.at[0], f"{role}_y": person.at[1]}
        moment = person.progress(scene.halted)
        flat |= {f"{role}_moment": 1 - moment if back else moment}
        shirt = np.array(person.figure.shirt) - scene.actor.figure.shirt - scene.other.figure.shirt  # who of the two
        flat |= {f"{role}_shirt": shirt.sum(), f"{role}_head": person.figure.head, f"{role}_build": person.figure.build}
    flat |= {part: getattr(scene, part) for part in ("light", "floor", "side")}
    for part in ("gain", "drift"):
        flat.update({f"{part}{k}": value for k, value in enumerate(getattr(scene, part))})
    shake = np.array(scene.shake)
    return {**flat, "shake_first": shake[0, 0], "shake_last": shake[-1, 0], "shake_size": np.abs(shake).mean()}


def assert_alike(name: str, a: np.ndarray, b: np.ndarray) -> None:
    """Two samples of one distribution (Kolmogorov-Smirnov, p about 1e-4)."""
    a, b = np.sort(a), np.sort(b)
    every = np.concatenate([a, b])
    distance = np.abs(np.searchsorted(a, every, "right") / len(a) - np.searchsorted(b, every, "right") / len(b)).max()
    assert distance < 2.2 * np.sqrt(1 / len(a) + 1 / len(b)), name


@pytest.mark.parametrize(("first", "second"), [*PAIRS, ("drink", "eat"), ("drink", "smoke"), ("drink", "sing")])
def test_same_distributions(first: str, second: str):
    """No number of a scene differs in distribution between the two classes but by what is held."""
    drawn = [[scene_of(name, index) for index in range(300)] for name in (first, second)]
    for a, b in zip(*drawn, strict=True):
        assert {a.actor.figure, a.other.figure} == {b.actor.figure, b.other.figure}
        assert a.place == b.place
    tables = [[numbers(name, scene) for scene in scenes] for name, scenes in zip((first, second), drawn, strict=True)]
    for name in tables[0][0]:
        a, b = (np.array([row[name] for row in rows]) for rows in tables)
        assert_alike(name, a, b)
        assert not np.array_equal(a, b), f"{name} is not drawn independently"


@pytest.mark.parametrize(
    "alike", [HELD, PAIRS[0], PAIRS[1], ("raise_crate", "raise_present"), ("lower_crate", "lower_present")]
)
def test_a_frame_does_not_tell_who_acts(alike: tuple[str, ...]):
    """At any moment the two in a picture are drawn alike: nothing but motion says which of them acts."""
    names = [name for name in alike for _ in range(300)]
    scenes = [scene_of(name, index % 300) for index, name in enumerate(names)]
    rows = [numbers(name, scene) for name, scene in zip(names, scenes, strict=True)]
    for name in [name.removeprefix("actor_") for name in rows[0] if name.startswith("actor_")]:
        assert_alike(name, *(np.array([row[f"{role}_{name}"] for row in rows]) for role in ("actor", "other")))
    # their poses in the frames that training shows: were they alike in all frames, the first and last, which are in the
    # middle of no snippet, would be seen on the still one alone
    rng, snippet = np.random.default_rng(0), Snippet(flow_length=5)
    shown = []
    for name, scene in zip(names, scenes, strict=True):
        starts = segment_starts(16, segments=3, snippet=snippet, rng=rng)
        frames = frame_indices(starts, snippet=snippet, num_frames=16)[:, 0]
        shown += [demo_scene.moments(scene, name, 16)[rng.choice(frames)]]
    poses, still = (np.array([getattr(moment, part) for moment in shown]) for part in ("progress", "still"))
    assert_alike("pose", poses, still)
    assert abs(poses.mean() - still.mean()) < 0.05
    assert 0.42 < np.mean([scene.side == 1 for scene in scenes]) < 0.58
    # things: never the same kind twice, every other kind equally often
    if alike != HELD:
        assert all({scene.actor.thing, scene.other.thing} == {"crate", "present"} for scene in scenes)
        return
    kinds = {thing: name for name in HELD for thing in demo_scene.THINGS[name]}
    pairs = [(kinds[scene.actor.thing], kinds[scene.other.thing]) for scene in scenes]
    for pair in itertools.product(HELD, HELD):
        assert abs(pairs.count(pair) - 100 * (pair[0] != pair[1])) <= 30 * (pair[0] != pair[1]), pair


def test_held_things_are_all_that_differs():
    """The same scene with each thing in turn: the rest of the picture is the same, and the thing is large in it."""
    scene = scene_of("drink", 5)
    shown = demo_scene.moments(scene, "drink", 16)[::5]
    assert all(demo_scene.moments(scene, name, 16)[::5] == shown for name in HELD)
    pictures = {
        thing: demo_scene.frames(
            scene._replace(actor=scene.actor._replace(action=name, thing=thing)), shown, 64, 86
        ).astype(int)
        for name in HELD
        for thing in demo_scene.THINGS[name]
    }
    for thing, frames in pictures.items():
        for other in pictures.keys() - {thing}:
            differs = (np.abs(frames - pictures[other]).max(-1) > 40).mean((1, 2))
            assert differs.min() > 0.004, (thing, other, differs)
            assert differs.max() < 0.08, (thing, other, differs)


def test_crate_and_present_have_one_outline():
    scene = scene_of("raise_crate", 3)
    shown = demo_scene.moments(scene, "raise_crate", 16)[::5]
    crate, present = (
        demo_scene.frames(scene._replace(actor=scene.actor._replace(thing=thing, thing_colour=colour)), shown, 144, 192)
        for thing, colour in (("crate", (90, 60, 30)), ("present", (200, 20, 40)))
    )
    differs = np.abs(crate.astype(int) - present).max(-1) > 8
    for number, moment in enumerate(shown):
        rows, columns = np.nonzero(differs[number])
        wide, tall = np.ptp(columns) + 1, np.ptp(rows) + 1
        assert differs[number][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].mean() > 0.6, moment
        assert tall / wide == pytest.approx(0.17 / 0.32, rel=0.15)


def test_train_and_test_share_no_figure_and_no_place():
    figures = {
        split: {demo_scene.draw_figure(0, split, i, which) for i in range(40) for which in (0, 1)}
        for split in demo.SPLITS
    }
    places = {split: {demo_scene.draw_place(0, split, i) for i in range(40)} for split in demo.SPLITS}
    for part, column in (
        (figures, "fabric"),
        (figures, "shirt"),
        (figures, "build"),
        (places, "family"),
        (places, "seed"),
    ):
        values = [{getattr(item, column) for item in part[split]} for split in demo.SPLITS]
        assert not values[0] & values[1], column
    assert all({place.family for place in places[split]} == set(FAMILIES[split]) for split in demo.SPLITS)


def test_what_ended_workers_had_begun_is_removed(tmp_path, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    listed = demo.recipes(demo.Rendering())[:2]
    left = tmp_path / listed[1].class_name / f".{listed[1].video}.{gone.pid}.part.mp4"
    left.parent.mkdir()
    left.touch()

    def fail(*args):
        raise CcsError("the first one fails")

    monkeypatch.setattr(demo, "encode", fail)
    with pytest.raises(CcsError, match="the first one fails"):
        demo.render_all(tmp_path, demo.Rendering(), only=listed)
    assert not left.exists()
