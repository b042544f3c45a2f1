from __future__ import annotations

import unicodedata
from collections import Counter

import pytest

from ccs.datasets import adapters
from ccs.stage import CcsError

CATCH = "Ball (Timo 3)_catch_f_cm_np1_le_goo_0.avi"
WAVE = "Ball (Timo 3)_wave_f_cm_np1_le_goo_0.avi"
FILES = {
    "lists/wave_test_split1.txt": f"{WAVE} 2 \r\nfilm!_wave_x_1.avi 0 \r\n \r\n",
    "lists/catch_test_split1.txt": f"{CATCH} 1 \n",
    "lists/readme.txt": "",
    f"videos/catch/{CATCH}": "",
    f"videos/wave/{WAVE}": "",
    "videos/wave/film!_wave_x_1.avi": "",
}


def load(root, split=1, **settings):
    return adapters.load(
        "hmdb", {"adapter": "hmdb51", "root": str(root / "videos"), "lists": str(root / "lists"), **settings}, split
    )


def test_published_lists_give_the_published_counts(real_data, tree, tmp_path):
    lists = real_data / "splits" / "hmdb51"
    rows = {
        f"{path.name.split('_test_split')[0]}/{line.split()[0]}": line.split()[1]
        for path in lists.glob("*.txt")
        for line in path.read_text().splitlines()
    }
    tree([f"videos/{name}" for name in rows])
    manifest = load(tmp_path, lists=str(lists), val_fraction=0.1)
    assert len(manifest.videos) == len(rows) == 6766
    assert list(manifest.classes) == sorted({name.split("/")[0] for name in rows})
    assert len(manifest.classes) == 51
    counts = Counter((v.label, "train" if v.split == "val" else v.split) for v in manifest.videos)
    assert all((counts[label, "train"], counts[label, "test"]) == (70, 30) for label in range(51))
    assert all(
        {"0": {"unused"}, "1": {"train", "val"}, "2": {"test"}}[rows[f"{v.video}.avi"]] >= {v.split}
        for v in manifest.videos
    )

    def films(split: str) -> set[str]:
        return {
            video.video.split("/")[1].rpartition(f"_{video.class_name}_")[0]
            for video in manifest.videos
            if video.split == split
        }

    assert not films("val") & films("train")  # many films have clips of several classes
    val = Counter(video.label for video in manifest.videos if video.split == "val")
    assert sum(val.values()) == pytest.approx(357, abs=36)
    assert all(4 <= val[label] <= 14 for label in range(51)), val  # 7 wanted; films of up to 41 clips


def test_real_clips(real_data):
    settings = {
        "adapter": "hmdb51",
        "root": str(real_data / "hmdb51" / "videos"),
        "lists": str(real_data / "splits" / "hmdb51"),
        "max_absent_fraction": 0.9995,
    }
    manifest = adapters.load("hmdb", settings)
    assert {video.video.split("/")[1].split("_")[0]: video.split for video in manifest.videos} == {
        "Turnk": "train",
        "Torwarttraining": "test",
        "RATRACE": "train",
        "SchoolRulesHowTheyHelpUs": "unused",
        "TrumanShow": "test",
    }
    assert {video.class_name for video in manifest.videos} == {"cartwheel", "catch", "wave"}
    assert len(manifest.classes) == 51


def test_line_ends_blanks_spaces_and_parentheses(tree):
    manifest = load(tree(FILES))
    assert manifest.classes == ("catch", "wave")
    assert [(video.video, video.label, video.split) for video in manifest.videos] == [
        (f"catch/{CATCH[:-4]}", 0, "train"),
        (f"wave/{WAVE[:-4]}", 1, "test"),
        ("wave/film!_wave_x_1", 1, "unused"),
    ]


