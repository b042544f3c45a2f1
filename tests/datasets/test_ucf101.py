from __future__ import annotations

import re
from collections import Counter

import pytest

from ccs.datasets import adapters
from ccs.stage import CcsError

FILES = {
    "lists/classInd.txt": "1 Run\r\n2 Sky Dive\r\n\r\n",
    "lists/trainlist01.txt": "Run/v_Run_g01_c01.avi 1 \r\nSky Dive/v_SkyDive_g02_c01.avi 2\t\r\n\r\n",
    "lists/testlist01.txt": "Run/v_Run_g03_c01.avi  \r\n",
    "videos/Run/v_Run_g01_c01.avi": "",
    "videos/Run/v_Run_g03_c01.avi": "",
    "videos/Sky Dive/v_SkyDive_g02_c01.avi": "",
}


def load(root, **settings):
    return adapters.load(
        "ucf", {"adapter": "ucf101", "root": str(root / "videos"), "lists": str(root / "lists"), **settings}
    )


def test_published_lists_give_the_published_counts(real_data, tree, tmp_path, capsys):
    lists = real_data / "splits" / "ucf101"
    train, test = ((lists / f"{part}list01.txt").read_text().split() for part in ("train", "test"))
    tree([f"videos/{name}" for name in (*train[::2], *test)])
    settings = {"lists": str(lists), "val_fraction": 0.1, "seed": 3}
    manifest = load(tmp_path, **settings)
    assert capsys.readouterr().err == ""
    counts = Counter(video.split for video in manifest.videos)
    assert (counts["train"] + counts["val"], counts["test"], len(manifest.classes)) == (9537, 3783, 101)
    assert dict(zip(train[::2], map(int, train[1::2]), strict=True)) == {
        f"{video.video}.avi": video.label + 1 for video in manifest.videos if video.split != "test"
    }
    assert {f"{video.video}.avi" for video in manifest.videos if video.split == "test"} == set(test)
    assert manifest.classes[36] == "HandstandPushups"  # whose files are called v_HandStandPushups

    groups = {video.video: (video.label, re.search(r"_g(\d\d)_c", video.video)[1]) for video in manifest.videos}
    sizes = Counter(groups[video.video] for video in manifest.videos)
    val = Counter(groups[video.video] for video in manifest.videos if video.split == "val")
    assert all(sizes[group] == count for group, count in val.items())  # no group is divided
    for label in range(101):
        share = sum(count for group, count in val.items() if group[0] == label)
        goal = 0.1 * sum(video.label == label and video.split != "test" for video in manifest.videos)
        largest = max(count for group, count in sizes.items() if group[0] == label)
        assert share > 0
        assert abs(share - goal) <= largest / 2
    assert load(tmp_path, **settings) == manifest
    assert load(tmp_path, **{**settings, "seed": 4}) != manifest
    assert all(video.split != "val" for video in load(tmp_path, **{**settings, "val_fraction": 0}).videos)


def test_real_clips(real_data, capsys):
    settings = {
        "adapter": "ucf101",
        "root": str(real_data / "ucf101" / "videos"),
        "lists": str(real_data / "splits" / "ucf101"),
    }
    manifest = adapters.load("ucf", {**settings, "max_absent_fraction": 0.999})
    assert "13303 of 13320 listed videos are absent" in capsys.readouterr().err
    on_disk = {path.stem for path in (real_data / "ucf101" / "videos").glob("*/*.avi")}
    assert {video.video.split("/")[1] for video in manifest.videos} == on_disk
    assert len(on_disk) == 17
    used = {(video.class_name, video.split) for video in manifest.videos}
    assert used == {(c, s) for c in ("Biking", "BoxingSpeedBag", "JavelinThrow", "Diving") for s in ("train", "test")}
    with pytest.raises(CcsError, match=r"13303 of 13320.*ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01\.avi.*trainlist01"):
        adapters.load("ucf", {**settings, "max_absent_fraction": 0.998})


