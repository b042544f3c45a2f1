"""`ccs predict` against the pipeline: its stages from videos to scores.h5, and the command on the same files."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import ccs
from ccs import prediction, scores
from ccs.clips.dataset import ClipSettings, TestClips, TrainClips
from ccs.datasets import __main__ as make_manifest
from ccs.datasets import manifests
from ccs.datasets.demo import encode
from ccs.evaluate import __main__ as evaluate
from ccs.features import __main__ as features
from ccs.flow import __main__ as make_flow
from ccs.flow.settings import Parameters
from ccs.frames import __main__ as frames
from ccs.frames import decode
from ccs.frames.film import check_ffmpeg, find_ffmpeg
from ccs.models.losses import LossSettings
from ccs.models.network import CCS, NetworkSettings, snippet_of
from ccs.models.snippet import Snippet
from ccs.shards.__main__ import ShardReader, pack
from ccs.stage import CcsError
from ccs.train import checkpoint, training

ROOT = Path(__file__).resolve().parent.parent
FFMPEG = find_ffmpeg()
FPS = 10
# test videos: of other sizes and shapes, with names that are not ASCII, shorter than a snippet, and one of 12 s
TESTS = {
    "spin/a b ü 自.mp4": (11, 48, 64),
    "spin/short.mp4": (2, 48, 64),
    "walk/tall.mp4": (23, 80, 50),
    "walk/long.mp4": (120, 36, 64),
}


def make_video(path: Path, num_frames: int, height: int, width: int) -> None:
    """A texture that moves and grows."""
    rng = np.random.default_rng(num_frames)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (200, 300, 3), dtype=np.uint8), (0, 0), 3)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    t = np.arange(num_frames)
    places = np.stack([100 + 8 * np.sin(t / 3), 150 + 12 * np.cos(t / 4)], axis=1).astype(int)
    shown = [picture[y - height // 2 :, x - width // 2 :][:height, :width] for y, x in places]
    encode(np.stack(shown), path, FPS, FFMPEG)


class Made:
    """A small data set that has gone through the stages, and checkpoints of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "videos"
        for name, shape in {"spin/t.mp4": (6, 48, 64), "walk/t.mp4": (6, 48, 64)}.items():
            make_video(self.root / "train" / name, *shape)
        for name, shape in TESTS.items():
            make_video(self.root / "test" / name, *shape)
        settings = {"adapter": "folder", "root": str(self.root), "shards": 1}
        self.manifest = str(folder / "manifest.csv")
        make_manifest.main(["--dataset", "made", "--settings", json.dumps(settings), "--output", self.manifest])
        self.quarantine, raw = str(folder / "quarantine.csv"), str(folder / "frames.h5")
        stage = ["--manifest", self.manifest, "--shard", "0000", "--output", raw, "--quarantine", self.quarantine]
        frames.main([*stage, "--short-side", "40", "--quality", "90"])
        flow = ["--bound", "7", "--warps", "2", "--scales", "2", "--outer-iterations", "2", "--lambda", "0.2"]
        make_flow.main(["--frames", raw, "--output", str(folder / "flow.h5"), *flow])
        self.shard = str(folder / "0000.h5")
        pack(raw, folder / "flow.h5", self.shard)
        self.reader = ShardReader([self.shard])

    def checkpoint(self, name: str, *, segments: int = 2, evaluation: dict | None = None, **network) -> str:
        """A network as at the start of training, but for a connection block that does something.

        evaluation: how its run is evaluated; None as in checkpoints of versions that did not note it.
        """
        torch.manual_seed(0)
        manifest = manifests.read(self.manifest, 1)
        settings = NetworkSettings(**({"backbone": "shufflenet_v2_x0_5", "weights": "none"} | network))
        clips = ClipSettings(segments=segments, input_size=64)
        model = CCS(len(manifest.classes), settings, segments=segments)
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                torch.nn.init.ones_(module.weight)
                module.momentum = None  # the mean over what it sees
        # batch norm that knows these videos: without it a random network sees no difference between them
        known = TestClips(self.reader, manifest.videos, clips, snippet=snippet_of(settings), segments=segments, crops=1)
        rgb, flow, _ = (torch.cat(list(x)) for x in zip(*((r, f, torch.zeros(1)) for r, f, _ in known), strict=True))
        with torch.no_grad():
            model.train()(rgb, flow)
        every = training.Settings(settings, clips, LossSettings(ranking=settings.shared), training.TrainSettings())
        state = {
            "model": model.state_dict(),
            **{key: {} for key in ("optimizer", "schedule", "random")},
            **{"epoch": 1, "dataset": "made", "split": 1, "run": "ccs", "seed": 0, "classes": list(manifest.classes)},
            "videos": manifests.split_digest(manifest),
            "bound": self.reader.bound,
            "preparation": self.reader.preparation,
            "settings": json.dumps(dataclasses.asdict(every)),
        } | ({} if evaluation is None else {"evaluate": evaluation})
        path = self.folder / f"{name}.pt"
        checkpoint.write(path, state)
        return str(path)

    def evaluate(self, path: str, *flags: str) -> scores.Scores:
        output = f"{path}.scores.h5"
        where = ["--manifest", self.manifest, "--shards", self.shard, "--quarantine", self.quarantine]
        evaluate.main(["--checkpoint", path, *where, "--output", output, *flags])
        return scores.read(output)

    @property
    def videos(self) -> dict[str, str]:
        """Video id in the manifest -> its file."""
        return {v.video: str(self.root / "test" / name) for name in TESTS for v in self._of(name)}

    def _of(self, name: str) -> list[manifests.Video]:
        return [v for v in manifests.read(self.manifest, 1).videos if v.path.endswith(f"test/{name}")]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("network", "flags", "fusion"),
    [
        ({}, ["--segments", "3", "--crops", "10"], (1, 1.5)),
        ({}, [], (1, 1.5)),
        ({"backbone": "i3d_x0_25", "flow_length": 8}, ["--segments", "2"], (1, 1)),
        ({"aggregation": "trn_multiscale", "connection": "none"}, [], (1, 1)),
        ({"shared": False}, ["--segments", "2", "--fusion", "0.3", "2"], (0.3, 2)),
        ({"evaluation": {"segments": 4, "crops": 10, "fusion": (2.0, 1.0)}}, [], (2, 1)),
        (
            {"evaluation": {"segments": 4, "crops": 10, "fusion": (2.0, 1.0)}},
            ["--segments", "3", "--crops", "1", "--fusion", "1", "3"],
            (1, 3),
        ),
    ],
    ids=["tsn-10-crops", "tsn-defaults", "i3d", "trn", "fusion", "noted", "noted-and-flags"],
)
def test_logits_are_those_of_the_pipeline(made, tmp_path, capsys, network, flags, fusion):
    path = made.checkpoint("network", **network)
    noted = network.get("evaluation") or {"segments": 2 if "aggregation" in network else 25, "crops": 1}
    segments = flags[1] if "--segments" in flags else str(noted["segments"])
    crops = flags[3] if "--crops" in flags else str(noted["crops"])
    wanted = made.evaluate(path, "--segments", segments, "--crops", crops, "--fusion", *map(str, fusion))
    videos = made.videos
    output = tmp_path / "o.csv"
    prediction.main([*videos.values(), "--checkpoint", path, "--output", str(output), *flags])
    assert ("did not note how its run is evaluated" in capsys.readouterr().err) == ("evaluation" not in network)
    rows = read_csv(output)
    assert list(rows[0]) == ["video", "stream", "rank", "class", "probability", "logit"]
    assert len(rows) == len(videos) * 3 * 2
    for stream, key in (("RGB", "rgb"), ("Flow", "flow"), ("RGB+Flow", "fused")):
        logits = scores.logits(wanted, key)
        spread = np.ptp(logits, axis=0).max()
        assert spread > 0.02  # else the videos would look alike to this network, and the test would say nothing
        for row, video in enumerate(wanted.video):
            found = {r["class"]: r for r in rows if (r["video"], r["stream"]) == (videos[video], stream)}
            values = np.array([float(found[name]["logit"]) for name in wanted.classes])
            np.testing.assert_allclose(values, logits[row], atol=1e-5, rtol=1e-5)
            share = np.exp(values) / np.exp(values).sum()
            np.testing.assert_allclose([float(found[name]["probability"]) for name in wanted.classes], share, rtol=1e-6)
            order = [wanted.classes[c] for c in np.argsort(-logits[row])]
            assert [name for name, r in sorted(found.items(), key=lambda item: int(item[1]["rank"]))] == order


