from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ccs.datasets import adapters, manifests
from ccs.datasets.manifests import Manifest, Video
from ccs.datasets.settings import SplitSettings
from ccs.stage import CcsError

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["walk (fast)/a #1.mp4", "walk (fast)/b,c.avi", 'Übung "x"/été\u3000$(ls).webm', "NA/100%.mkv", "NA/- 'n'.MOV"]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ccs.datasets", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def videos(*rows: tuple[str, int, str]) -> tuple[Video, ...]:
    return tuple(Video(name, f"v/{name}.avi", label, "abc"[label] if label >= 0 else "", s) for name, label, s in rows)


def test_shards_are_those_that_sha256sum_gives():
    # printf %s ID | sha256sum | cut -c1-16, and that number modulo 1000 by bc
    known = {"a/b": 61, "Torwarttraining_2_(_sterreich)": 843, "ü #1": 60}
    assert {video: manifests.shard_of(video, 1000) for video in known} == known
    assert manifests.shard_of("a/b", 1) == 0


def test_shards_are_even():
    counts = pd.Series([manifests.shard_of(str(i), 16) for i in range(16000)]).value_counts()
    assert counts.between(850, 1150).all()  # 5 standard deviations
    assert len(counts) == 16


def test_manifest_survives_the_file_with_splits_labels_and_classes_without_videos(tmp_path):
    first = Manifest("d", ("a", "b, [é]", "c"), videos(("x/1", 0, "train"), ("x/2", 2, "test"), ("x/3", -1, "unused")))
    second = replace(first, videos=videos(("x/1", 0, "test"), ("x/2", 2, "val"), ("x/3", -1, "unused")))
    path = tmp_path / "manifest.csv"
    manifests.write(path, {1: first, 3: second}, 40)
    assert manifests.read(path) == first
    assert manifests.read(path, 3) == second
    assert manifests.split_digest(manifests.read(path, 3)) == manifests.split_digest(second)
    table = pd.read_csv(path, dtype={"shard": str})
    assert ",".join(table.columns) == "video,path,label,class_name,shard,split1,split3,dataset,classes"
    assert list(table.shard) == [f"{manifests.shard_of(video, 40):04d}" for video in table.video]
    assert list(table.label) == [0, 2, -1]
    with pytest.raises(CcsError, match=r"split2.*split1, split3"):
        manifests.read(path, 2)


def test_a_video_that_one_split_lacks_is_unused_there(tmp_path):
    first = Manifest("d", ("a",), videos(("x", 0, "train"), ("y", 0, "test")))
    manifests.write(tmp_path / "m.csv", {1: first, 2: replace(first, videos=videos(("x", 0, "test")))}, 1)
    assert [video.split for video in manifests.read(tmp_path / "m.csv", 2).videos] == ["test", "unused"]
    assert manifests.split_digest(manifests.read(tmp_path / "m.csv", 2)) == manifests.split_digest(
        replace(first, videos=videos(("x", 0, "test")))
    )


@pytest.mark.parametrize("other", [{"classes": ("a", "z")}, {"videos": videos(("x", 1, "train"))}])
def test_splits_that_contradict_each_other_are_refused(tmp_path, other):
    first = Manifest("d", ("a", "b"), videos(("x", 0, "train")))
    with pytest.raises(CcsError, match="split 2"):
        manifests.write(tmp_path / "m.csv", {1: first, 2: replace(first, **other)}, 1)
    for num_shards in (0, 10000, "4", None):
        with pytest.raises(CcsError, match="shards is"):
            manifests.write(tmp_path / "m.csv", {1: first}, num_shards)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "video,path,label,class_name,shard,split1,dataset,classes\nx,y\n"]
)
def test_a_file_that_is_no_manifest_is_named(tree, content):
    path = tree({"m.csv": content}) / "m.csv"
    with pytest.raises(CcsError, match=r"m\.csv.*ccs\.datasets"):
        manifests.read(path)
    with pytest.raises(CcsError, match=r"none\.csv.*no such manifest"):
        manifests.read(path.with_name("none.csv"))


