from __future__ import annotations

import itertools
import unicodedata
from collections import Counter

import pytest

from ccs.datasets import adapters
from ccs.stage import CcsError


def load(root, **settings):
    return adapters.load("mine", {"adapter": "folder", "root": str(root), **settings})


def parts(manifest) -> dict[str, str]:
    return {video.video: video.split for video in manifest.videos}


def test_stated_shares_of_every_class(tree):
    root = tree(
        [f"b/{i}.mp4" for i in range(40)] + [f"a/{i}.MKV" for i in range(20)] + ["c/1.mov", "c/2.avi", "d/1.mp4"]
    )
    manifest = load(root, test_fraction=0.25, val_fraction=0.2, seed=5)
    assert manifest.classes == ("a", "b", "c", "d")
    assert Counter((video.class_name, video.split) for video in manifest.videos) == {
        ("a", "test"): 5,
        ("a", "val"): 3,
        ("a", "train"): 12,
        ("b", "test"): 10,
        ("b", "val"): 6,
        ("b", "train"): 24,
        ("c", "test"): 1,  # a class of two or more is tested, however small the share
        ("c", "train"): 1,
        ("d", "train"): 1,
    }
    assert load(root, test_fraction=0.25, val_fraction=0.2, seed=5) == manifest
    assert parts(load(root, test_fraction=0.25, val_fraction=0.2, seed=6)) != parts(manifest)


def test_a_new_video_moves_at_most_one_other_of_its_class_for_test_and_one_for_val(tree):
    settings = {"test_fraction": 0.3, "val_fraction": 0.1}
    root = tree([f"{c}/{i:03}.mp4" for c in "ab" for i in range(23)])
    before = parts(load(root, **settings))
    for i in range(100, 130):
        tree([f"a/{i}.mp4"])
        after = parts(load(root, **settings))
        moved = [video for video in before if before[video] != after[video]]
        assert len(moved) <= 3  # one between test and the rest, which may push one more between val and train
        assert all(video.startswith("a/") for video in moved)
        before = after


def test_train_and_test_directories(tree):
    root = tree(["train/a/1.mp4", "train/b/2.mp4", "test/a/3.mp4"])
    assert parts(load(root, val_fraction=0.5)) == {"a/1": "train", "a/3": "test", "b/2": "train"}
    tree([f"train/a/{i}.mp4" for i in range(10, 19)])
    # half of the ten of class a; the only one of b stays
    assert Counter(parts(load(root, val_fraction=0.5)).values()) == {"train": 6, "val": 5, "test": 1}
    tree(["val/b/9.mp4"])
    assert [video for video, part in parts(load(root, val_fraction=0.5)).items() if part == "val"] == ["b/9"]


def recordings(num: int) -> list[str]:
    """Three clips of two classes, cut from each of so many recordings."""
    return [f"{c}/{r}_{clip}.mp4" for r in range(num) for c, clip in (("run", 1), ("run", 2), ("walk", 3))]


GROUP = r"(\d+)_\d"


def test_a_group_is_never_divided_and_shares_hold_for_every_class(tree):
    root = tree(recordings(40))
    manifest = load(root, test_fraction=0.25, val_fraction=0.2, group=GROUP)
    sides: dict[str, set[str]] = {}
    for video in manifest.videos:
        sides.setdefault(video.video.partition("/")[2].partition("_")[0], set()).add(video.split)
    assert all(len(each) == 1 for each in sides.values()), sides
    assert Counter((v.class_name, v.split) for v in manifest.videos if v.split != "train") == {
        ("run", "test"): 20,
        ("walk", "test"): 10,
        ("run", "val"): 12,
        ("walk", "val"): 6,
    }


def test_folds_test_every_video_once_and_keep_groups_together(tree):
    settings = {"adapter": "folder", "root": str(tree(recordings(11))), "group": GROUP, "folds": 4, "val_fraction": 0.2}
    assert adapters.splits(settings) == (1, 2, 3, 4)
    tested: Counter[str] = Counter()
    for split in adapters.splits(settings):
        manifest = adapters.load("mine", settings, split)
        by_part = {part: {v.video for v in manifest.videos if v.split == part} for part in ("train", "val", "test")}
        of_part = {part: {video[video.index("/") :].partition("_")[0] for video in by_part[part]} for part in by_part}
        assert not any(a & b for a, b in itertools.combinations(of_part.values(), 2))
        assert all(by_part.values())
        assert len(by_part["test"]) in (6, 9)  # 2 or 3 recordings
        tested.update(by_part["test"])
    assert tested == Counter(name.removesuffix(".mp4") for name in recordings(11))