def test_the_page_on_python_does_what_it_says(made, tmp_path, capsys):
    """Its lines, in another process and the folder of a project; what they say against the command's numbers."""
    run, data = tmp_path / "results/runs/demo/split1/ccs", tmp_path / "data/demo"
    for place, target in {
        run / "seed0/checkpoint.pt": made.checkpoint("page", segments=3, evaluation={"segments": 4}),
        data / "shards/0000.h5": made.shard,
        data / "manifest.csv": made.manifest,
        data / "quarantine.csv": made.quarantine,
        tmp_path / "videos/a.mp4": made.root / "test/walk/tall.mp4",
        tmp_path / "videos/b.mp4": made.root / "test/spin/short.mp4",
    }.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    (tmp_path / "page.py").write_text("\n".join(blocks))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, *_, bad = done.stdout.splitlines()
    assert first.split()[0] == "2"  # training videos
    assert bad.startswith("videos/gone.mp4: No such file")
    given = [str(tmp_path / "videos/a.mp4"), "--checkpoint", str(run), "--output", str(tmp_path / "o.csv")]
    prediction.main(given)
    wanted = {(row["stream"], row["class"]): float(row["probability"]) for row in read_csv(tmp_path / "o.csv")}
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("videos/a.mp4 "))
    _, name, *found = line.split()
    assert [wanted[stream, name] for stream in ("RGB", "Flow", "RGB+Flow")] == [pytest.approx(float(x)) for x in found]
    assert wanted["RGB+Flow", name] >= 0.5


