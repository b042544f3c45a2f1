"""Frames: the videos of one shard in, their frames as JPEG in one HDF5 file out; between the manifest and the flow.

    python -m ccs.frames --manifest data/D/manifest.csv --shard 0003 --output data/D/frames/0003.h5 \
        --quarantine data/D/frames/0003.quarantine.csv --workers 4 --short-side 256 --quality 95

What is decoded and how is told in `ccs.frames.film`, when a video is bad in `ccs.frames.judgement`. The frames are
stored as `video` (the ids of the good videos, sorted) and `frames/{index:06d}` with `jpeg` (uint8, all JPEG files of
the video end to end), `offset` (int64, T+1) and the attributes video, height, width and fps (nominal). The same videos,
settings and ffmpeg give the same bytes, whatever the number of workers.

A path may be a directory of frames that were extracted before, and of their flow (`ccs.frames.imported`). Such a video
has the attribute imported, fps 0, and where its flow is there `flow` with `picture` (uint8, the pictures of x and y of
each pair end to end), `offset` (int64) and the attribute bound; the flow stage takes it from there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict

import h5py

import ccs
from ccs import hdf5
from ccs.datasets import bad_videos, manifests
from ccs.datasets.bad_videos import Bad
from ccs.datasets.manifests import VideoFile
from ccs.datasets.settings import ImportSettings
from ccs.frames.decode import DecodedVideo, extract
from ccs.frames.film import Ffmpeg, check_ffmpeg, find_ffmpeg
from ccs.frames.judgement import BadVideo
from ccs.frames.settings import FfmpegSettings, FramesSettings
from ccs.settings import add_settings, settings_from
from ccs.stage import CcsError, atomic, progress, run, writing


def write_shard(file: h5py.File, videos: Iterator[tuple[str, DecodedVideo]]) -> None:
    """Write decoded videos by their ids, sorted, as `video` (ids) and `frames/{index:06d}/{jpeg,offset}`."""
    ids = []
    group = file.create_group("frames")
    for video, decoded in videos:
        entry = group.create_group(f"{len(ids):06d}")
        entry.create_dataset("jpeg", data=decoded.jpeg, track_times=False)
        entry.create_dataset("offset", data=decoded.offset, track_times=False)
        entry.attrs.update(video=video, height=decoded.height, width=decoded.width, fps=decoded.fps)
        if decoded.is_imported:
            entry.attrs["imported"] = True
        if decoded.flow:
            flow = entry.create_group("flow")
            flow.create_dataset("picture", data=decoded.flow.pictures.data, track_times=False)
            flow.create_dataset("offset", data=decoded.flow.pictures.offset, track_times=False)
            flow.attrs["bound"] = decoded.flow.bound
        ids.append(video)
    file.create_dataset("video", data=ids, shape=(len(ids),), dtype=h5py.string_dtype(), track_times=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's docstring. Raises `CcsError`."""
    parser = argparse.ArgumentParser(prog="ccs frames", description=__doc__.split("\n\n")[0])
    parser.add_argument("--manifest", required=True, help="the dataset's manifest.csv")
    parser.add_argument("--shard", required=True, help="which shard of it, such as 0003")
    parser.add_argument("--output", required=True, help="the shard's frames, HDF5")
    parser.add_argument("--quarantine", required=True, help="the shard's bad videos, CSV: video, path, stage, reason")
    parser.add_argument("--workers", type=int, default=1, help="videos decoded at a time (default: 1)")
    parser.add_argument("--max-bad", type=int, help="stop as soon as more videos than this are bad (default: never)")
    for kind in (FfmpegSettings, FramesSettings, ImportSettings):
        add_settings(parser, kind)
    args = parser.parse_args(argv)
    settings = settings_from(args, FramesSettings)
    if args.workers < 1:
        raise CcsError(f"workers is {args.workers}: expected at least 1")
    dataset, videos = manifests.read_shard(args.manifest, args.shard)
    tool = check_ffmpeg(find_ffmpeg(args.ffmpeg or None))
    _run(args, settings, settings_from(args, ImportSettings).bound, dataset, videos, tool)


def _run(
    args: argparse.Namespace,
    settings: FramesSettings,
    bound: float,
    dataset: str,
    videos: list[VideoFile],
    tool: Ffmpeg,
) -> None:
    bad: list[Bad] = []
    num_frames = 0
    with (
        atomic(args.quarantine) as quarantine,
        atomic(args.output) as output,
        hdf5.created(output) as file,
        closing(extract(videos, settings, tool, args.workers, bound)) as results,
        progress(total=len(videos), desc=f"frames {args.shard}", unit="video") as bar,
    ):

        def good() -> Iterator[tuple[str, DecodedVideo]]:
            nonlocal num_frames
            for video, decoded in results:
                if isinstance(decoded, CcsError):
                    raise decoded
                if isinstance(decoded, BadVideo):
                    bad.append(Bad(video.video, video.path, "frames", " ".join(str(decoded).split())))
                    bar.write(f"ccs: frames: bad video {video.video} ({video.path}): {bad[-1].reason}", file=sys.stderr)
                    _check_allowance(bad, args.max_bad)
                else:
                    if decoded.note:
                        bar.write(f"ccs: frames: {video.video} ({video.path}): {decoded.note}", file=sys.stderr)
                    yield video.video, decoded
                    num_frames += len(decoded.offset) - 1
                bar.set_postfix_str(f"{num_frames / max(bar.format_dict['elapsed'], 1e-3):.0f} frames/s", refresh=False)
                bar.update()

        file.attrs.update(ccs=ccs.__version__, dataset=dataset, ffmpeg=tool.version)
        file.attrs["settings"] = json.dumps(asdict(settings), sort_keys=True)
        write_shard(file, good())
        with writing(args.quarantine):
            bad_videos.write(quarantine, bad)
    print(
        f"ccs: frames: shard {args.shard}: {len(videos) - len(bad)} videos, {num_frames} frames, {len(bad)} bad",
        file=sys.stderr,
    )


def _check_allowance(bad: list[Bad], max_bad: int | None) -> None:
    if max_bad is None or len(bad) <= max_bad:
        return
    listed = "\n".join(f"  {video.path}: {video.reason}" for video in bad[:5])
    raise CcsError(
        f"more than {max_bad} bad videos in this shard, the first:\n{listed}\nRepair, replace or remove them "
        "(and their lines in the lists), or raise max_bad_fraction in the configuration"
    )


if __name__ == "__main__":
    run(main)
