"""Damaged videos: what the frames stage and `ccs flow` say of them against ffmpeg's counts and the whole video's."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from test_frames import FFMPEG, fake_ffmpeg, ffmpeg, make, run_stage, start_stage, wait_until

from ccs.flow import tool
from ccs.frames import film
from ccs.frames.judgement import BadVideo
from ccs.stage import CcsError

# containers that lose frames in different ways: by their index, by resynchronising, by ending early, packet by packet
CLIPS = {
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "4", "-g", "10", "-bf", "2"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "4"),
    "h264.mp4": ("-c:v", "libx264", "-g", "10", "-threads", "1"),
    "h264.ts": ("-c:v", "libx264", "-g", "10", "-threads", "1"),
    "h264.mkv": ("-c:v", "libx264", "-g", "10", "-threads", "1"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "4"),
    "vp8.webm": ("-c:v", "libvpx", "-b:v", "300k"),
    "wmv2.wmv": ("-c:v", "wmv2", "-q:v", "4"),
}
NUM_FRAMES, PLACES = 40, 20
FAST = ["--format", "h5", "--backend", "native", "--workers", "1", "--warps", "1", "--scales", "1"]
FAST += ["--outer-iterations", "1", "--inner-iterations", "1"]


def damaged(data: bytes, seed: str) -> bytes:
    """A file with some of its bytes changed, zeroed or gone, behind its head."""
    rng = random.Random(seed)
    size, start = rng.choice([1, 8, 64, 400]), rng.randrange(len(data) // 50 + 300, len(data) - 400)
    hole = {"noise": rng.randbytes(size), "zeros": bytes(size), "gone": b""}[rng.choice(["noise", "zeros", "gone"])]
    return data[:start] + hole + data[start + size :]


def spoken(path: Path) -> str:
    """What ffmpeg says of the pictures."""
    line = [FFMPEG, "-nostdin", "-i", path, "-map", "0:v", "-f", "null", "-"]
    return subprocess.run(line, capture_output=True, check=False).stderr.decode(errors="replace")


def decodable(path: Path) -> int:
    """How many frames ffmpeg decodes, without any of our options."""
    line = [FFMPEG, "-v", "quiet", "-nostdin", "-max_error_rate", "1", "-i", path, "-map", "0:V:0"]
    line += ["-fps_mode", "passthrough", "-f", "framemd5", "-"]
    listed = subprocess.run(line, capture_output=True, check=False).stdout
    return sum(not line.startswith(b"#") for line in listed.splitlines())


@pytest.mark.parametrize("clip", CLIPS)
def test_no_frame_is_lost_without_a_word(clip, tmp_path, capfd):
    """Every frame that ffmpeg decodes is there; where that is fewer than the whole video has, it is said."""
    videos, whole = tmp_path / "videos", tmp_path / clip
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25", "-frames:v", str(NUM_FRAMES), *CLIPS[clip], whole)
    videos.mkdir()
    assert decodable(whole) == NUM_FRAMES
    paths = [videos / f"{place:02d}{whole.suffix}" for place in range(PLACES)]
    for path in paths:
        path.write_bytes(damaged(whole.read_bytes(), path.name + clip))
    capfd.readouterr()
    shard, bad = run_stage(tmp_path, paths, "--short-side", "64", "--workers", "2", "--max-bad", str(PLACES))
    log = capfd.readouterr().err
    with h5py.File(shard) as file:
        kept = {name: len(file[f"frames/{i:06d}/offset"]) - 1 for i, name in enumerate(file["video"].asstr())}
    reasons = {row["video"]: row["reason"] for row in bad}
    assert {*kept, *reasons} == {path.name for path in paths}
    for path in paths:
        there = decodable(path)
        if path.name in kept:
            assert kept[path.name] == there
            note = re.search(rf"ccs: frames: {path.name} \(.*\): kept.*?(\d+) frames", log)
            assert there == NUM_FRAMES or (note and int(note[1]) == there), (path.name, there, log)
        elif counted := re.search(
            r"(\d+) frames decoded of \d+ packets, (\d+) or more are missing", reasons[path.name]
        ):
            assert int(counted[1]) == there
            assert int(counted[2]) >= 1
        else:  # ffmpeg gave up
            assert re.search(rf"\b{there} frames", reasons[path.name]) or "status" in reasons[path.name], reasons
    # a setting keeps what the counts condemn
    _, lenient = run_stage(tmp_path, paths, "--short-side", "64", "--max-missing-fraction", "1", name="lenient")
    assert not [row for row in lenient if " packets, " in row["reason"]]
    # and the tool for flow says the same
    capfd.readouterr()
    output = tmp_path / "flow"
    with nullcontext() if not reasons else pytest.raises(CcsError) as error:
        tool.main([str(videos), "--output", str(output), *FAST])
    assert not [name for name, reason in reasons.items() if f"{name}: {reason}" not in str(error.value)]
    made = {path.with_suffix(whole.suffix).name: path for path in output.rglob("*.h5")}
    assert made.keys() == kept.keys()
    for name, path in made.items():
        with h5py.File(path) as file:
            assert file.attrs["num_frames"] == kept[name]


def test_a_damaged_video_that_lost_frames_is_bad_unless_that_is_allowed(tmp_path, capfd):
    """A tenth of the packets cannot be decoded any more."""
    whole, hurt = tmp_path / "whole.avi", tmp_path / "hurt.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25", "-frames:v", "50", "-c:v", "mpeg4", "-g", "1", whole)
    data = bytearray(whole.read_bytes())
    chunks = [found.end() for found in re.finditer(b"00dc", data[: data.rindex(b"idx1")])]
    for start in chunks[5:10]:
        size = int.from_bytes(data[start : start + 4], "little")
        data[start + 4 : start + 4 + size] = bytes(size)
    hurt.write_bytes(data)
    there = decodable(hurt)
    assert there < 50
    _, bad = run_stage(tmp_path, [whole, hurt], "--max-bad", "1")
    assert [row["video"] for row in bad] == ["hurt.avi"]
    assert f"{there} frames decoded of 50 packets, {50 - there} or more are missing" in bad[0]["reason"]
    capfd.readouterr()
    _, bad = run_stage(tmp_path, [whole, hurt], "--max-missing-fraction", "0.1")
    assert bad == []
    assert re.search(rf"hurt\.avi.*: kept, .*: {there} frames decoded of 50 packets", capfd.readouterr().err)
    output, arguments = tmp_path / "flow", [str(hurt), "--output", str(tmp_path / "flow"), *FAST]
    tool.main([*arguments, "--max-missing-fraction", "0.1"])
    tool.main([*arguments, "--max-missing-fraction", "0.2"])
    assert "1 kept" in capfd.readouterr().err
    with pytest.raises(
        CcsError, match=rf"{50 - there} or more"
    ):  # what an earlier call has kept is not allowed any more
        tool.main(arguments)
    assert list(output.glob("*.h5"))  # nor is it removed


def test_what_an_edit_list_cuts_away_is_not_missing(tmp_path, capfd):
    """Cut without encoding anew, an MP4 has the packets from the key frame on and shows those from the cut on."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25", "-frames:v", "80", "-c:v", "libx264", "-g", "40", whole)
    ffmpeg("-ss", "1", "-i", whole, "-c", "copy", cut)
    data = bytearray(cut.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 6] = b"\xaa" * 6  # concealed
    hurt = tmp_path / "hurt.mp4"
    hurt.write_bytes(data)
    there = decodable(cut)
    assert there < 80
    assert film.hidden_packets(str(cut), film.check_ffmpeg(FFMPEG), film.Children()) > 0
    _, bad = run_stage(tmp_path, [cut, hurt])
    assert bad == []
    log = capfd.readouterr().err
    assert f"{there} frames decoded of {there} packets, none is known to be missing" in log
    assert "cut.mp4 " not in log


