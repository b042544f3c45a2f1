"""Adapters of published data sets on made-up lists of the published form, and the check of what is there."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ccs.datasets import adapters
from ccs.datasets.__main__ import main
from ccs.stage import CcsError


def load(adapter, root, **settings):
    block = {"adapter": adapter, "root": str(root / "videos"), "lists": str(root / "lists"), **settings}
    return adapters.load("made", block)


def rows(manifest):
    return [(v.video, v.path.partition("videos/")[2], v.class_name, v.split) for v in manifest.videos]


# as DeepMind's archives and the Common Visual Data Foundation have it; only some labels are quoted
KINETICS = """label,youtube_id,time_start,time_end,split,is_cc
abseiling,-3B32lodo2M,59,69,train,0
"air drumming",_dbcJuKJQNs,40,50,train,0
"air drumming",_dbcJuKJQNs,100,110,train,0
"""


def test_kinetics(tree):
    root = tree({
        "videos/train/abseiling/-3B32lodo2M_000059_000069.mp4": "",
        "videos/train/air_drumming/_dbcJuKJQNs_000040_000050.mkv": "",
        "videos/train/air_drumming/_dbcJuKJQNs_000100_000110.mp4": "",
        "videos/val/--nQbRBEz2s_000104_000114.mp4": "",
        "lists/kinetics_train.csv": KINETICS,
        "lists/kinetics_val.csv": "label,youtube_id,time_start,time_end,split\nair drumming,--nQbRBEz2s,104,114,val\n",
        "lists/test.csv": "youtube_id,time_start,time_end,split\n---v8pgm1eQ,0,10,test\n",
    })  # fmt: skip
    manifest = load("kinetics", root)
    assert manifest.classes == ("abseiling", "air drumming")
    assert rows(manifest) == [
        ("--nQbRBEz2s_000104_000114", "val/--nQbRBEz2s_000104_000114.mp4", "air drumming", "test"),
        ("-3B32lodo2M_000059_000069", "train/abseiling/-3B32lodo2M_000059_000069.mp4", "abseiling", "train"),
        ("_dbcJuKJQNs_000040_000050", "train/air_drumming/_dbcJuKJQNs_000040_000050.mkv", "air drumming", "train"),
        ("_dbcJuKJQNs_000100_000110", "train/air_drumming/_dbcJuKJQNs_000100_000110.mp4", "air drumming", "train"),
    ]
    tree({"lists/train.csv": KINETICS})
    with pytest.raises(CcsError, match=r"expected one list train\.csv, found kinetics_train.csv, train.csv"):
        load("kinetics", root)


@pytest.mark.parametrize(("adapter", "name"), [("jester", "jester-v1"), ("something_v1", "something-something-v1")])
def test_lists_and_folders_of_20bn(tree, adapter, name):
    root = tree({
        **{f"videos/{video}/00001.jpg": "" for video in (34870, 56557, 10, 11)},
        f"lists/{name}-labels.csv": "Swiping Left\nMoving something, and something\n",
        f"lists/{name}-train.csv": "34870;Moving something, and something\n56557;Swiping Left\n",
        f"lists/{name}-validation.csv": "10;Swiping Left\n",
        f"lists/{name}-test.csv": "11\n",
    })  # fmt: skip
    manifest = load(adapter, root)
    assert manifest.classes == ("Swiping Left", "Moving something, and something")
    assert rows(manifest) == [
        ("10", "10", "Swiping Left", "test"),
        ("11", "11", "", "unlabelled"),
        ("34870", "34870", "Moving something, and something", "train"),
        ("56557", "56557", "Swiping Left", "train"),
    ]
    assert adapters.mirrored_labels(adapter)
    tree({f"lists/{name}-train.csv": "34870;Moving\n"})
    with pytest.raises(CcsError, match=r"train\.csv, line 1: expected 'ID;CLASS' with a class"):
        load(adapter, root)


def test_diving48(tree):
    videos = ["-mmq0PT-u8k_00155", "-mmq0PT-u8k_00156", "aaa_00000", "bbb_00000", "ccc_00001"]
    entries = [{"vid_name": name, "label": i % 2, "start_frame": 0, "end_frame": 48} for i, name in enumerate(videos)]
    root = tree({
        **{f"videos/{name}.mp4": "" for name in videos},
        "lists/Diving48_vocab.json": '[["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "NoTwis", "PIKE"]]',
        "lists/Diving48_V2_train.json": json.dumps(entries[:4]),
        "lists/Diving48_V2_test.json": json.dumps(entries[4:]),
    })  # fmt: skip
    manifest = load("diving48", root, val_fraction=0.5)
    assert manifest.classes == ("Back 15som 05Twis FREE", "Back 15som NoTwis PIKE")
    assert Counter(v.split for v in manifest.videos) == {"train": 2, "val": 2, "test": 1}
    (side,) = {v.split for v in manifest.videos if v.video.startswith("-mmq0PT")}  # of one YouTube video
    assert side in ("train", "val")
    tree({"lists/Diving48_V2_test.json": json.dumps([{"vid_name": "ccc_00001", "label": 2}])})
    with pytest.raises(CcsError, match=r"V2_test\.json, entry 1: unknown class 2: Diving48_vocab.json has 2"):
        load("diving48", root)


def test_what_is_missing_is_told_with_the_page_that_has_it(real_data, tmp_path, capsys):
    """Against a count of the published lists: split 1 names every video of UCF-101 once."""
    lists, videos = real_data / "splits" / "ucf101", real_data / "ucf101" / "videos"
    listed = {line.split()[0] for name in ("trainlist01", "testlist01") for line in (lists / f"{name}.txt").open()}
    there = {f"{path.parent.name}/{path.name}" for path in videos.glob("*/*.avi")} & listed
    arguments = ["ucf101", "--root", str(videos), "--lists", str(lists)]
    with pytest.raises(CcsError, match=rf"{len(listed - there)} of {len(listed)} .* given out at https://www.crcv.ucf"):
        main([*arguments, "--missing", str(tmp_path / "missing.txt")])
    missing = [line.split(" (")[0] for line in (tmp_path / "missing.txt").read_text().splitlines()]
    assert len(missing) == len(set(missing))
    assert set(missing) == listed - there
    capsys.readouterr()
    main([*arguments, "--max-absent-fraction", "1"])
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"ucf101: {len(there)} videos are there, {len(listed - there)} of those in the lists are absent"
    with pytest.raises(CcsError, match=r"ucf102: expected an adapter, found none of this name: did you mean ucf101\?$"):
        main(["ucf102"])
    with pytest.raises(CcsError, match=r"lists of dataset ucf101.* is given out at https://www.crcv"):
        main(["ucf101", "--root", str(videos), "--lists", str(tmp_path / "none")])
