"""Class activation maps: where a stream of a trained network finds its evidence for a class. Clips in, pictures out.

`ccs predict --cam` draws them over a video, Figure 6 over some frames. Legend of shapes: T segments, t instants of a
segment (1 in 2-D networks), h w positions of the last feature map, S side of the network's input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import cv2
import matplotlib
import numpy as np
import torch
from captum.attr import LayerGradientXActivation
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor

from ccs.clips.sampling import frame_indices
from ccs.clips.transforms import Crop
from ccs.device import choose_device
from ccs.figures import style
from ccs.frames.film import Ffmpeg
from ccs.frames.film_writer import FilmWriter
from ccs.models.network import CCS
from ccs.models.snippet import Snippet
from ccs.stage import atomic

COLOURS = matplotlib.colormaps["inferno"]  # perceptually uniform: equal steps of a map look equal
_TABLE = (255 * COLOURS(np.arange(256))[:, :3]).astype(np.float32)
OPACITY = 0.15, 0.65  # of the colour over the frame, for shares 0 and 1
EDGE = 0.1  # of a crop's sides, over which the colour fades out towards what the network did not see
FILM_WIDTH = 320  # pixels; narrower frames are enlarged by a whole number, so that the caption can be read


def class_activation_maps(model: CCS, rgb_TFCHW: Tensor, flow_TLCHW: Tensor, *, stream: str, label: int) -> Tensor:
    """What each position of a stream's last feature maps adds to the logit of a class.

    The maps are M(p) = sum_k x_k(p) ds/dx_k(p), with x the features that the connection block gives this stream and s
    its logit. Pooling and head are linear where segments are averaged, so that M(p) = w x(p) / N with w the class's
    row of the head's weights, N = T t h w: the class activation maps of Zhou et al. (CVPR 2016, Eq. 2), and they add
    up to the logit but for its bias terms. For every aggregation the features are averaged over a segment before
    anything else is done with them, so that the gradient is the same all over a segment and M is the Grad-CAM of each
    segment, before its ReLU (Selvaraju et al., ICCV 2017, Eq. 1-2), up to the factor t h w. captum's LayerGradCam
    would average the gradient over segments too; of a maximum or a relation that is another map, hence its
    gradient-times-activation.

    Args:
        model: in evaluation mode. Where its parameters take no gradient, it costs little more than a prediction.
        rgb_TFCHW, flow_TLCHW: one video's clip on the model's device, uint8 (T, F, 3, S, S) and (T, L, 2, S, S).
        stream: rgb or flow.
        label: of the class.

    Returns:
        float32 (T, t, h, w) on the CPU, in units of the logit; negative where the evidence is against the class.

    Raises:
        ValueError: the model is in training mode (dropout would make the maps random), or there is no such stream.
    """
    if model.training:
        raise ValueError("class activation maps: expected a model in evaluation mode, found training mode")
    if stream not in ("rgb", "flow"):
        raise ValueError(f"class activation maps: expected the stream rgb or flow, found {stream!r}")
    attribution = LayerGradientXActivation(lambda rgb, flow: getattr(model(rgb, flow), stream), model.connection)
    clip = rgb_TFCHW.unsqueeze(0), flow_TLCHW.unsqueeze(0)
    # without a connection the other stream's features have no gradient: zeros, not None
    found = attribution.attribute(clip, target=label, grad_kwargs={"materialize_grads": True})
    of_rgb, of_flow = cast("tuple[Tensor, Tensor]", found)  # captum's types leave open what the layer gives
    maps = (of_rgb if stream == "rgb" else of_flow).detach()[0].sum(dim=0)
    return maps.unflatten(0, (len(rgb_TFCHW), -1)).float().cpu()


def map_times(starts: np.ndarray, *, snippet: Snippet, stream: str, instants: int, num_frames: int) -> np.ndarray:
    """The moment that each map shows: float64 (T, t), in frames from the video's start, as segments start at `starts`.

    A 2-D network's RGB map shows its one frame. Flow pair k lies between frames k and k + 1, at k + 0.5. Each of the t
    instants stands for an equal part of its snippet. Moments past the end, of videos that are too short, are the end.
    """
    if stream == "rgb" and not snippet.all_frames:
        return frame_indices(starts, snippet=snippet, num_frames=num_frames).astype(float)
    within = (np.arange(instants) + 0.5) * snippet.flow_length / instants - (0.5 if stream == "rgb" else 0.0)
    return np.minimum(starts[:, None] + within, num_frames - 1)


def interpolate(maps: np.ndarray, times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Maps at other moments, linear between the two neighbours in time, constant before the first and after the last.

    Args:
        maps: (N, h, w).
        times: (N), of each, in any order; maps of one moment are averaged.
        wanted: (n) moments.

    Returns:
        float64 (n, h, w).
    """
    known, which, count = np.unique(times, return_inverse=True, return_counts=True)
    merged = np.zeros((len(known), *maps.shape[1:]))
    np.add.at(merged, which, maps)
    merged /= count[:, None, None]
    place = np.interp(wanted, known, np.arange(len(known)))
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, len(known) - 1)
    share = (place - before)[:, None, None]
    return (1 - share) * merged[before] + share * merged[after]