def test_joined_streams_whose_every_frame_decodes_are_kept(tmp_path):
    """As recorders join them: ffmpeg warns of a corrupt packet at the seam, yet every frame comes out bit for bit."""
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    for part, offset in zip(parts, ("0", "0.6"), strict=True):
        ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=10", "-frames:v", "6", "-output_ts_offset", offset,
               "-c:v", "libx264", "-f", "mpegts", part)  # fmt: skip
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    shard, bad = run_stage(tmp_path, [joined, *parts], "--short-side", "48")
    assert bad == []
    with h5py.File(shard) as file:
        jpegs = [file[f"frames/{index:06d}/jpeg"][:] for index in range(3)]
    np.testing.assert_array_equal(np.concatenate(jpegs[:2]), jpegs[2])


def test_whole_videos_of_odd_make_are_kept(tmp_path, capfd):
    """Times that do not start at 0, other streams that last longer, pauses beside concealed damage, bare streams."""
    plain = tmp_path / "plain.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25", "-frames:v", "50", "-c:v", "mpeg4", "-g", "10", plain)
    ffmpeg("-i", plain, "-c", "copy", "-output_ts_offset", "60", tmp_path / "late.mkv")
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:10,000\nwords\n")
    ffmpeg("-i", plain, "-i", tmp_path / "words.srt", "-c:v", "copy", "-c:s", "srt", tmp_path / "words.mkv")
    ffmpeg("-i", plain, "-f", "lavfi", "-i", "sine=d=6", "-c:v", "copy", "-c:a", "pcm_s16le", tmp_path / "sound.mkv")
    ffmpeg("-i", plain, "-c:v", "mjpeg", tmp_path / "bare.mjpeg")
    ffmpeg("-i", plain, "-vf", "setpts=PTS+gte(N\\,20)*1/TB", "-fps_mode", "passthrough", "-c:v", "mpeg4", "-g", "10",
           tmp_path / "pause.mkv")  # fmt: skip
    data = bytearray((tmp_path / "pause.mkv").read_bytes())
    start = data.index(b"\x00\x00\x01\xb6", len(data) // 2) + 40
    data[start : start + 8] = bytes(8)
    (tmp_path / "pause.mkv").write_bytes(data)
    videos = [tmp_path / name for name in ("late.mkv", "words.mkv", "sound.mkv", "bare.mjpeg", "pause.mkv")]
    shard, bad = run_stage(tmp_path, videos, "--short-side", "64")
    assert bad == []
    with h5py.File(shard) as file:
        assert [len(file[f"frames/{index:06d}/offset"]) - 1 for index in range(5)] == [50] * 5
    assert re.search(r"pause\.mkv \(.*: kept.* none is known to be missing", capfd.readouterr().err)


@pytest.mark.parametrize("name", ["cut.avi", "cut.mkv", "cut.mpg"])
def test_a_video_that_is_cut_short_is_bad_whatever_is_left(name, tmp_path):
    """With sound, so that neither ffmpeg's duration nor the pictures' end says so."""
    whole, codec = tmp_path / f"whole{Path(name).suffix}", "mpeg2video" if name.endswith("mpg") else "mpeg4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=4", "-f", "lavfi", "-i", "sine=d=4", "-c:v", codec, "-c:a",
           "mp2", whole)  # fmt: skip
    for part in range(20, 28):
        cut = tmp_path / f"{part}{name}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * part // 40 + 37 * part])
    paths = [tmp_path / f"{part}{name}" for part in range(20, 28)]
    if name == "cut.mpg":  # which states no length: where a cut falls into a packet of pictures, ffmpeg says so
        paths = [path for path in paths if "corrupt input packet" in spoken(path)]
        assert len(paths) > 1
    _, bad = run_stage(tmp_path, [whole, *paths], "--max-bad", "8", "--max-missing-fraction", "0.9")
    assert [row["video"] for row in bad] == [path.name for path in paths]