def test_groups_on_both_sides_of_given_directories_are_told(tree, capsys):
    root = tree(["train/a/1_1.mp4", "train/a/2_1.mp4", "test/a/1_2.mp4"])
    load(root, group=GROUP)
    assert "1 groups are both in test and outside it, such as '1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": r"(\d+)_\d"}, r"b/two_1\.mp4: expected a name that fits group .* of dataset mine, found 'two_1'"),
        ({"group": r"(.*?)_?\w*"}, r"a/1_\d\.mp4: .*the parentheses match nothing: correct"),
        ({"group": r"(.*"}, r"group is '\(\.\*': expected a regular expression .*: missing \)"),
        ({"group": r".*"}, r"one pair of parentheses.*found 0"),
        ({"group": r"(.*)_\d", "folds": 3}, r"folds is 3, but there are only 2 groups: lower folds"),
        ({"folds": 4}, r"folds is 4, but there are only 3 videos"),
        ({"folds": 2}, r"expected videos of class 'b' in at least 2 of 2 folds, found them all in fold \d"),
        ({"group": r"(.*)_\d", "folds": 2}, r"expected groups by '.*' of class 'a' in at least 2 of 2 folds"),
        ({"folds": 1}, r"folds"),
    ],
)
def test_errors_of_groups_and_folds_name_the_file_or_the_setting(tree, settings, message):
    root = tree(["a/1_1.mp4", "a/1_2.mp4", "b/two_1.mp4"])
    with pytest.raises(CcsError, match=message):
        load(root, **settings)


def test_folds_and_given_directories_exclude_each_other(tree):
    with pytest.raises(CcsError, match=r"folds of dataset mine is 2, found train/ and test/"):
        load(tree(["train/a/1.mp4", "test/a/2.mp4"]), folds=2)


def test_a_class_may_be_called_train(tree):
    manifest = load(tree([f"{name}/{i}.mp4" for name in ("bus", "train") for i in range(5)]))
    assert manifest.classes == ("bus", "train")
    assert Counter(parts(manifest).values()) == {"train": 8, "test": 2}


def test_other_files_are_counted_and_left_out(tree, capsys):
    root = tree(["a/1.mp4", "a/2.mp4", "a/1.json", "notes.txt", "loose.mp4", ".git/x", "a/._1.mp4", "a/.DS_Store"])
    assert set(parts(load(root))) == {"a/1", "a/2"}
    assert "3 files" in capsys.readouterr().err


def test_links_count_as_files_and_those_that_lead_nowhere_are_named_and_cost_only_themselves(tree, capsys):
    root = tree(["stored.mp4", "root/a/1.mp4"]) / "root"
    (root / "a" / "2.mp4").symlink_to(root.parent / "stored.mp4")
    (root / "a" / "3.mp4").symlink_to("gone.mp4")
    (root / "a" / "4.mp4").symlink_to("4.mp4")
    (root / "b.mp4").symlink_to("/nowhere")
    assert set(parts(load(root))) == {"a/1", "a/2"}
    said = capsys.readouterr().err.splitlines()
    assert f"left out in {root}: 'b.mp4' (a link to '/nowhere', where nothing is)" in said[0]
    assert "'3.mp4' (a link to 'gone.mp4', where nothing is); '4.mp4' (a link that leads back to itself)" in said[1]
    assert len(said) == 2


