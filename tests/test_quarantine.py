"""Joining the shards' quarantine tables, and the limit on how much may be bad."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ccs import quarantine
from ccs.datasets.manifests import Manifest, Video, write
from ccs.stage import CcsError


@pytest.fixture
def manifest(tmp_path) -> Path:
    """A hundred videos, v000 to v099, in 4 shards."""
    videos = tuple(Video(f"v{i:03d}", f"videos/v{i:03d}, (a).mp4", 0, "a", "train") for i in range(100))
    write(tmp_path / "manifest.csv", {2: Manifest("made", ("a",), videos)}, 4)
    return tmp_path / "manifest.csv"


def part(path: Path, *numbers: int) -> str:
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "path", "stage", "reason"])
        rows.writerows([f"v{i:03d}", f"videos/v{i:03d}, (a).mp4", "frames", f'cut "short" at {i}'] for i in numbers)
    return str(path)


def join(manifest: Path, parts: list[str], fraction: float | None = None) -> list[dict]:
    output = manifest.parent / "quarantine.csv"
    allowed = [] if fraction is None else ["--max-bad-fraction", str(fraction)]
    quarantine.main(["--manifest", str(manifest), *allowed, "--output", str(output), "--parts", *parts])
    with open(output, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_parts_become_one_table_sorted_by_id(tmp_path, manifest, capsys):
    parts = [part(tmp_path / "0000.csv", 70, 9), part(tmp_path / "0001.csv"), part(tmp_path / "0002.csv", 41)]
    rows = join(manifest, parts, 0.03)
    assert rows == [
        {"video": f"v{i:03d}", "path": f"videos/v{i:03d}, (a).mp4", "stage": "frames", "reason": f'cut "short" at {i}'}
        for i in (9, 41, 70)
    ]
    assert "3 of 100" in capsys.readouterr().err
    assert join(manifest, [], 0) == []


def test_too_many_bad_videos_end_the_run(tmp_path, manifest):
    parts = [part(tmp_path / "0000.csv", *range(0, 60, 10)), part(tmp_path / "0001.csv", 3)]
    with pytest.raises(CcsError) as error:
        join(manifest, parts, 0.0699)
    message = str(error.value)
    assert "7 of 100" in message
    assert "0.0699" in message
    assert 'videos/v003, (a).mp4 (frames): cut "short" at 3' in message
    assert "v050" not in message  # the first five are named
    assert "raise max_bad_fraction" in message
    assert not (tmp_path / "quarantine.csv").exists()
    assert len(join(manifest, parts, 0.07)) == 7  # exactly the allowance, which 0.07 * 100 misses by rounding


def test_one_of_a_hundred_may_be_bad_if_nothing_is_said(tmp_path, manifest):
    assert len(join(manifest, [part(tmp_path / "0000.csv", 3)])) == 1
    with pytest.raises(CcsError, match=r"max_bad_fraction allows 0\.01"):
        join(manifest, [part(tmp_path / "0000.csv", 3, 4)])


def test_wrong_input(tmp_path, manifest):
    with pytest.raises(CcsError, match=r"absent\.csv.*run the shard's frames stage again"):
        join(manifest, [str(tmp_path / "absent.csv")], 1)
    with pytest.raises(CcsError, match=r"manifest\.csv: expected .*no column stage"):
        join(manifest, [str(manifest)], 1)
    with pytest.raises(CcsError, match=r"0000\.csv: v200 is not in .*manifest\.csv"):
        join(manifest, [part(tmp_path / "0000.csv", 200)], 1)
    with pytest.raises(CcsError, match="max_bad_fraction"):
        join(manifest, [], 1.5)