def test_what_threads_say_at_once_is_heard(tmp_path):
    """The same verdict each time, on a file whose only complaint comes while frames are being told of."""
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x32:r=100:d=4", "-f", "lavfi", "-i", "sine=d=4", "-c:v", "mpeg4", whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    copies = [tmp_path / f"{number:02d}.mkv" for number in range(40)]
    for copy in copies:
        copy.write_bytes(cut.read_bytes())
    _, bad = run_stage(tmp_path, copies, "--short-side", "32", "--workers", "2", "--max-bad", "40")
    assert len(bad) == len(copies)


def test_a_full_temporary_folder_hides_nothing(tmp_path, monkeypatch):
    """The verdict needs no file of its own: without any place for one it is the same."""
    good = make(tmp_path / "whole.mkv", num_frames=50)
    (tmp_path / "cut.mkv").write_bytes(good.read_bytes()[: good.stat().st_size * 6 // 10])
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    _, bad = run_stage(tmp_path, [good, tmp_path / "cut.mkv"], "--max-bad", "1")
    assert [row["video"] for row in bad] == ["cut.mkv"]


SCRIPTS = {
    "playlist.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\nfile://{0}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile {0}\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" '
    'width="64" height="48" codecs="avc1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\n",
}


def test_a_file_that_names_others_opens_none(tmp_path):
    secret = make(tmp_path / "secret.mp4")
    for name, text in SCRIPTS.items():
        (tmp_path / name).write_text(text.format(secret.name if name != "playlist.mp4" else secret))
    _, bad = run_stage(tmp_path, [tmp_path / name for name in SCRIPTS], "--max-bad", str(len(SCRIPTS)))
    reasons = {row["video"]: row["reason"] for row in bad}
    assert reasons.keys() == SCRIPTS.keys()
    assert "names other files" in reasons["concat.mp4"]


def test_silence_ends_and_who_is_to_blame_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(film, "SILENCE", 2.0)
    video = make(tmp_path / "video.mp4")
    waits = fake_ffmpeg(tmp_path, "exec sleep 1000")
    with pytest.raises(
        CcsError, match=r"video\.mp4: after 0 frames ffmpeg gave nothing for 2 s, waiting for this file"
    ):
        run_stage(tmp_path, [video], "--ffmpeg", str(waits))
    loops = fake_ffmpeg(tmp_path, "while :; do :; done")
    _, bad = run_stage(tmp_path, [video], "--ffmpeg", str(loops), "--max-bad", "1")
    assert re.search("ffmpeg gave nothing for 2 s", bad[0]["reason"])


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(BadVideo, match="pipe or device"):
        film.check_file(str(tmp_path / "pipe.mp4"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_silent_ffmpeg_ends_with_a_killed_stage(tmp_path):
    """One that never writes does not notice that nobody reads."""
    video = make(tmp_path / "video.mp4")
    waits = fake_ffmpeg(tmp_path, "exec sleep 1000")
    waits.rename(tmp_path / "ffmpeg")
    stage = start_stage(tmp_path, [video], f"import os; os.environ['PATH'] = '{tmp_path}:' + os.environ['PATH']")
    process = psutil.Process(stage.pid)
    asleep = lambda: [each for each in process.children() if each.name() == "sleep"]  # noqa: E731
    wait_until(lambda: stage.poll() is not None or asleep())
    (child,) = asleep()
    stage.send_signal(signal.SIGKILL)
    stage.wait(30)
    stage.stderr.close()
    child.wait(30)
