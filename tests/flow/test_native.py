"""The native engine on the CPU against OpenCV's, to the bit, and its machine code."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import threading

import cv2
import llvmlite.binding
import numpy as np
import pytest
from numba import njit

from ccs.flow import compiled, kernels
from ccs.flow.engines import estimate, estimate_videos
from ccs.flow.kernels import LANES, load, splat, store
from ccs.flow.pyramid import level_sizes
from ccs.stage import CcsError

from .test_estimate import CHANGED, fresh, noise, texture

# where OpenCV's own code is vectorised with fused products, as on every x86 of the last ten years; elsewhere its
# bicubic samples are rounded otherwise, and one bit grows to hundredths of a pixel in places
SAME_BITS = platform.machine() == "x86_64" and llvmlite.binding.get_host_cpu_features().get("fma", False)


def assert_same(flow: np.ndarray, expected: np.ndarray) -> None:
    if SAME_BITS:
        np.testing.assert_array_equal(flow, expected)
    else:
        assert np.hypot(*(flow - expected)).mean() < 0.02


def opencv(first: np.ndarray, second: np.ndarray, **parameters) -> np.ndarray:
    return estimate(np.stack([first, second]), "opencv", **parameters)[0]


SIZES = [(16, 16), (16, 100), (100, 17), (48, 64), (41, 57), (61, 31), (33, 144), (3, 3), (5, 40), (40, 4)]
SIZES += [pytest.param(120, 161, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equals_opencv_at_any_size(height, width):
    frames = noise(3, height, width)
    flow = estimate(frames, "native")
    assert (flow.shape, flow.dtype) == ((2, 2, height, width), np.float32)
    for pair in range(2):
        assert_same(flow[pair], fresh(*frames[pair : pair + 2]))


@pytest.mark.slow
def test_equals_opencv_at_1080p():
    frames = np.stack([texture(1080, 1920), texture(1080, 1920, 3.3, -1.2)])
    few = {"warps": 2, "inner_iterations": 2, "outer_iterations": 2}
    assert_same(estimate(frames, "native", **few)[0], opencv(*frames, **few))


@pytest.mark.parametrize(
    "parameters",
    [
        {name: value for name, value in CHANGED.items() if name != "gamma"},
        {"median_filtering": 1},
        {"median_filtering": 3},
        {"epsilon": 0, "inner_iterations": 3, "outer_iterations": 2},
        {"scale_step": 0.5, "scales": 3},
        {"scale_step": 0.95, "scales": 9, "epsilon": 0.05},
        {"lambda": 2.0, "theta": 0.05, "tau": 0.05},
        {"lambda": 1e-6, "epsilon": 0.001, "warps": 1, "scales": 1},
    ],
    ids=str,
)
def test_every_parameter_means_what_it_means_to_opencv(parameters):
    first, second = noise(2, 44, 60)
    assert_same(estimate(np.stack([first, second]), "native", **parameters)[0], opencv(first, second, **parameters))


@pytest.mark.slow
def test_real_clips(real_data):
    """The first pair of every UCF-101 and HMDB-51 clip at 160x120; benchmarks/flow.py measures 440 pairs, full size."""
    clips = [*real_data.glob("ucf101/**/*.avi"), *real_data.glob("hmdb51/**/*.avi")]
    errors, equal = [], []
    for clip in clips:
        video = cv2.VideoCapture(str(clip))
        grey = [cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(2)]
        frames = np.stack([cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA) for image in grey])
        flow, expected = estimate(frames, "native")[0], fresh(*frames)
        errors.append(np.hypot(*(flow - expected)).mean())
        equal.append(np.array_equal(flow, expected))
    assert len(clips) >= 20
    assert np.mean(errors) < (0.003 if SAME_BITS else 0.02)
    if SAME_BITS:
        # OpenCV adds up its stop test in another order: now and then a pair makes an iteration more or less
        assert sum(equal) >= len(clips) - 1


@pytest.mark.parametrize(
    ("name", "crop"), [("ipol_I0_I1", np.s_[:, :]), ("middlebury_rubberwhale_10_11", np.s_[150:290, 120:300])]
)
def test_no_further_from_the_original_authors_code_than_opencv(real_data, name, crop):
    with np.load(real_data / "flow_ref" / f"{name}.npz") as data:
        frames, reference = np.stack([data["gray0"][crop], data["gray1"][crop]]), data["flow"][crop].transpose(2, 0, 1)
    ours, theirs = (np.hypot(*(estimate(frames, backend)[0] - reference)).mean() for backend in ("native", "opencv"))
    assert ours <= 1.01 * theirs


@pytest.mark.parametrize("level", [0, 128, 255])
def test_nothing_moves_where_nothing_is_to_be_seen(level):
    assert not estimate(np.full((3, 37, 50), level, np.uint8), "native").any()


def test_flat_parts_and_jumps_in_brightness_stay_finite():
    frames = np.zeros((4, 40, 48), np.uint8)
    frames[1, 10:20] = 255  # appears from nothing, then all is white
    frames[2] = 255
    frames[3, :, ::2] = 255
    flow = estimate(frames, "native")
    assert np.isfinite(flow).all()
    for pair in range(3):
        assert_same(flow[pair], fresh(*frames[pair : pair + 2]))


def test_the_flow_of_a_pair_does_not_depend_on_its_company():
    long, wide = noise(4, 40, 56), noise(2, 24, 90)
    together = estimate_videos([long, wide, wide[:1]], "native")
    assert [flow.shape for flow in together] == [(3, 2, 40, 56), (1, 2, 24, 90), (0, 2, 24, 90)]
    for pair in range(3):
        np.testing.assert_array_equal(together[0][pair], estimate(long[pair : pair + 2], "native")[0])
    np.testing.assert_array_equal(together[1], estimate(wide, "native"))
    np.testing.assert_array_equal(together[0], estimate(long, "native"))


def test_an_illumination_term_is_refused():
    frames = noise(2, 20, 20)
    with pytest.raises(CcsError, match=r"gamma is 0\.1, but it has no illumination term.*backend to auto"):
        estimate(frames, "native", gamma=0.1)
    np.testing.assert_array_equal(estimate(frames, "auto", gamma=0.1), estimate(frames, "opencv", gamma=0.1))


def test_levels_are_those_of_opencv():
    class Settings:
        scales, scale_step = 5, 0.8

    assert level_sizes(256, 340, Settings) == [(256, 340), (205, 272), (164, 218), (131, 174), (105, 139)]
    assert level_sizes(31, 31, Settings) == [(31, 31), (25, 25), (20, 20), (16, 16)]
    assert level_sizes(19, 400, Settings) == [(19, 400)]  # 15.2 is too small


@njit
def _hypots(a, b, out, doubt):
    for at in range(0, len(a), LANES):
        first, second = kernels.hypot(load(a, at), load(b, at), splat(kernels.TINY))
        store(out, at, first)
        store(doubt, at, second)


def test_hypot_is_correctly_rounded():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2, 1 << 20)) * 10 ** rng.uniform(-7, 2, (2, 1 << 20))).astype(np.float32)
    b[::5], b[1::5], a[2::7] = 0, a[1::5], 0
    out, other = np.empty_like(a), np.empty_like(a)
    _hypots(a, b, out, other)
    expected = np.hypot(a.astype(float), b.astype(float)).astype(np.float32)
    seen = expected > 1e-12  # what is less, 1 + taut * hypot does not see
    sure = out == other
    np.testing.assert_array_equal(out[seen & sure], expected[seen & sure])
    assert seen.mean() > 0.9
    assert sure.mean() > 0.999
    assert (out != expected).any()
    assert (out[~seen] < 1e-11).all()


def iterated(deep: int, stop: float, height: int = 37, width: int = 57) -> tuple[float, np.ndarray]:
    """The last change, and the fields (6, H, W) after up to 12 iterations in passes of at most `deep`."""
    up, rng = -(-width // LANES) * LANES, np.random.default_rng(0)
    pitch = up + kernels.PAD
    state = np.zeros((height + 1) * kernels.SLOTS * pitch + kernels.PAD, np.float32)
    planes = state[: -kernels.PAD].reshape(height + 1, kernels.SLOTS, pitch)[1:, :, kernels.PAD : kernels.PAD + width]
    for plane in (kernels.GX, kernels.GY, kernels.RHO):
        planes[:, plane] = cv2.GaussianBlur(rng.normal(0, 20, (height, width)).astype(np.float32), (0, 0), 1)
    planes[:, kernels.G] = planes[:, kernels.GX] ** 2 + planes[:, kernels.GY] ** 2
    inside = (np.arange(LANES) < width - up + LANES).astype(np.float32)
    steps = np.float32(0.045), np.float32(0.3), np.float32(0.25 / 0.3), np.float32(stop)
    changes = np.zeros(deep, np.float32)
    change, side = kernels.iterate(state, 0, height, width, up, pitch, inside, *steps, 12, deep, changes)
    return change, planes[:, side * kernels.FIELDS : (side + 1) * kernels.FIELDS].copy()


def test_passes_of_several_iterations_end_where_single_ones_do():
    """Wherever the stop falls: in a pass, at its end, in the first one, or nowhere."""
    ends = [iterated(1, stop)[0] for stop in np.geomspace(1, 1000, 24)]
    assert len(set(ends)) >= 8
    for stop in {0, *ends}:
        change, fields = iterated(1, stop)
        assert np.isfinite(fields).all()
        assert change <= stop or stop == 0
        for deep in (2, 3, 8):
            other, others = iterated(deep, stop)
            assert other == change
            np.testing.assert_array_equal(others, fields)


def run(code: str, tmp_path, **environment: str) -> str:
    """In a process that compiles everything anew."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), **environment}
    line = [sys.executable, "-c", code]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout


