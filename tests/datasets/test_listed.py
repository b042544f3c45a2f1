from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from ccs.datasets import adapters, manifests
from ccs.stage import CcsError


def load(split=1, **settings):
    return adapters.load(
        "mine",
        {
            "adapter": "list",
            **{key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
        },
        split,
    )


def parts(manifest) -> dict[str, str]:
    return {video.video: video.split for video in manifest.videos}


def table(*rows) -> str:
    return "".join(",".join(row) + "\n" for row in rows)


def test_real_clips_divided_by_person(real_data):
    """Nine people, each whole in one of five folds; counted from the list itself."""
    data = real_data / "weizmann"
    with open(data / "list.csv", newline="") as file:
        rows = {os.path.splitext(row["path"])[0]: row for row in csv.DictReader(file)}
    folds = [load(split, list=data / "list.csv", folds=5) for split in range(1, 6)]
    tested = Counter(video.video for fold in folds for video in fold.videos if video.split == "test")
    assert tested == dict.fromkeys(rows, 1)  # every video, each in exactly one
    for fold in folds:
        people = defaultdict(set)
        for video in fold.videos:
            people[video.split].add(rows[video.video]["group"])
        assert not people["test"] & people["train"]
        assert people["test"] | people["train"] == {row["group"] for row in rows.values()}
        assert {video.video: video.class_name for video in fold.videos} == {k: r["label"] for k, r in rows.items()}
        assert len({video.class_name for video in fold.videos if video.split == "test"}) == len(fold.classes) == 10
    assert len({row["group"] for row in rows.values()}) == 9
    assert adapters.splits({"adapter": "list", "folds": 5}) == (1, 2, 3, 4, 5)


def test_columns_decide_and_validation_is_taken_by_group(tree, capsys):
    header = ("path", "label", "split", "group")
    rows = [(f"v/{i:02d}.mp4", "ab"[i % 2], "Training", f"g{i // 4}") for i in range(20)]
    rows += [("v/t.mp4", "b", "testing", "h"), ("v/u.mp4", "", "unlabelled", ""), ("v/x.mp4", "a", "unused", "")]
    videos = [*(row[0] for row in rows), "v/unlisted.mp4", "elsewhere/unlisted.mp4"]
    root = tree({**dict.fromkeys(videos, ""), "lists/all.csv": table(header, *rows)})
    manifest = load(list=root / "lists/all.csv", root=root, val_fraction=0.4)
    # no other folder is looked into
    assert f"1 videos in the listed folders of {root} are in none of the lists" in capsys.readouterr().err
    assert manifest.classes == ("a", "b")
    assert Counter(parts(manifest).values()) == {"train": 12, "val": 8, "test": 1, "unlabelled": 1, "unused": 1}
    sides = defaultdict(set)
    for path, _, _, group in rows[:20]:
        sides[group].add(parts(manifest)[path.removesuffix(".mp4")])
    assert all(len(side) == 1 for side in sides.values())
    (unlabelled,) = (video for video in manifest.videos if video.split == "unlabelled")
    assert (unlabelled.label, unlabelled.class_name) == (-1, "")


def test_a_list_for_each_part_with_numbers_for_labels(tree):
    videos = [f"v{i}.avi" for i in range(6)]
    root = tree(
        {
            **{f"videos/{name}": "" for name in videos},
            "train.txt": "v0.avi 0\nv1.avi 2\nv2.avi 0\n",  # mmaction2's form
            "val.txt": "v3.avi 2\n",
            "test.txt": "v4.avi 1\nv5.mp4 0\n",  # of another extension than the file
            "classes.txt": "run\nwalk\njump\n",
            "classInd.txt": "1 walk\r\n2 jump\r\n",
        }
    )
    of_parts = {part: root / f"{part}.txt" for part in ("train", "val", "test")}
    manifest = load(**of_parts, root=root / "videos")
    assert parts(manifest) == {"v0": "train", "v1": "train", "v2": "train", "v3": "val", "v4": "test", "v5": "test"}
    assert manifest.classes == ("0", "1", "2")
    assert {video.video: video.label for video in manifest.videos} == {
        "v0": 0, "v1": 2, "v2": 0, "v3": 2, "v4": 1, "v5": 0
    }  # fmt: skip
    named = load(**of_parts, root=root / "videos", classes=root / "classes.txt")
    assert [video.class_name for video in named.videos] == ["run", "jump", "run", "jump", "walk", "run"]
    # UCF-101's form counts from 1, as its lists do
    with pytest.raises(CcsError, match=r"train\.txt, line 1: unknown class '0': .*classInd.txt has 2 others, numbered"):
        load(**of_parts, root=root / "videos", classes=root / "classInd.txt")
    tree({"train.txt": "v0.avi 1\nv1.avi 2\n", "val.txt": "v3.avi 2", "test.txt": "v4.avi jump"})
    named = load(**of_parts, root=root / "videos", classes=root / "classInd.txt")
    assert [video.class_name for video in named.videos] == ["walk", "jump", "jump", "jump"]


def test_clips_of_one_file_stay_together_and_are_kept_in_the_manifest(tree, tmp_path):
    rows = [(f"{i}.mp4", "ab"[i % 2], str(t), str(t + 2.5)) for i in range(10) for t in (0, 2.5)]
    root = tree({**{f"{i}.mp4": "x" for i in range(10)}, "list.csv": table(("path", "label", "start", "end"), *rows)})
    manifest = load(list=root / "list.csv", test_fraction=0.4)
    sides = defaultdict(set)
    for video in manifest.videos:
        sides[video.path].add(video.split)
    assert len(manifest.videos) == 20
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(video.split for video in manifest.videos) == {"train": 12, "test": 8}
    assert [v[:2] + v.extent for v in manifest.videos[:2]] == [
        ("0@0-2.5", f"{root}/0.mp4", 0.0, 2.5, None),
        ("0@2.5-5", f"{root}/0.mp4", 2.5, 5.0, None),
    ]
    manifests.write(tmp_path / "manifest.csv", {1: manifest}, 1)
    assert manifests.read(tmp_path / "manifest.csv") == manifest
    assert manifests.read_shard(tmp_path / "manifest.csv", "0000")[1][1] == ("0@2.5-5", f"{root}/0.mp4", 2.5, 5.0, None)
    # frames are decoded anew where another clip is meant
    tree({"list.csv": table(("path", "label", "start", "end"), ("0.mp4", "a", "0", "2.6"), *rows[1:])})
    moved = load(list=root / "list.csv", test_fraction=0.4)
    assert manifests.shard_digests(moved, 1) != manifests.shard_digests(manifest, 1)


def test_absent_videos_beyond_what_is_allowed_are_an_error(tree):
    root = tree({**{f"v/{i}.mp4": "" for i in range(8)}, "list.txt": "".join(f"v/{i}.mp4 a\n" for i in range(10))})
    with pytest.raises(CcsError, match=r"2 of 10 listed videos are absent.*8\.mp4 \(.*list\.txt, line 9\)"):
        load(list=root / "list.txt")
    assert len(load(list=root / "list.txt", max_absent_fraction=0.2).videos) == 8


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, r"expected a list of the videos \(list\), or one to train and one to test on, found none"),
        ({"list": "a", "train": "b"}, "found both: remove one of them"),
        ({"train": "a", "val": "b"}, r"expected lists train and test .*, found only train, val"),
        ({"list": "once.txt", "root": "v"}, "1 is listed a second time, first in .*once.txt, line 1"),
        ({"list": "bare.txt", "root": "v"}, "bare.txt, line 1: expected a label behind the path"),
        ({"list": "split.csv", "root": "v"}, "line 3: expected a split, one of train, .*, found 'dev'"),
        ({"list": "split.csv", "root": "v", "folds": 2}, "the column split divides the videos already"),
        ({"list": "only.csv", "root": "v"}, "expected videos with the splits train and test, found train"),
        ({"list": "times.csv", "root": "v"}, "line 2: expected a start of 0 s or more and an end after it"),
    ],
)
def test_what_a_list_cannot_mean_is_an_error(tree, monkeypatch, settings, found):
    monkeypatch.chdir(
        tree({
            "v/1.mp4": "", "v/2.mp4": "", "once.txt": "1.mp4 a\n1.mp4 b\n", "bare.txt": "1.mp4\n",
            "split.csv": "path,label,split\n1.mp4,a,train\n2.mp4,a,dev\n",
            "only.csv": "path,label,split\n1.mp4,a,train\n", "times.csv": "path,label,start,end\n1.mp4,a,3,2\n",
        })
    )  # fmt: skip
    with pytest.raises(CcsError, match=found):
        load(**settings)
