from __future__ import annotations

import csv
import io

import pytest

from ccs.datasets import lists
from ccs.stage import CcsError


def parse(text: str, root="/nowhere", source="list.txt"):
    return [(row.path, row.label, row.num_frames) for row in lists.parse(text, source, str(root))]


FORMS = {
    # what `find` prints
    "a/1.mp4\nb/2.webm\n": [("a/1.mp4", None, None), ("b/2.webm", None, None)],
    # a path with blanks needs no file and no quotation marks where its extension ends the line, or a label follows it
    "a b/1 2.mp4\n\nb 3.avi\n": [("a b/1 2.mp4", None, None), ("b 3.avi", None, None)],
    "my clip.mp4 3\nb.avi  Shaking Hands\n": [("my clip.mp4", "3", None), ("b.avi", "Shaking Hands", None)],
    # mmaction2's lists of videos and UCF-101's trainlist; -1 is what TSN gives to videos without a label
    "some/path/000.mp4 1\nsome/path/001.mp4\t-1\n": [
        ("some/path/000.mp4", "1", None),
        ("some/path/001.mp4", "-1", None),
    ],
    # TSN's, TSM's and mmaction2's rawframes
    "some/directory-1 163 1\nsome/directory-2 122 0\n": [
        ("some/directory-1", "1", 163),
        ("some/directory-2", "0", 122),
    ],
    "\"a b/1\" 20 3\n'c' 7 -1": [("a b/1", "3", 20), ("c", "-1", 7)],
    "\"a b\"\n'c d.mp4'": [("a b", None, None), ("c d.mp4", None, None)],
    '"a b" "Shaking Hands"': [("a b", "Shaking Hands", None)],
    # a line alone could be a path with a blank; the others say that it is none
    "v1 run\nv2 walk": [("v1", "run", None), ("v2", "walk", None)],
    "one\ntwo of them\nthree": [("one", None, None), ("two of them", None, None), ("three", None, None)],
    "path\n1.mp4\n": [("1.mp4", None, None)],
    "PATH;Label\nä 1.mp4; run \n": [("ä 1.mp4", "run", None)],
    'path\tlabel\tnum_frames\n"a\tb"\trun, jump\t12\n': [("a\tb", "run, jump", 12)],
}


@pytest.mark.parametrize("text", FORMS)
def test_forms_that_people_have(text):
    assert parse(text) == FORMS[text]
    assert parse(f"\n{text}\n \n") == FORMS[text]


def test_what_is_there_decides_where_a_path_ends(tree):
    root = tree(["my clips/v 1/img_00001.jpg", "my clips/v 2/img_00001.jpg", "plain/3", "a.mp4 3"])
    assert parse("my clips/v 1\nmy clips/v 2\nplain", root) == [
        ("my clips/v 1", None, None),
        ("my clips/v 2", None, None),
        ("plain", None, None),
    ]
    assert parse("my clips/v 1 100 3\nmy clips/v 2 90 4", root) == [
        ("my clips/v 1", "3", 100),
        ("my clips/v 2", "4", 90),
    ]
    assert parse("my clips/v 1 Shaking Hands", root) == [("my clips/v 1", "Shaking Hands", None)]
    assert parse("a.mp4 3", root) == [("a.mp4 3", None, None)]
    # one that is gone is read as the others are, as folders without an extension say nothing themselves
    assert parse("my clips/v 1 100 3\nmy clips/v 9 90 4", root)[1] == ("my clips/v 9", "4", 90)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.mp4\nb.mp4 3\n", r"line 2: expected 'path' as in list.txt, line 1 \('a.mp4'\), found 'b.mp4 3'"),
        ("a 10 3\n\nb 3", "line 3: expected 'path num_frames label' as in list.txt, line 1"),
        ("a b c d", "line 1: cannot tell where the path ends in 'a b c d': put it in quotation marks"),
        ("a.mp4 1 2 3", "3 numbers behind the path 'a.mp4'"),
        ("a.mp4,3\nb.mp4,4", "line 1: .*found 'a.mp4,3': begin a table with a header"),
        ("path,label\na.mp4\n", "line 2: expected 2 cells as in the header"),
        ("path,label\na.mp4,b,c\n", "line 2: expected 2 cells as in the header"),
        ("path,label\n,b\n", "line 2: expected a path in the column path, found nothing"),
        ("path,num_frames\na,many\n", "line 2: num_frames: expected a whole number of frames, found 'many'"),
        ("path,label,label\na,b,c", "expected each column once"),
        ("path,label\n", "expected the path of a video a line, found none"),
        (" \n", "expected the path of a video a line, found none"),
    ],
)
def test_lines_that_cannot_be_told_are_errors_that_name_them(text, found):
    with pytest.raises(CcsError, match=found):
        parse(text)


def test_two_names_that_are_there_leave_a_line_ambiguous(tree):
    root = tree(["v/img_00001.jpg", "v 1/img_00001.jpg"])
    with pytest.raises(CcsError, match="cannot tell where the path ends in 'v 1 2 3'"):
        parse("v 1 2 3", root)
    assert parse('"v 1" 2 3', root) == [("v 1", "3", 2)]


def test_a_table_keeps_its_columns_and_says_which_held_the_paths(capsys):
    cells = [["Video_Path", "split", "group", "note"], ["a,b.mp4", "train", "Anna", 'says "hi"'], ["c.mp4", "", "", ""]]
    file = io.StringIO()
    csv.writer(file).writerows(cells)
    rows = lists.parse(file.getvalue().replace("\r\n", "\n"), "all.csv", ".")
    assert [list(row.columns.values()) for row in rows] == cells[1:]
    assert [*rows[0].columns] == ["video_path", "split", "group", "note"]
    assert [(row.where, row.path) for row in rows] == [("all.csv, line 2", "a,b.mp4"), ("all.csv, line 3", "c.mp4")]
    assert "no column path, so the paths are those of the column video_path" in capsys.readouterr().err
    with pytest.raises(CcsError, match=r"expected a header with a column path .* found the first line name, label"):
        lists.parse("name,label\na,b", "all.csv", ".")
    # SlowFast's lists are called .csv and have neither header nor commas
    assert lists.parse("a.mp4 3\nb.mp4 4", "train.csv", ".")[1][1:4] == ("b.mp4", "4", None)


def test_a_file_with_marks_and_foreign_line_ends_is_read(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes("path,label\r\nä.mp4,1\r\n".encode("utf-8-sig"))
    assert [(row.path, row.label) for row in lists.read(str(path))] == [("ä.mp4", "1")]
    path.write_bytes("path\tlabel\nä.mp4\t1\n".encode("utf-16"))
    assert [(row.path, row.label) for row in lists.read(str(path))] == [("ä.mp4", "1")]
    with pytest.raises(CcsError, match=r"none\.txt: expected a list of videos, found none"):
        lists.read(str(tmp_path / "none.txt"))