def test_line_ends_blanks_and_spaces(tree):
    manifest = load(tree(FILES))
    assert manifest.classes == ("Run", "Sky Dive")
    assert [(video.video, video.label, video.split) for video in manifest.videos] == [
        ("Run/v_Run_g01_c01", 0, "train"),
        ("Run/v_Run_g03_c01", 0, "test"),
        ("Sky Dive/v_SkyDive_g02_c01", 1, "train"),
    ]


@pytest.mark.parametrize("val_fraction", [0, 0.25, 0.5, 0.9])
def test_validation_is_whole_groups_of_the_train_list_and_the_test_list_stays(tree, val_fraction):
    """Here each group of the train list has a video in the test list, too, and one group is in the test list alone."""
    groups = {f"{name}/v_{name}_g0{number}": label for label, name in ((1, "Run"), (2, "Sky")) for number in range(9)}
    train = {f"{group}_c0{clip}.avi": groups[group] for group in groups for clip in (1, 2) if "_g08" not in group}
    test = {f"{group}_c03.avi" for group in groups}
    files = {f"videos/{video}": "" for video in (*train, *test)}
    files["lists/classInd.txt"] = "1 Run\n2 Sky\n"
    files["lists/trainlist01.txt"] = "".join(f"{video} {label}\n" for video, label in train.items())
    files["lists/testlist01.txt"] = "".join(f"{video}\n" for video in test)
    parts = {f"{video.video}.avi": video.split for video in load(tree(files), val_fraction=val_fraction).videos}
    assert {video for video, part in parts.items() if part == "test"} == test
    assert {video for video, part in parts.items() if part in ("train", "val")} == set(train)
    val = {video for video, part in parts.items() if part == "val"}
    assert len(val) == pytest.approx(val_fraction * len(train), abs=1)
    assert val == {f"{video.split('_c0')[0]}_c0{clip}.avi" for video in val for clip in (1, 2)}  # whole groups


def test_other_extensions_and_case_are_found_by_stem(tree):
    files = {name.replace("videos/Run/v_Run_g0", "videos/run/v_RUN_g0"): text for name, text in FILES.items()}
    files = {name.replace("SkyDive_g02_c01.avi", "SkyDive_g02_c01.MP4"): text for name, text in files.items()}
    root = tree({**files, "videos/Sky Dive/._v_SkyDive_g02_c01.avi": "", "videos/Sky Dive/notes.txt": ""})
    paths = {video.video: video.path for video in load(root).videos}
    assert paths["Run/v_Run_g01_c01"] == str(root / "videos/run/v_RUN_g01_c01.avi")
    assert paths["Sky Dive/v_SkyDive_g02_c01"] == str(root / "videos/Sky Dive/v_SkyDive_g02_c01.MP4")
    (root / "videos/Sky Dive/v_SkyDive_g02_c01.mkv").touch()
    with pytest.raises(CcsError, match=r"v_SkyDive_g02_c01\.MP4 and v_SkyDive_g02_c01\.mkv"):
        load(root)


def test_a_listed_file_is_found_whatever_its_extension_is(tree):
    files = {
        name.replace("g03_c01.avi", "g03_c01.gif"): text.replace("g03_c01.avi", "g03_c01.gif")
        for name, text in FILES.items()
    }
    assert next(video.path for video in load(tree(files)).videos if video.split == "test").endswith("c01.gif")


def test_names_are_one_in_any_unicode_form(tree):
    files = {
        "lists/classInd.txt": "1 Se\u0301ance\n",
        "lists/trainlist01.txt": "S\u00e9ance/v_S\u00e9ance_g01_c01.avi 1\n",
        "lists/testlist01.txt": "Se\u0301ance/v_Se\u0301ance_g02_c01.avi\n",
        "videos/Se\u0301ance/v_Se\u0301ance_g01_c01.avi": "",
        "videos/S\u00e9ance/v_S\u00e9ance_g02_c01.avi": "",
    }
    manifest = load(tree(files))
    assert manifest.classes == ("S\u00e9ance",)
    assert {video.video: video.split for video in manifest.videos} == {
        "S\u00e9ance/v_S\u00e9ance_g01_c01": "train",
        "S\u00e9ance/v_S\u00e9ance_g02_c01": "test",
    }


