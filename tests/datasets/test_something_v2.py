from __future__ import annotations

import json
from collections import Counter

import pytest

from ccs.datasets import adapters
from ccs.stage import CcsError

LABELS = {"Putting something on something": "1", "Opening something": "0", "Showing something to the camera": "2"}
PUT, OPEN = "Putting [something] on [something]", "Opening [something]"


def entries(start: int, stop: int, template: str = PUT) -> list[dict]:
    return [{"id": str(i), "label": "putting a cup on a box", "template": template} for i in range(start, stop)]


def files(prefix: str = "something-something-v2-", **changes) -> dict[str, str]:
    lists = {
        "labels": LABELS,
        "train": entries(1, 41) + entries(41, 61, OPEN),
        "validation": entries(61, 63),
        "test": [{"id": "63"}],
    }
    videos = dict.fromkeys((f"videos/{i}.webm" for i in range(1, 64)), "")
    contents = {name: content for name, content in {**lists, **changes}.items() if content is not None}
    return videos | {f"lists/{prefix}{name}.json": json.dumps(content) for name, content in contents.items()}


def load(root, split=1, **settings):
    return adapters.load(
        "ss", {"adapter": "something_v2", "root": str(root / "videos"), "lists": str(root / "lists"), **settings}, split
    )


def test_labels_placeholders_and_splits(tree):
    manifest = load(tree(files()))
    assert manifest.classes == (
        "Opening something",
        "Putting something on something",
        "Showing something to the camera",
    )
    by_id = {video.video: video for video in manifest.videos}
    assert (by_id["1"].label, by_id["1"].split) == (1, "train")
    assert (by_id["50"].label, by_id["50"].class_name, by_id["50"].split) == (0, "Opening something", "train")
    assert (by_id["61"].label, by_id["61"].split) == (1, "test")  # the official validation videos are what is scored
    assert (by_id["63"].label, by_id["63"].class_name, by_id["63"].split) == (-1, "", "unlabelled")
    assert by_id["63"].path.endswith("videos/63.webm")


def test_validation_is_a_share_of_every_class_of_train(tree):
    root = tree(files())
    manifest = load(root, val_fraction=0.25)
    assert Counter((video.label, video.split) for video in manifest.videos if video.split != "unlabelled") == {
        (1, "train"): 30,
        (1, "val"): 10,
        (0, "train"): 15,
        (0, "val"): 5,
        (1, "test"): 2,
    }
    assert load(root, val_fraction=0.25, seed=1) != manifest


def test_the_later_names_of_the_lists(tree):
    assert len(load(tree(files(prefix=""))).videos) == 63


def test_official_labels(real_data, tree, tmp_path):
    official = json.loads((real_data / "ssv2" / "something-something-v2-labels.json").read_text())
    templates = {
        i: name.replace("omething", "omething]").replace("something]", "[something]") for name, i in official.items()
    }
    train = [{"id": f"9{i}", "template": template} for i, template in templates.items()]
    root = tree(
        {
            **files(labels=official, train=train, validation=[]),
            **dict.fromkeys((f"videos/9{i}.webm" for i in templates), ""),
        }
    )
    manifest = load(root)
    labels = {video.video[1:]: video.label for video in manifest.videos if video.split == "train"}
    assert labels == {i: int(i) for i in official.values()}
    assert len(manifest.classes) == 174
    assert {name: str(label) for label, name in enumerate(manifest.classes)} == official


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, r"something-something-v2-labels\.json: expected"),
        ({"validation": None}, r"something-something-v2-validation\.json: expected"),
        ({"test": None}, r"something-something-v2-test\.json: expected"),
        (
            {"labels": {"Opening something": "0", "x": "2"}},
            r"labels\.json: expected a class for each label from 0 to 1",
        ),
        ({"labels": {"Opening something": "0", "x": "0"}}, r"labels\.json: expected a class for each label"),
        ({"labels": {"Opening something": "0"}}, r"train\.json, entry 1: unknown class 'Putting \[something\]"),
        ({"labels": []}, r"labels\.json: expected a JSON dict"),
        ({"train": {}}, r"train\.json: expected a JSON list"),
        ({"train": [*entries(1, 2), {"id": "2"}]}, r"train\.json, entry 2: expected .*template"),
        ({"test": ["63"]}, r"test\.json, entry 1: expected .*id"),
        ({"test": [{"id": "1"}]}, r"test\.json, entry 1: 1 is listed both in train \(.*train\.json, entry 1"),
        ({"test": [{"id": "64"}]}, r"1 of 63 listed.*64\.webm \(.*test\.json, entry 1"),
    ],
)
def test_errors_name_the_list_and_the_entry(tree, changes, message):
    with pytest.raises(CcsError, match=message):
        load(tree(files(**changes)))


def test_classes_and_ids_are_one_in_any_unicode_form(tree):
    train = [{"id": "e\u0301", "template": "Ouvrir [la boi\u0302te]"}, *entries(1, 5)]
    lists = files(labels={"Ouvrir la boîte": "0", "Putting something on something": "1"}, train=train)
    manifest = load(tree(lists | {"videos/é.webm": ""}))
    assert [video.class_name for video in manifest.videos if video.video == "é"] == ["Ouvrir la boîte"]


def test_a_list_that_is_cut_short_is_named(tree):
    root = tree({**files(), "lists/something-something-v2-train.json": '[{"id": "1", '})
    with pytest.raises(CcsError, match=r"train\.json: not JSON"):
        load(root)
    with pytest.raises(CcsError, match="split 2"):
        load(root, 2)