def test_clips_of_ones_own_are_those_of_training_and_evaluation(made):
    """Whatever loads them, also where workers outlive an epoch."""
    clips = ccs.Clips(made.shard, made.manifest, segments=2, input_size=48, seed=3)
    settings = ClipSettings(segments=2, input_size=48)
    train = [video for video in manifests.read(made.manifest, 1).videos if video.split == "train"]
    of_training = TrainClips(made.reader, train, settings, snippet=Snippet(5), seed=3)
    assert clips.videos == [video.video for video in train]
    workers = DataLoader(clips, batch_size=2, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in (0, 4):
        clips.set_epoch(epoch)
        ((rgb, flow, label),) = workers
        for row in range(2):
            wanted = of_training[row, epoch, 0]
            assert torch.equal(rgb[row], wanted[0])
            assert torch.equal(flow[row], wanted[1])
            assert int(label[row]) == wanted[2] == clips.labels[row]
        seen.append(rgb)
    assert not torch.equal(*seen)
    tests = ccs.Clips([made.shard], made.manifest, part="test", segments=2, input_size=48, all_frames=True)
    assert [item[0].shape for item in tests] == [(2, 5, 3, 48, 48)] * len(TESTS)
    first = [video for video in manifests.read(made.manifest, 1).videos if video.video == tests.videos[0]]
    central = TestClips(made.reader, first, settings, snippet=Snippet(5, all_frames=True), segments=2, crops=1)
    assert torch.equal(tests[0][1], central[0][1][0])
    for given, message in (
        ({"part": "val"}, "expected val videos in split 1, found none"),
        ({"segments": 0}, "segments"),
        ({"quarantine": "nowhere.csv"}, "nowhere.csv: expected a list of bad videos"),
        ({"flow_length": 0}, "flow_length: expected a whole number of 1 or more, found 0"),
        ({"seed": -1}, "seed: expected a whole number of 0 or more, found -1"),
    ):
        with pytest.raises(ccs.CcsError, match=message):
            ccs.Clips([made.shard], made.manifest, **given)


def test_what_is_told_of_the_preprocessing_makes_the_clips(made):
    """A clip by nothing but that, with OpenCV."""
    told = ccs.load(made.checkpoint("told", segments=3)).preprocessing
    shapes = [told["inputs"][name]["shape"][1:] for name in ("rgb", "flow")]
    assert shapes == [[3, 1, 3, 64, 64], [3, 5, 2, 64, 64]]
    assert (told["inputs"]["flow"]["bound"], told["frames"]["short_side"]) == (7, 40)
    start = re.search(r"frame (floor\(.*\)) for segment k", told["snippet"]["start"])[1]
    number = int(re.fullmatch(r"1, number (\d+) from the start on", told["snippet"]["frames"])[1])
    share = float(re.match(r"[\d.]+", told["crop"]["side"])[0])
    tests = ccs.Clips(made.shard, made.manifest, part="test", segments=3, input_size=64)
    for index in range(len(tests)):
        video, (rgb, flow, _) = tests.videos[index], tests[index]
        T = made.reader.num_frames[video]
        for k in range(3):
            first = eval(start, {"floor": math.floor, "max": max, "k": k, "T": T})
            frame = made.reader.frames(video, [min(first + number, T - 1)])[0]
            pairs = made.reader.flow(video, [min(first + t, T - 2) for t in range(5)])
            side = round(share * min(frame.shape[:2]))
            y, x = ((length - side) // 2 for length in frame.shape[:2])
            for wanted, found in ((frame.transpose(2, 0, 1), rgb[k, 0]), *zip(pairs, flow[k], strict=True)):
                planes = [cv2.resize(each[y : y + side, x : x + side], (64, 64)) for each in wanted]  # bilinear
                assert np.abs(np.stack(planes).astype(int) - found.numpy()).max() <= 1


def test_flow_is_computed_for_the_pairs_that_are_looked_at_alone(made, monkeypatch):
    computed = []
    compute = prediction.shard.compute

    def counted(task, **settings):
        computed.extend((piece.video.key, piece.first + k) for piece in task for k in range(len(piece.jpegs) - 1))
        return compute(task, **settings)

    monkeypatch.setattr(prediction.shard, "compute", counted)
    video, path = next((v, p) for v, p in made.videos.items() if p.endswith("long.mp4"))
    found = made.reader.preparation["flow"]
    parameters = Parameters.from_names({name: found[name] for name in found if name not in ("backend", "bound")})
    preparation = prediction.Preparation(decode.FramesSettings(40, None, 90), parameters, 7.0, "native", 2)
    tool = check_ffmpeg(FFMPEG)
    ((_, decoded),) = decode.extract([manifests.VideoFile(path, path)], preparation.frames, tool)
    reader = prediction.VideoReader(path, decoded, preparation)
    assert reader.num_frames == {path: made.reader.num_frames[video]} == {path: 120}
    wanted = [118, 3, 4, 3, 60, *range(20, 60)]
    np.testing.assert_array_equal(reader.flow(path, wanted), made.reader.flow(video, wanted))
    assert len(computed) == len(set(wanted))
    np.testing.assert_array_equal(reader.flow(path, [5, 4]), made.reader.flow(video, [5, 4]))
    assert len(computed) == len(set(wanted)) + 1
    np.testing.assert_array_equal(reader.frames(path, [119, 0]), made.reader.frames(video, [119, 0]))


def decoded(path: Path) -> tuple[np.ndarray, str]:
    """All frames, uint8 (T, H, W, 3), and what ffmpeg says of the video stream."""
    said = subprocess.run([FFMPEG, "-i", path], capture_output=True, text=True, check=False).stderr
    line = next(line for line in said.splitlines() if "Video:" in line)
    width, height = map(int, re.search(r" ([1-9]\d+)x(\d+)", line).groups())
    raw = [FFMPEG, "-v", "error", "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(raw, capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3), line


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_film_of_maps(made, tmp_path, stream, capsys):
    path = made.checkpoint("film")
    names = ["spin/a b ü 自.mp4", "walk/long.mp4"]
    videos = [str(made.root / "test" / name) for name in names]
    given = ["--checkpoint", path, "--segments", "2", "--cam", str(tmp_path / "maps"), "--cam-stream", stream]
    prediction.main([*videos, *given, "--backend", "native", "--workers", "2"])
    assert sorted(os.listdir(tmp_path / "maps")) == ["a b ü 自.mp4", "long.mp4"]
    for name in names:
        num_frames, height, width = TESTS[name]
        film, line = decoded(tmp_path / "maps" / Path(name).name)
        assert "h264" in line
        assert "yuv420p" in line
        assert "10 fps" in line
        side = 40 / min(height, width)  # prepared frames, enlarged by a whole number for the caption
        wide = 2 * round(side * width / 2)
        scale = -(-320 // wide)
        assert len(film) == num_frames
        assert film.shape[2] == wide * scale
        assert film.shape[1] >= 40 * scale + 20
        foot = film[0, 40 * scale + 2 :]
        assert foot.max() > 240  # black on white
        assert foot.min() < 60
        video = made.reader.frames(next(v for v, p in made.videos.items() if p.endswith(name)), range(num_frames))
        small = np.stack([cv2.resize(f[: 40 * scale], (wide, 40), interpolation=cv2.INTER_AREA) for f in film])
        change = np.abs(small.astype(float) - video).mean(axis=(0, 3))
        assert change[8:32, wide // 2 - 10 : wide // 2 + 10].mean() > 10  # the centre crop is coloured, of 35 px
        assert change[:, : (wide - 35) // 2 - 1].mean() < 5  # and nothing beside it
    assert "RGB+Flow (1:1.5)" in capsys.readouterr().out


def test_maps_along_a_long_video(made):
    classifier = prediction.load(made.checkpoint("maps"), segments=4)
    path = str(made.root / "test/walk/long.mp4")
    preparation = classifier.preparation()
    ((_, decoded),) = decode.extract([manifests.VideoFile(path, path)], preparation.frames, check_ffmpeg(FFMPEG))
    reader = prediction.VideoReader(path, decoded, preparation)
    maps, times = classifier.maps(reader, stream="rgb", label=1)
    assert len(maps) == len(times) == 12  # a second each
    assert (np.diff(times) > 0).all()
    logits = classifier.logits(reader)
    head = classifier.trained.model.head
    bias = float(head.classify.weight[1] @ head.embed.bias + head.classify.bias[1])
    # the middle one of the three groups is the clip that is classified: its maps add up to the logit
    assert maps[1::3].sum() + bias == pytest.approx(logits.rgb[1], abs=1e-4)


class Part(prediction.VideoReader):
    """The frames and pairs of a video from `begin` on: `num_frames` of them."""

    def __init__(self, whole: prediction.VideoReader, begin: int, num_frames: int) -> None:
        super().__init__(whole.path, whole.decoded, whole.preparation)
        self.begin, self.num_frames = begin, {whole.path: num_frames}

    def frames(self, video, indices):
        return super().frames(video, [self.begin + index for index in indices])

    def flow(self, video, indices):
        return super().flow(video, [self.begin + index for index in indices])


def test_features_of_a_window_are_those_of_a_video_that_it_is_all_of(made, tmp_path):
    """`ccs features` with a checkpoint: its z, classified, gives the logits of `predict` for these frames alone."""
    file, path = made.checkpoint("features"), str(made.root / "test/walk/tall.mp4")
    windows = ["--stack", "10", "--step", "4", "--workers", "1", "--batch", "3"]
    for layer in ("z", "pooled"):
        features.main([path, "--weights", file, "-o", str(tmp_path / layer), *windows, "--layer", layer])
    found = {layer: [np.load(tmp_path / layer / f"tall_{s}.npy") for s in ("rgb", "flow")] for layer in ("z", "pooled")}
    assert [x.shape for x in found["z"] + found["pooled"]] == 2 * [(4, 512)] + 2 * [(4, 1024)]

    classifier = prediction.load(file, segments=2)
    preparation = classifier.preparation()
    ((_, decoded),) = decode.extract([manifests.VideoFile(path, path)], preparation.frames, check_ffmpeg(FFMPEG))
    whole, head = prediction.VideoReader(path, decoded, preparation), classifier.trained.model.head
    for window, begin in enumerate((0, 4, 8, 12)):  # 23 frames have 22 pairs, of which ten are a window
        expected = classifier.logits(Part(whole, begin, 11))
        for stream, logits in enumerate((expected.rgb, expected.flow)):
            z, pooled = (torch.from_numpy(found[layer][stream][window]) for layer in ("z", "pooled"))
            np.testing.assert_allclose(head.classify(z).detach(), logits, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(head.embed(pooled).detach(), z, rtol=1e-4, atol=1e-4)
    times = np.load(tmp_path / "z" / "tall_times.npy")
    np.testing.assert_allclose(times, [[begin / FPS, (begin + 10) / FPS] for begin in (0, 4, 8, 12)], atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--short-side", "64", "--bound", "9"], "--short-side, --bound: a checkpoint says how its videos are"),
        (["--warps", "3"], "the TV-L1 settings: a checkpoint says how"),
        (["--stack", "4"], "--stack: this network looks at 5 neighbouring pairs of frames, expected as many or more"),
    ],
)
def test_flags_that_a_checkpoint_contradicts(made, tmp_path, flags, message):
    path = str(made.root / "test/walk/tall.mp4")
    with pytest.raises(CcsError, match=message):
        features.main([path, "--weights", made.checkpoint("features"), "-o", str(tmp_path), *flags])


def test_report_and_bad_videos(made, tmp_path, capsys):
    bad, good = tmp_path / "bad.mp4", str(made.root / "test/spin/short.mp4")
    bad.write_bytes(b"no video")
    output = tmp_path / "o.csv"
    given = ["--checkpoint", made.checkpoint("report"), "--output", str(output), "--top", "1"]
    with pytest.raises(CcsError, match="1 of 2 videos could not be classified"):
        prediction.main([str(bad), good, *given])
    out, err = capsys.readouterr()
    assert f"ccs: predict: {bad}: not a video that ffmpeg can decode" in err
    assert out.startswith(f"{good}: 2 frames, 0.20 s\n")
    assert re.search(r"^ +RGB +Flow +RGB\+Flow \(1:1\.5\)$", out, re.MULTILINE)
    assert len(re.findall(r"\d+\.\d %", out)) == 3
    assert {row["video"] for row in read_csv(output)} == {good}


def seconds_of(video: Path) -> float:
    """When its last packet's time is over, by ffmpeg's own list of packets."""
    line = [FFMPEG, "-v", "error", "-i", video, "-map", "0:v", "-c", "copy", "-f", "framecrc", "-"]
    listed = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    base = re.search(r"#tb 0: (\d+)/(\d+)", listed)
    shown = [list(map(int, each.split(",")[2:4])) for each in listed.splitlines() if each.startswith("0,")]
    return max(map(sum, shown)) * int(base[1]) / int(base[2])


def test_a_variable_frame_rate_keeps_its_time(made, tmp_path, capsys):
    """Slow motion of a phone: two seconds at 30 frames a second, then half a second at 120."""
    video = tmp_path / "slow.mp4"
    times = "settb=1/90000,setpts='if(lt(N,60),N*3000,60*3000+(N-60)*750)'"
    line = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=30", "-frames:v", "120", "-vf", times]
    line += ["-fps_mode", "passthrough", "-enc_time_base", "1/90000", "-c:v", "libx264", video]
    subprocess.run(line, check=True)
    films, given = tmp_path / "films", ["--checkpoint", made.checkpoint("slow"), "--segments", "2"]
    prediction.main([str(video), "--cam", str(films), *given])
    assert "120 frames, 2.50 s" in capsys.readouterr().out
    assert seconds_of(films / "slow.mp4") == pytest.approx(2.5, abs=0.02)
    # what is shown after one second of the film is what the video shows then, frame 30 of 120
    frame = [FFMPEG, "-v", "error", "-ss", "1.001", "-i", films / "slow.mp4", "-frames:v", "1", "-f", "image2", "-y"]
    subprocess.run([*frame, tmp_path / "after.png"], check=True)
    subprocess.run([FFMPEG, "-v", "error", "-i", video, "-vf", "select=gte(n\\,29)*lte(n\\,32)", "-fps_mode",
                    "passthrough", tmp_path / "frame%d.png"], check=True)  # fmt: skip
    shown = cv2.imread(str(tmp_path / "after.png"))
    others = [cv2.imread(str(tmp_path / f"frame{n}.png")) for n in range(1, 5)]
    grey = cv2.cvtColor(shown, cv2.COLOR_BGR2GRAY)[: shown.shape[1] * 48 // 64]
    small = cv2.resize(grey, (64, 48), interpolation=cv2.INTER_AREA).astype(float)
    fits = [np.corrcoef(small.ravel(), cv2.cvtColor(o, cv2.COLOR_BGR2GRAY).ravel())[0, 1] for o in others]
    assert int(np.argmax(fits)) in (1, 2)  # frame 30, or 31 by rounding


def test_directories_lists_and_the_folder_of_a_run(made, tmp_path, capsys):
    """The same rows as of the files named one by one; films are named as the outputs of `ccs flow`."""
    checkpoint_file = made.checkpoint("run")
    files = sorted(str(path) for path in (made.root / "test").rglob("*.mp4"))
    wanted = tmp_path / "files.csv"
    prediction.main([*files, "--checkpoint", checkpoint_file, "--output", str(wanted), "--segments", "2"])
    for seed in (0, 3):
        (tmp_path / f"run/seed{seed}").mkdir(parents=True)
    (tmp_path / "run/seed3/checkpoint.pt").symlink_to(checkpoint_file)
    (tmp_path / "list.txt").write_text("".join(f"{path} 1\n" for path in files))
    for number, given in enumerate((str(made.root / "test"), str(tmp_path / "list.txt"))):
        output = tmp_path / f"{number}.csv"
        prediction.main([given, "--checkpoint", str(tmp_path / "run"), "--output", str(output), "--segments", "2"])
        assert sorted(map(tuple, map(dict.items, read_csv(output)))) == sorted(
            map(tuple, map(dict.items, read_csv(wanted)))
        )
    (tmp_path / "run/seed0/checkpoint.pt").symlink_to(checkpoint_file)
    capsys.readouterr()
    (tmp_path / "some").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"some/{name}").mkdir()
        (tmp_path / f"some/{name}/short.mp4").write_bytes((made.root / "test/spin/short.mp4").read_bytes())
    flags = ["--cam", str(tmp_path / "films"), "--segments", "2"]
    prediction.main([str(tmp_path / "some"), "--checkpoint", str(tmp_path / "run"), *flags])
    assert (tmp_path / "films/a/short.mp4").is_file()
    assert (tmp_path / "films/b/short.mp4").is_file()
    assert f"ccs: {tmp_path / 'run'} has 2 seeds: " in capsys.readouterr().err


def test_a_folder_of_frames_is_classified_as_the_video_that_they_are_of(made, tmp_path, capsys):
    """Its frames are those of a frames shard, which it takes to the byte; flow beside them is not looked at."""
    video, tool = str(made.root / "test/spin/short.mp4"), check_ffmpeg(find_ffmpeg())
    checkpoint_file = made.checkpoint("stills")
    settings = prediction.FramesSettings(**checkpoint.read(checkpoint_file)["preparation"]["frames"])
    ((_, whole),) = decode.extract([manifests.VideoFile("a", video)], settings, tool)
    folder = tmp_path / "in" / "short"
    folder.mkdir(parents=True)
    for number, (start, stop) in enumerate(pairwise(whole.offset), start=1):
        (folder / f"img_{number:05d}.jpg").write_bytes(whole.jpeg[start:stop].tobytes())
    flags = ["--checkpoint", checkpoint_file, "--segments", "2", "--output"]
    prediction.main([video, *flags, str(tmp_path / "video.csv")])
    prediction.main([str(tmp_path / "in"), *flags, str(tmp_path / "frames.csv"), "--cam", str(tmp_path / "films")])
    assert f"{folder}: {len(whole.offset) - 1} frames, unknown duration" in capsys.readouterr().out
    of_video, of_frames = (read_csv(tmp_path / name) for name in ("video.csv", "frames.csv"))
    assert [row | {"video": ""} for row in of_frames] == [row | {"video": ""} for row in of_video]
    assert (tmp_path / "films/short.mp4").stat().st_size
    for number in range(1, len(whole.offset) - 1):
        for axis in "xy":
            cv2.imwrite(str(folder / f"flow_{axis}_{number:05d}.jpg"), np.zeros((48, 64), np.uint8))
    prediction.main([str(folder), *flags, str(tmp_path / "frames.csv")])
    assert "short: the flow that is there is not used" in capsys.readouterr().err
    assert read_csv(tmp_path / "frames.csv") == of_frames


def test_one_bad_item_costs_only_itself(made, tmp_path, capsys, monkeypatch):
    """A file that goes while others are classified, and a name that is not UTF-8."""
    good = made.root / "test/spin/short.mp4"
    names = [tmp_path / f"{name}.mp4" for name in "abcd"]
    for path in names:
        path.write_bytes(good.read_bytes())
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")
    Path(odd).write_bytes(good.read_bytes())
    real = decode.extract

    def vanishing(videos, *rest):
        names[2].unlink()  # after the flags were checked
        yield from real(videos, *rest)

    monkeypatch.setattr(decode, "extract", vanishing)
    output = tmp_path / "o.csv"
    with pytest.raises(CcsError, match="2 of 5 videos could not be classified"):
        prediction.main([*map(str, names), odd, "--checkpoint", made.checkpoint("one"), "--output", str(output)])
    assert {row["video"] for row in read_csv(output)} == {str(names[n]) for n in (0, 1, 3)}
    said = capsys.readouterr().err
    assert f"{names[2]}: " in said
    assert r"\xff.mp4: its path is not UTF-8" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere.mp4"], "nowhere.mp4: expected a video, a directory of videos or a list of videos"),
        (["{empty}"], "empty: no video in this directory or below"),
        (["{good}", "--checkpoint", "{empty}"], "found no seed*/checkpoint.pt in it"),
        (["{good}", "--top", "0"], "--top: expected 1 or more, found 0"),
        (["{good}", "--cam", "d", "--crops", "10"], "--cam: maps are of the one centre crop"),
        (
            ["{good}", "--cam", "d", "--checkpoint", "{ten}"],
            "expected --crops 1, found 10",
        ),
        (
            ["{good}", "--segments", "251"],
            "segments: expected at most 250 to classify a video, held in memory at once; found 251",
        ),
        (["{good}", "--checkpoint", "{many}"], "found 300, of the flag or the argument, or by which the run is"),
        (["{good}", "--checkpoint", "{later}"], "expected settings to evaluate it with, found {{'views': 3}}"),
        (["{good}", "{other}", "--cam", "d"], "would both be written as short: rename or leave out one"),
        (["{good}", "--cam", "{folder}"], "would be replaced"),
        (["{good}", "--cam", "{good}"], "its folder cannot be made"),
        (["{good}", "--output", "{good}/o.csv"], "its folder cannot be made"),
        (["{good}", "--fusion", "-1", "1"], "expected 2 values, each a number of 0 or more"),
        (["{good}", "--checkpoint", "nowhere.pt"], "nowhere.pt: no such checkpoint"),
        (
            ["{good}", "--checkpoint", "{good}"],
            "expected a checkpoint of ccs train, found a file that cannot be read as one",
        ),
        (["{good}", "--checkpoint", "{trn}", "--segments", "3"], "expected a multiple of 2, found 3"),
        (["{good}", "--checkpoint", "{old}"], "expected the settings of the stages frames and flow"),
        (["{good}", "--checkpoint", "{inflated}"], "(inflated weights that were trained with zeros around a video"),
    ],
)
def test_errors_say_what_to_do(made, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    good = made.root / "test/spin/short.mp4"
    path = made.checkpoint("errors")
    state = checkpoint.read(path)
    checkpoint.write(tmp_path / "old.pt", {**state, "preparation": {}})
    checkpoint.write(tmp_path / "ten.pt", {**state, "evaluate": {"crops": 10}})
    checkpoint.write(tmp_path / "many.pt", {**state, "evaluate": {"segments": 300}})
    checkpoint.write(tmp_path / "later.pt", {**state, "evaluate": {"views": 3}})
    settings = json.loads(state["settings"])
    settings["network"] |= {"backbone": "i3d", "weights": "imagenet"}
    checkpoint.write(tmp_path / "inflated.pt", {**state, "settings": json.dumps(settings)})
    (tmp_path / "other").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "other/short.mp4").write_bytes(good.read_bytes())
    names = {"good": good, "other": tmp_path / "other/short.mp4", "folder": good.parent, "old": tmp_path / "old.pt"}
    names["empty"] = tmp_path / "empty"
    names |= {name: tmp_path / f"{name}.pt" for name in ("ten", "many", "later", "inflated")}
    names["trn"] = made.checkpoint("trn", aggregation="trn") if "{trn}" in flags else ""
    with pytest.raises(CcsError, match=re.escape(message.format())):
        prediction.main(["--checkpoint", path, *(flag.format(**names) for flag in flags)])
    assert good.exists()
    assert not (tmp_path / "d").exists()