def shares(maps: np.ndarray) -> np.ndarray:
    """Maps of one video on their common scale: max(M, 0) as share of its largest value, float32 in 0..1.

    Evidence against the class is 0; all is 0 where there is no evidence for it.
    """
    positive = np.maximum(np.asarray(maps, np.float32), 0)
    return positive / max(float(positive.max(initial=0)), np.finfo(np.float32).tiny)


def overlay(frames: np.ndarray, maps: np.ndarray, *, crop: Crop | None = None) -> np.ndarray:
    """Frames with maps blended over them, where the network looked.

    A map is enlarged bilinearly to the crop. Its colour covers the frame the more, the higher it is (`OPACITY`), so
    that the frame stays readable; what the network did not see stays as it is, and where that begins the colour fades
    out (`EDGE`).

    Args:
        frames: uint8 (n, H, W, 3) RGB.
        maps: (n, h, w) in 0..1, as `shares` gives them.
        crop: of the frames, in their pixels; None is all of them.

    Returns:
        uint8 (n, H, W, 3).
    """
    crop = crop or Crop(0, 0, *frames.shape[1:3])
    inside = slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)
    seen = _window(crop.top, crop.height, frames.shape[1])[:, None] * _window(crop.left, crop.width, frames.shape[2])
    out = frames.copy()
    for picture, each in zip(out, maps, strict=True):
        share = cv2.resize(np.asarray(each, np.float32), (crop.width, crop.height), interpolation=cv2.INTER_LINEAR)
        if crop.flip:
            share = share[:, ::-1]
        opacity = (seen * (OPACITY[0] + (OPACITY[1] - OPACITY[0]) * share))[..., None]
        blend = (1 - opacity) * picture[inside] + opacity * _TABLE[np.rint(255 * share).astype(int)]
        picture[inside] = np.rint(blend).astype(np.uint8)
    return out


def _window(start: int, length: int, whole: int) -> np.ndarray:
    """Along a side of a crop, (length): 1, and less towards an end beyond which the frame of `whole` pixels goes on."""
    place = np.arange(length) + 0.5
    before = place if start > 0 else np.full(length, np.inf)
    after = length - place if start + length < whole else np.full(length, np.inf)
    share = np.minimum(np.minimum(before, after) / (EDGE * length), 1)
    return share * share * (3 - 2 * share)


def write_film(
    path: str | Path,
    frames: Iterable[np.ndarray],
    maps: np.ndarray,
    times: np.ndarray,
    *,
    crop: Crop,
    lines: Sequence[str],
    fps: float,
    shown: np.ndarray,
    tool: Ffmpeg,
) -> None:
    """Write a video with maps over it and a caption below as MP4 (H.264, even sides), whole or not at all.

    Args:
        path: of the MP4; the folder is made.
        frames: all of the video, uint8 (H, W, 3) RGB each, read as they are needed.
        maps: (N, h, w) in 0..1, as `shares` gives them; between their moments `interpolate` goes from one to the next.
        times: (N) moments of the maps, in frames.
        crop: that the network saw, in pixels of the frames.
        lines: of the caption.
        fps: frames a second, nominal.
        shown: (T) seconds at which the frames are shown.
        tool: ffmpeg.

    Raises:
        CcsError: the folder cannot be written, or ffmpeg cannot write such a video.
    """
    style.tell_of_boxes(str(path), style.fallbacks("".join(lines))[1])
    film: FilmWriter | None = None
    foot, scale = np.zeros((0, 0, 3), np.uint8), 1
    with atomic(path) as part:
        try:
            for t, frame in enumerate(frames):
                if film is None:
                    scale = math.ceil(FILM_WIDTH / frame.shape[1])
                    height, width = (scale * side for side in frame.shape[:2])
                    foot = caption(lines, width)
                    film = FilmWriter(part, height + len(foot), width, fps, tool)
                large = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
                enlarged = Crop(*(scale * pixels for pixels in crop[:4]), flip=crop.flip)
                (picture,) = overlay(large[None], interpolate(maps, times, np.array([t])), crop=enlarged)
                film.write(np.concatenate([picture, foot])[None], shown[t : t + 1])
            if film:
                film.finish()
        finally:
            if film:
                film.close()


def caption(lines: Sequence[str], width: int) -> np.ndarray:
    """Lines of text, broken where they are too long, black on white: uint8 (h, width, 3)."""
    dpi, margin = 100, 0.06
    with style.applied():
        fitting = [line for text in lines for line in style.wrap(text, width / dpi - 2 * margin)]
        height = math.ceil(dpi * (style.block_height(len(fitting)) + 2 * margin))
        figure = style.new_figure(width / dpi, height / dpi)
        figure.set_dpi(dpi)
        style.write_lines(figure, margin, margin, fitting, color=style.INK)
        style.give_fallbacks(figure)
        canvas = FigureCanvasAgg(figure)
        with style.known_boxes():
            canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def to_device(model: CCS) -> torch.device:
    """Move the model to where it computes (`ccs.device`), freeze it, and return where it is."""
    device = choose_device()
    model.to(device).requires_grad_(False)
    return device