@pytest.mark.parametrize("there", ["a/1.mp4", "train/a/1.mp4"])
@pytest.mark.parametrize(("target", "why"), [("/nowhere", "where nothing is"), ("b", "leads back to itself")])
def test_a_class_or_split_that_is_a_link_to_nowhere_does_not_vanish(tree, there, target, why):
    root = tree([there, "test/a/2.mp4"] if "train" in there else [there])
    places = {root: "b"} if there == "a/1.mp4" else {root: "val", root / "train": "b"}
    for folder, name in places.items():
        (folder / name).symlink_to(target if target != "b" else name)
        with pytest.raises(CcsError, match=rf"{folder / name}: expected a directory of videos, found a link .*{why}"):
            load(root)
        (folder / name).unlink()


def test_what_systems_put_beside_videos_is_no_class_no_video_and_no_error(tree, capsys):
    foreign = (
        "lost+found",
        "$RECYCLE.BIN",
        "System Volume Information",
        "#recycle",
        "@Recycle",
        ".Trashes",
        "__MACOSX",
    )
    names = [f"{folder}/{file}" for folder in foreign for file in ("x/1.mp4", "2.mp4")]
    names += ["a/@eaDir/1.mp4/SYNOPHOTO_FILM_M.mp4", "a/._1.mp4", "a/Thumbs.db", "desktop.ini"]
    assert parts(load(tree(["a/1.mp4", "b/1.mp4", *names]))) == {"a/1": "train", "b/1": "train"}
    assert "left out" not in capsys.readouterr().err


COMPOSED = "gr\u00f6\u00dfe"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.mark.parametrize("names", [["train/{}/1", "test/{}/2"], ["{}/1", "{}/2"]])
def test_names_that_look_alike_are_one_class(tree, names):
    """As where one half of the videos was copied from a Mac."""
    paths = [f"{name.format(form)}.mp4" for name, form in zip(names, (COMPOSED, DECOMPOSED), strict=True)]
    manifest = load(tree(paths))
    assert manifest.classes == (COMPOSED,)
    assert [video.video for video in manifest.videos] == [f"{COMPOSED}/1", f"{COMPOSED}/2"]
    assert {video.path.removeprefix(f"{tree([])}/") for video in manifest.videos} == set(paths)  # as they are on disk


def test_two_files_whose_names_look_alike_are_one_id(tree):
    told = rf"id a/{COMPOSED} is also that of .*they look alike: .*gr\\xf6\\xdfe|o\\u0308"
    with pytest.raises(CcsError, match=told):
        load(tree([f"a/{COMPOSED}.mp4", f"a/{DECOMPOSED}.mp4"]))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.mp4", "a/1.avi"], r"a/1\.\w+: its id a/1 is also that of .*a/1\.\w+: rename"),
        (["train/a/1.mp4", "test/a/1.mp4"], r"id a/1 is also that of"),
        (["a/1.mp4", "a/more/2.mp4"], r"a/more: .*found a directory"),
        (["a/1.mp4", "b/1.gif"], r"/b: expected the videos of a class, found none but 1 \.gif: add"),
        (["notes.txt"], "no videos at all"),
        (["1.mp4"], "no videos at all"),
        (["train/a/1.mp4", "val/a/2.mp4"], r"expected train/ and test/, found only train and val"),
        (["train/a/1.mp4", "test/a/2.mp4", "validation/a/3.mp4"], "found validation"),
        (["train/a/1.mp4", "test/b/2.mp4"], r"test/b: unknown class 'b'"),
    ],
)
def test_errors_name_the_file_and_what_to_do(tree, names, message):
    with pytest.raises(CcsError, match=message):
        load(tree(names))


def test_there_is_one_split(tree):
    with pytest.raises(CcsError, match="split 2"):
        adapters.load("mine", {"adapter": "folder", "root": str(tree(["a/1.mp4"]))}, 2)


def test_real_clips(real_data, tmp_path):
    for path in sorted((real_data / "ssv2" / "videos").iterdir()):
        name = path.name.split("_")[0]
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / path.name).symlink_to(path)
    manifest = load(tmp_path)
    assert [(video.class_name, video.video) for video in manifest.videos] == [
        ("task41", "task41/task41_1"),
        ("task41", "task41/task41_2"),
        ("task5", "task5/task5_0"),
        ("task5", "task5/task5_1"),
        ("task5", "task5/task5_2"),
        ("task93", "task93/task93_1"),
    ]
    assert Counter(parts(manifest).values()) == {"train": 4, "test": 2}