@pytest.mark.parametrize(
    ("classes", "row", "message"),
    [
        ('["a", "b"]', "x,x.avi,2,c,0000,train", "x has the label 2 and the class 'c', the 2 classes have None there"),
        ('["a", "b"]', "x,x.avi,-7,,0000,train", "x has the label -7"),
        ('["a", "b"]', "x,x.avi,1,a,0000,train", "x has the label 1 and the class 'a', the 2 classes have 'b' there"),
        ('["a", "b"]', f"x,x.avi,{'1' * 5000},a,0000,train", "5000 digits"),
        ('["a", "b"]', "x,x.avi,0,a,0000,trian", "x is in 'trian' and in none of train, val"),
        ("{}", "x,x.avi,0,a,0000,train", "classes are {} and not a list of names"),
        ("[1]", "x,x.avi,0,a,0000,train", r"classes are \[1\] and not"),
        ("5", "x,x.avi,0,a,0000,train", "classes are 5 and not"),
        ("[" * 100_000, "x,x.avi,0,a,0000,train", "recursion depth"),
    ],
    ids=range(9),
)
def test_a_manifest_whose_parts_contradict_each_other_is_named(tree, classes, row, message):
    quoted = classes.replace('"', '""')
    text = f'video,path,label,class_name,shard,split1,dataset,classes\n{row},d,"{quoted}"\n'
    path = tree({"m.csv": text}) / "m.csv"
    with pytest.raises(CcsError, match=rf"m\.csv: not a manifest \(.*{message}"):
        manifests.read(path)


def test_split_digest_sees_all_that_training_depends_on_and_no_more():
    base = Manifest("d", ("a", "b"), videos(("x", 0, "train"), ("y", 1, "test"), ("z", 1, "unused")))
    digest = manifests.split_digest(base)
    changed = [
        replace(base, classes=("b", "a")),
        replace(base, videos=videos(("w", 0, "train"), ("y", 1, "test"))),
        replace(base, videos=videos(("x", 1, "train"), ("y", 1, "test"))),
        replace(base, videos=videos(("x", 0, "val"), ("y", 1, "test"))),
        replace(base, videos=videos(("x", 0, "train"), ("y", 1, "test"), ("z", 1, "train"))),
    ]
    assert len({digest, *map(manifests.split_digest, changed)}) == 1 + len(changed)
    moved = tuple(video._replace(path=f"elsewhere/{video.video}.mp4") for video in base.videos)
    assert manifests.split_digest(replace(base, videos=moved[:2])) == digest