def test_videos_in_no_list_are_counted_and_left_out(tree, capsys):
    root = tree({**FILES, "videos/Run/v_Run_g09_c01.avi": "", "videos/Other/x.avi": ""})
    assert len(load(root).videos) == 3
    assert "2 videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lists/classInd.txt": None}, r"classInd\.txt: expected.*`lists`"),
        ({"lists/testlist01.txt": None}, r"testlist01\.txt: expected.*`lists`"),
        ({"lists/classInd.txt": "1 Run\n3 Sky Dive\n"}, r"classInd\.txt, line 2: .*'3 Sky Dive'"),
        ({"lists/classInd.txt": "1 Run\n2 Run\n"}, r"classInd\.txt, line 2"),
        ({"lists/classInd.txt": f"{'1' * 5000} Run\n"}, r"classInd\.txt, line 1: expected '1 CLASS'"),
        ({"lists/trainlist01.txt": f"Run/v_Run_g01_c01.avi {'1' * 5000}\n"}, r"trainlist01\.txt, line 1: expected"),
        ({"lists/classInd.txt": "1 Run\n"}, r"trainlist01\.txt, line 2: unknown class 'Sky Dive'"),
        ({"lists/trainlist01.txt": "Run/v_Run_g01_c01.avi\n"}, r"trainlist01\.txt, line 1: expected .*LABEL"),
        ({"lists/trainlist01.txt": "\n\nRun/v_Run_g01_c01.avi 2\n"}, r"trainlist01\.txt, line 3: .*label 1 .*found 2"),
        ({"lists/testlist01.txt": "v_Run_g03_c01.avi\n"}, r"testlist01\.txt, line 1: expected 'CLASS/FILE"),
        (
            {"lists/testlist01.txt": "Run/v_Run_g01_c01.avi\n"},
            r"testlist01\.txt, line 1: .*in train .*trainlist01\.txt, line 1",
        ),
        ({"lists/testlist01.txt": "Run/v_Run_g03_c01.avi\n" * 2}, r"testlist01\.txt, line 2: .*second time.*line 1"),
        ({"lists/testlist01.txt": "Run/v_Run_g01_c01.mp4\nRun/v_Run_g03_c01.avi"}, r"Run/v_Run_g01_c01 is listed both"),
        ({"lists/testlist01.txt": "Run/V_run_g01_c01.avi\n"}, r"two listed videos fit this file"),
        ({"videos/Run/v_Run_g03_c01.avi": None}, r"1 of 3 listed.*Run/v_Run_g03_c01\.avi .*testlist01\.txt, line 1"),
    ],
)
def test_errors_name_the_file_and_the_line(tree, changes, message):
    root = tree({name: text for name, text in {**FILES, **changes}.items() if text is not None})
    with pytest.raises(CcsError, match=message):
        load(root)


def test_absent_videos_up_to_the_stated_share(tree, capsys):
    root = tree({name: text for name, text in FILES.items() if "g03" not in name})
    manifest = load(root, max_absent_fraction=0.34)
    assert len(manifest.videos) == 2
    assert manifest.classes == ("Run", "Sky Dive")
    said = capsys.readouterr().err
    assert "1 of 3 listed videos are absent" in said
    assert "no video is in test" in said
    with pytest.raises(CcsError, match="1 of 3"):
        load(root, max_absent_fraction=0.33)
    for path in root.glob("videos/*/*.avi"):
        path.unlink()
    with pytest.raises(CcsError, match="no videos at all"):
        load(root, max_absent_fraction=1)


def test_there_are_three_splits(tree):
    root = tree(FILES)
    settings = {"adapter": "ucf101", "root": str(root / "videos"), "lists": str(root / "lists")}
    with pytest.raises(CcsError, match=r"trainlist02\.txt"):
        adapters.load("ucf", settings, 2)
    with pytest.raises(CcsError, match="split 4"):
        adapters.load("ucf", settings, 4)