ESTIMATE = """
import hashlib, numpy as np
from ccs.flow.engines import estimate
from ccs.flow import kernels
frames = np.random.default_rng(0).integers(0, 256, (3, 41, 70), np.uint8)
flows = estimate(frames, "native"), estimate(frames[:, :31, :25], "native", scale_step=0.9, scales=3)
print(kernels.LANES, hashlib.sha256(b"".join(flow.tobytes() for flow in flows)).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is x86's")
@pytest.mark.skipif(not llvmlite.binding.get_host_cpu_features().get("avx2"), reason="needs a processor with AVX2")
def test_older_processors_give_the_same_bits(tmp_path):
    older = run(ESTIMATE, tmp_path, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx,+avx2,+fma,+bmi,+bmi2")
    newer = run(ESTIMATE, tmp_path)
    assert older.split()[0] == "8"
    assert older.split()[1] == newer.split()[1]


@pytest.mark.slow
def test_it_runs_where_no_compiled_code_can_be_kept(tmp_path):
    nowhere = "import tempfile\ndef fail(*args, **options): raise PermissionError\ntempfile.TemporaryFile = fail\n"
    assert run(nowhere + ESTIMATE, tmp_path) == run(ESTIMATE, tmp_path)


def test_one_process_compiles_for_all_and_the_others_wait(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compiled, "folder", lambda: str(tmp_path))
    compiling, waiting, runs = threading.Event(), threading.Event(), []

    def compile_all():
        runs.append(1)
        compiling.set()
        assert waiting.wait(60)

    say = compiled._say
    monkeypatch.setattr(compiled, "_say", lambda text: (say(text), text.startswith("waiting") and waiting.set()))
    threads = [threading.Thread(target=compiled.compile_once, args=(compile_all,)) for _ in range(2)]
    threads[0].start()
    assert compiling.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join()
    compiled.compile_once(compile_all)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"ccs: flow: compiling the flow engine for this processor ({compiled.processor()}), once")
    assert second.startswith("ccs: flow: waiting for another process")
    assert len(runs) == 1

    monkeypatch.setattr(compiled, "SOURCE", tmp_path / "kernels.py")  # another source: edited, for instance
    compiled.SOURCE.touch()
    compiled.compile_once(compile_all)
    assert len(runs) == 2


def test_where_nothing_can_be_kept_it_is_said_how_to_change_that(monkeypatch, capsys):
    def fail(*args, **options):
        raise PermissionError

    monkeypatch.setattr(compiled.tempfile, "TemporaryFile", fail)
    compiled.folder.cache_clear()
    try:
        compiled.compile_once(lambda: pytest.fail("its code would be lost"))
    finally:
        compiled.folder.cache_clear()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"every process of every call compiles .* environment variable NUMBA_CACHE_DIR$", line)


CODE = """
import numpy as np
from ccs.flow.engines import estimate
from ccs.flow import kernels
estimate(np.zeros((2, 20, 20), np.uint8), "native")
for function in (kernels.iterate, kernels.median5):
    print("\\n".join(function.inspect_llvm().values()))
    print("\\n".join(function.inspect_asm().values()))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86's assembly")
def test_iterations_are_vector_code(tmp_path):
    text = run(CODE, tmp_path)
    names = r"add|sub|mul|div|rsqrt14|rsqrt|min|max|fn?m(?:add|sub)\w*"
    arithmetic = re.findall(rf"^\s+v({names})(ps|ss)\s.*%([xyz])mm", text, re.MULTILINE)
    packed = [operation for operation, kind, size in arithmetic if kind == "ps" and size in "yz"]
    scalar = [operation for operation, kind, _ in arithmetic if kind == "ss"]
    assert {"add", "sub", "mul", "div", "max", "rsqrt14" if LANES == 16 else "rsqrt"} <= set(packed)
    assert ("vpminsd" if kernels.SORTS_INTEGERS else "vminps") in text
    # scalars are left for sums over a row's lanes and over rows
    assert set(scalar) <= {"add"}
    assert "vector.memcheck" not in text  # LLVM's checks for aliasing