@pytest.mark.parametrize("forms", ["NFC NFD", "NFD NFC", "NFD NFD"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_names_are_one_in_any_unicode_form_and_lists_are_read_by_their_byte_order_mark(tree, forms, encoding):
    video, (listed, there) = "Prélude_pêche_1.avi", forms.split()
    text = ("\ufeff" if encoding == "utf-16-be" else "") + unicodedata.normalize(
        listed, f"{video} 1\r\nb_pêche_2.avi 2\n"
    )
    files = {
        unicodedata.normalize(listed, "lists/pêche_test_split1.txt"): text.encode(encoding),
        unicodedata.normalize(there, f"videos/pêche/{video}"): "",
        "videos/pêche/b_pêche_2.avi": "",  # the other half of the class's folder
    }
    manifest = load(tree(files))
    assert manifest.classes == ("pêche",)
    assert [(video.video, video.split) for video in manifest.videos] == [
        ("pêche/Prélude_pêche_1", "train"),
        ("pêche/b_pêche_2", "test"),
    ]


def test_a_list_without_a_byte_order_mark_that_is_no_utf8_is_refused(tree):
    root = tree({**FILES, "lists/catch_test_split1.txt": f"{CATCH} 1\n".encode("utf-16-le")})
    with pytest.raises(CcsError, match=r"catch_test_split1\.txt: expected lines of text in UTF-8, found zero bytes"):
        load(root)


@pytest.mark.parametrize("val_fraction", [0, 0.25, 0.5])
def test_validation_is_whole_films_of_the_train_lists_and_what_they_test_stays(tree, val_fraction):
    """Here each film has clips of both classes to train on, and most have one to test on and one that is unused."""
    files, listed = {}, {"1": set(), "2": set(), "0": set()}
    clips = [("run", "1"), ("run", "1"), ("wave", "1"), ("run", "2"), ("wave", "0")]
    for film in "abcdefghijkl":
        for clip, (name, part) in enumerate(clips if film < "i" else clips[:3]):
            video = f"{film}_{name}_f_cm_np1_le_goo_{clip}.avi"
            files[f"videos/{name}/{video}"] = ""
            path = f"lists/{name}_test_split1.txt"
            files[path] = f"{files.get(path, '')}{video} {part}\n"
            listed[part].add(f"{name}/{video[:-4]}")
    parts = {video.video: video.split for video in load(tree(files), val_fraction=val_fraction).videos}
    assert {video for video, part in parts.items() if part == "test"} == listed["2"]
    assert {video for video, part in parts.items() if part == "unused"} == listed["0"]
    films = {split: {video.split("/")[1][0] for video in parts if parts[video] == split} for split in ("train", "val")}
    assert len(films["val"]) == 12 * val_fraction
    assert len(films["train"]) == 12 - len(films["val"])  # so that none is in both


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lists/wave_test_split1.txt": "film.avi 3\n"}, r"wave_test_split1\.txt, line 1: .*'film\.avi 3'"),
        ({"lists/wave_test_split1.txt": "\nfilm.avi\n"}, r"wave_test_split1\.txt, line 2: "),
        ({"lists/wave_test_split1.txt": f"{WAVE} 1\n{WAVE} 2\n"}, r"line 2: .*in train .*line 1.* and in test"),
        ({"lists/wave_test_split1.txt": f"{WAVE} 1\n{WAVE} 1\n"}, r"line 2: .*second time.*line 1"),
        ({"lists/run_test_split2.txt": "x.avi 1\n"}, r"run_test_split1\.txt: expected"),
        ({f"videos/wave/{WAVE}": None}, r"1 of 3 listed videos are absent.*wave/Ball \(Timo 3\)"),
    ],
)
def test_errors_name_the_file_and_the_line(tree, changes, message):
    root = tree({name: text for name, text in {**FILES, **changes}.items() if text is not None})
    with pytest.raises(CcsError, match=message):
        load(root)


def test_lists_of_another_split_are_missed(tree):
    root = tree(FILES)
    with pytest.raises(CcsError, match=r"CLASS_test_split2\.txt.*`splits`"):
        load(root, 2)
    with pytest.raises(CcsError, match="lists: expected"):
        load(root, lists=str(root / "nothing" / "lists"))
