"""ffmpeg's command lines for videos, all of them: to decode one, to ask about one, and to write one.

The demo data set (`ccs.datasets.demo`) has its own, for its own files; it stands below what reads those of others.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import ffmpeg

from ccs.frames.stills import Stills

STILLS_FPS = 25  # of frames in a folder, which do not say: only the order of their times counts

# ffmpeg's names of containers and bare streams of video. What is not among them: playlists and scripts, which name
# other files or servers (hls, dash, concat, imf, sdp, avisynth ...), patterns of file names, and sound alone.
FORMATS = (
    "mov matroska avi mpegts mpegtsraw mpeg mpegvideo asf asf_o flv live_flv kux ogg gif apng webp_anim nut ivf mxf "
    "gxf lxf rm ivr wtv dv dhav ty pva nsv nuv swf vivo r3d cine mlv dxa mjpeg mjpeg_2000 smjpeg mpjpeg ingenient "
    "h261 h263 h264 hevc vvc evc m4v vc1 vc1test av1 obu dirac dnxhd cavsvideo avs avs2 avs3 yuv4mpegpipe rawvideo "
    "roq smk bink flic film_cpk 4xm anm bethsoftvid bfi bmv c93 cdxl dsicin ea filmstrip frm gdv hnm idcin ifv "
    "ipmovie jv lmlm4 luodat lvf mm mods moflex mtv mv mvi paf pmp psxstr rpl sga siff thp tiertexseq tmv "
    "txd usm vividas vmd wc3movie wsvqa xmv yop jpeg_pipe dfa rl2 iv8 ser simbiosis_imx argo_brp cdg pdv apv"
)
ONE_FILE = {"protocol_whitelist": "file,pipe", "format_whitelist": FORMATS.replace(" ", ",")}  # options of an input


class Ffmpeg(NamedTuple):
    """An ffmpeg that was tried and works."""

    path: str
    version: str
    passthrough: dict[str, str]  # its option for frames as decoded
    prompt: dict[str, int]  # of the filter that tells the frames' times: at once, where it can


class Clip(NamedTuple):
    """A part of a video, in seconds of its clock: the frames that are shown from `start` on and before `end`.

    Where the clock counts frames, as in AVI, both are those of the nearest.
    """

    start: float = 0.0
    end: float | None = None

    @property
    def is_whole(self) -> bool:
        return not self.start and self.end is None


WHOLE = Clip()


def shorter_side(pixels: int) -> tuple[str, str]:
    """Width and height, as ffmpeg reads them, of square pixels with so many on the shorter side."""
    # the shape as it is shown; the long side even, so that its chroma has half as many samples
    wide = "(iw*if(between(sar,1/4,4),sar,1)/ih)"
    width = f"if(gt({wide},1),2*round({wide}*{pixels}/2),{pixels})"
    height = f"if(gt({wide},1),{pixels},2*round({pixels}/{wide}/2))"
    return width, height


def decoding(video: str | Stills, size: tuple[str, str], tool: Ffmpeg, clock: int, clip: Clip = WHOLE) -> list[str]:
    """To decode the first video stream of a file, or a folder's frames, into YUV4MPEG.

    That goes to standard output. `size` is the width and the height to scale to, as ffmpeg reads them: numbers or
    expressions. The frames' times go to the descriptor `clock`.
    """
    begin = {"ss": clip.start} if clip.start else {}
    frames = _input(video, threads=1, **begin)
    if clip.end is not None:
        frames = ffmpeg.filter(frames, "trim", end=clip.end - clip.start)  # a frame's time now counts from the start
    return _compile(frames, size, tool, clock)


def trial(size: tuple[str, str], tool: Ffmpeg, clock: int) -> list[str]:
    """As `decoding`, of raw grey frames of 16x16 that come on standard input."""
    frames = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="gray", s="16x16", r=25, **ONE_FILE)["V:0"]
    return _compile(frames, size, tool, clock)


def listing(video: str | Stills, tool: Ffmpeg) -> list[str]:
    """To list the packets of its first video stream on standard output, a line each."""
    packets = ffmpeg.output(_input(video), "pipe:", c="copy", copyinkf=None, format="framecrc")
    return ffmpeg.compile(packets.global_args("-nostdin", "-loglevel", "quiet"), cmd=tool.path)


def stating(path: str, tool: Ffmpeg) -> list[str]:
    """To say on standard error what the container of a file states of itself."""
    options = [word for name, value in ONE_FILE.items() for word in (f"-{name}", value)]
    return [tool.path, "-nostdin", "-hide_banner", *options, "-i", f"file:{path}"]  # without an output it ends at once


def writing(path: Path, height: int, width: int, fps: float, tool: Ffmpeg) -> list[str]:
    """To write an MP4 of the RGB pictures that come on standard input; its path may be no UTF-8."""
    # even sides, as the codec wants them; white is no motion
    even = "pad=2*ceil(iw/2):2*ceil(ih/2):color=white"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:.6f}", "-i", "pipe:"]
    line = [tool.path, "-v", "error", "-y", *raw, "-vf", even, "-pix_fmt", "yuv420p", "-threads", "1"]
    return [*line, "-movflags", "+faststart", f"file:{path}"]


def _input(video: str | Stills, **options: object) -> ffmpeg.nodes.FilterableStream:
    """The first video stream of a file, or the frames of a folder."""
    if isinstance(video, Stills):
        # which is no file, and whose pattern is ours
        sequence = {"format": "image2", "format_whitelist": "image2", "protocol_whitelist": "file"}
        return ffmpeg.input(
            f"file:{video.pattern}", framerate=STILLS_FPS, start_number=video.first, **sequence, **options
        )["V:0"]
    # "file:" keeps names with a colon from being taken for another protocol
    return ffmpeg.input(f"file:{video}", **ONE_FILE, **options)["V:0"]


def _compile(frames: ffmpeg.nodes.FilterableStream, size: tuple[str, str], tool: Ffmpeg, clock: int) -> list[str]:
    width, height = size
    quality = {"flags": "bicubic+accurate_rnd+bitexact", "out_color_matrix": "bt601", "out_range": "pc"}
    marked = ffmpeg.filter(frames, "metadata", mode="add", key="ccs", value=0)  # it prints frames that have some
    timed = ffmpeg.filter(marked, "metadata", mode="print", key="ccs", file=f"pipe:{clock}", **tool.prompt)
    scaled = ffmpeg.filter(timed, "scale", w=width, h=height, **quality)
    square = ffmpeg.filter(scaled, "setsar", 1)
    output = ffmpeg.output(
        square, "pipe:", format="yuv4mpegpipe", pix_fmt="yuv420p", threads=1, avioflags="direct", **tool.passthrough
    ).global_args("-nostdin", "-nostats", "-loglevel", "level+verbose", "-max_error_rate", "1")
    return ffmpeg.compile(output, cmd=[tool.path, "-filter_complex_threads", "1"])