def test_shard_digests_change_for_the_one_shard_of_a_changed_video(tree):
    names = [f"{c}/{i}.avi" for c in "ab" for i in range(30)]
    root = tree(names)
    settings = {"adapter": "folder", "root": str(root)}

    def digests() -> dict[str, str]:
        return manifests.shard_digests(adapters.load("d", settings), 8)

    before = digests()
    assert set(before) == {f"{manifests.shard_of(name[:-4], 8):04d}" for name in names}
    assert digests() == before

    def changed_by(name: str) -> set[tuple[str, str]]:
        assert {shard for shard, digest in digests().items() if before[shard] != digest} == {
            f"{manifests.shard_of(name, 8):04d}"
        }

    status = (root / "a/3.avi").stat()
    os.utime(root / "a/3.avi", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed_by("a/3")
    os.utime(root / "a/3.avi", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests() == before
    (root / "b/7.avi").write_bytes(b"1")
    os.utime(root / "b/7.avi", ns=(status.st_atime_ns, status.st_mtime_ns))
    changed_by("b/7")
    (root / "b/7.avi").write_bytes(b"")
    (root / "b/7.avi").unlink()
    changed_by("b/7")


def test_digests_of_a_vanished_video_name_it_and_of_a_rendered_one_need_no_file():
    manifest = Manifest("d", ("a",), videos(("x", 0, "train")))
    with pytest.raises(CcsError, match=r"v/x\.avi"):
        manifests.shard_digests(manifest, 3)
    assert list(manifests.shard_digests(replace(manifest, rendered=True), 3)) == [f"{manifests.shard_of('x', 3):04d}"]


def test_demo_is_loaded_before_it_is_rendered():
    settings = {"adapter": "demo", "train_per_class": 3, "test_per_class": 2}
    manifest = adapters.load("demo", settings)
    assert {video.split for video in manifest.videos} >= {"train", "test"}
    assert manifests.shard_digests(manifest, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapter": "charades"}, "'charades'.*ucf101"),
        ({}, "None.*folder"),
        ({"adapter": "folder"}, "root is not set"),
        ({"adapter": "folder", "root": "no/such"}, "no/such: .*nothing there.*correct root"),
        ({"adapter": "folder", "root": __file__}, r"test_manifest\.py: .*a file"),
        (
            {"adapter": "folder", "root": ".", "val_fraction": 1.5},
            r"val_fraction: expected a number in \[0, 1\), found 1.5",
        ),
        ({"adapter": "ucf101", "root": "."}, "lists is not set"),
    ],
)
def test_wrong_settings_are_explained(settings, message):
    with pytest.raises(CcsError, match=message):
        adapters.load("d", settings)


@pytest.mark.parametrize("name", [b"a/new\nline.mp4", b"a/latin\xe9.mp4", b"a/\ttab.mp4"])
def test_names_that_tables_cannot_hold_cost_only_themselves(tmp_path, name, capsys):
    """A class folder that is called so too: the others are taken, and each is named as Python would write it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "good.mp4").touch()
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"c\xe9"))
    with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
        found = adapters.load("d", {"adapter": "folder", "root": str(tmp_path)})
    assert [video.video for video in found.videos] == ["a/good"]
    said = capsys.readouterr().err
    for left_out in (r"'c\udce9'", repr(os.fsdecode(name[2:]))):
        assert (
            f"{left_out} (its name has a control character or is not UTF-8, which tables cannot hold: rename it)"
            in said
        )


def test_a_root_that_tables_cannot_hold_is_refused(tree):
    root = tree(["new\nline/a/1.mp4"]) / "new\nline"
    with pytest.raises(CcsError, match="rename it"):
        adapters.load("d", {"adapter": "folder", "root": str(root)})


@pytest.mark.parametrize("numbers", [[], [0], [1, 1], ["1"], "1", 1])
def test_split_numbers_are_checked(numbers):
    with pytest.raises(CcsError, match="splits: "):
        SplitSettings(root="videos", lists="lists", splits=numbers)


def test_split_numbers():
    assert adapters.splits({}) == (1,)
    assert adapters.splits({"splits": [1, 3]}) == (1, 3)


def test_command_writes_the_same_bytes_whatever_the_process_and_any_name_survives(tree):
    root = tree([f"videos/{name}" for name in NAMES])
    settings = json.dumps({"adapter": "folder", "root": str(root / "videos"), "shards": 7, "test_fraction": 0.5})
    for name, seed in (("one", "1"), ("two", "2")):
        done = command(
            *("--dataset", "mine", "--settings", settings, "--output", str(root / name / "manifest.csv")),
            PYTHONHASHSEED=seed,
        )
        assert done.returncode == 0, done.stderr
        assert "3 classes, 3 train, 0 val, 2 test" in done.stderr
    content = (root / "one" / "manifest.csv").read_bytes()
    assert content == (root / "two" / "manifest.csv").read_bytes()
    manifest = manifests.read(root / "one" / "manifest.csv")
    assert manifest == adapters.load("mine", json.loads(settings))
    assert {video.path for video in manifest.videos} == {str(root / "videos" / name) for name in NAMES}
    table = pd.read_csv(root / "one" / "manifest.csv", keep_default_na=False)
    assert list(table.video) == sorted(os.path.splitext(name)[0] for name in NAMES)


def test_command_fails_with_one_message_and_no_output(tmp_path):
    output = tmp_path / "out" / "manifest.csv"
    for settings, message in (
        ('{"adapter": "folder", "root": "no/such"}', "no/such"),
        ("{", "not JSON"),
        ("[]", "object"),
    ):
        done = command("--dataset", "d", "--settings", settings, "--output", str(output))
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not output.parent.exists()
