"""`estimate` against known motion, against OpenCV called directly, and against another implementation."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import ccs
from ccs.flow.engines import BACKENDS, choose, estimate
from ccs.stage import CcsError

CHANGED = {
    "tau": 0.2,
    "lambda": 0.1,
    "theta": 0.25,
    "scales": 2,
    "scale_step": 0.7,
    "warps": 2,
    "epsilon": 0.02,
    "inner_iterations": 7,
    "outer_iterations": 3,
    "median_filtering": 3,
    "gamma": 0.4,
}


def texture(height: int, width: int, shift_x: float = 0.0, shift_y: float = 0.0, seed: int = 0) -> np.ndarray:
    """uint8 (H, W): a sum of waves, so that a translation by any fraction of a pixel is exact."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.zeros((height, width))
    for fx, fy, phase in zip(*rng.uniform(-0.12, 0.12, (2, 30)), rng.uniform(0, 1, 30), strict=True):
        image += np.cos(2 * np.pi * (fx * (x - shift_x) + fy * (y - shift_y) + phase))
    return np.uint8(np.clip(np.rint(128 + 14 * image), 0, 255))


def noise(num_frames: int, height: int, width: int) -> np.ndarray:
    """Frames whose flow is irregular, so that any difference in how it is computed shows."""
    rng = np.random.default_rng(height)
    frames = rng.integers(0, 256, (num_frames, height, width), dtype=np.uint8)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in frames])


def fresh(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """OpenCV's own answer, by an object that has seen nothing else, as (2, H, W)."""
    return cv2.optflow.createOptFlow_DualTVL1().calc(first, second, None).transpose(2, 0, 1)


@pytest.mark.parametrize("motion", [(2.0, 0.0), (0.0, -1.0), (1.5, -0.75), (-0.3, 2.6)])
def test_known_translation(motion):
    frames = np.stack([texture(48, 64), texture(48, 64, *motion)])
    flow = estimate(frames, backend="opencv")
    assert flow.shape == (1, 2, 48, 64)
    assert flow.dtype == np.float32
    inside = flow[0, :, 8:-8, 8:-8]
    error = np.hypot(inside[0] - motion[0], inside[1] - motion[1])
    assert error.mean() < 0.05
    # the sign by its definition: what is at p in the first frame is at p + flow in the second
    y, x = np.mgrid[:48, :64].astype(np.float32)
    warped = cv2.remap(frames[1], x + flow[0, 0], y + flow[0, 1], cv2.INTER_LINEAR)
    before, after = (
        np.abs(image[8:-8, 8:-8] - np.float32(frames[0, 8:-8, 8:-8])).mean() for image in (frames[1], warped)
    )
    assert after < 0.2 * before


def test_equals_opencv_called_directly():
    first, second = noise(2, 40, 56)
    np.testing.assert_array_equal(estimate(np.stack([first, second]), "opencv")[0], fresh(first, second))


def test_every_parameter_reaches_opencv():
    first, second = noise(2, 40, 56)
    direct = cv2.optflow.createOptFlow_DualTVL1()
    for setter, name in [
        (direct.setTau, "tau"),
        (direct.setLambda, "lambda"),
        (direct.setTheta, "theta"),
        (direct.setScalesNumber, "scales"),
        (direct.setScaleStep, "scale_step"),
        (direct.setWarpingsNumber, "warps"),
        (direct.setEpsilon, "epsilon"),
        (direct.setInnerIterations, "inner_iterations"),
        (direct.setOuterIterations, "outer_iterations"),
        (direct.setMedianFiltering, "median_filtering"),
        (direct.setGamma, "gamma"),
    ]:
        setter(CHANGED[name])
    expected = direct.calc(first, second, None).transpose(2, 0, 1)
    np.testing.assert_array_equal(estimate(np.stack([first, second]), "opencv", **CHANGED)[0], expected)


def test_what_came_before_changes_nothing():
    estimate(noise(2, 18, 18), "opencv")  # lowers the number of scales of the object that it uses
    frames = noise(3, 44, 44)
    flow = estimate(frames, "opencv")
    for pair in range(2):
        np.testing.assert_array_equal(flow[pair], fresh(frames[pair], frames[pair + 1]))
    np.testing.assert_array_equal(estimate(frames, "opencv"), flow)


def test_any_strides_and_read_only_frames():
    frames = noise(2, 20, 26)
    view = np.repeat(frames, 2, axis=2)[::-1, :, ::-2]
    view.flags.writeable = False
    np.testing.assert_array_equal(estimate(view, "opencv"), estimate(np.ascontiguousarray(view), "opencv"))


@pytest.mark.parametrize(("height", "width"), [(3, 3), (3, 31), (15, 9), (17, 16)])
def test_sizes_too_small_for_a_pyramid(height, width):
    still = np.full((2, height, width), 90, np.uint8)
    assert not estimate(still, "opencv", scale_step=0.2).any()
    frames = noise(2, height, width)
    np.testing.assert_array_equal(estimate(frames, "opencv")[0], fresh(*frames))


def test_colour_frames_are_greyed_and_a_user_needs_no_engine():
    moving = np.stack([texture(48, 64), texture(48, 64, 1.5, -0.75)])
    colour = np.uint8(np.rint(moving[..., None] * np.array([1.0, 0.3, 0.6])))
    grey = np.uint8(np.rint(colour @ np.array([0.299, 0.587, 0.114])))  # luma of R, G, B: ITU-R BT.601
    found = ccs.flow.estimate(colour)
    assert np.abs(found - ccs.flow.estimate(grey)).mean() < 0.01
    for empty in ((0, 20, 30, 3), (2, 0, 30, 3)):
        with pytest.raises(ccs.CcsError, match=rf"sides of 3 px or more; found {empty[0]} frames"):
            ccs.flow.estimate(np.zeros(empty, np.uint8))
    np.testing.assert_allclose(found[0, :, 8:-8, 8:-8].mean(axis=(1, 2)), (1.5, -0.75), atol=0.05)
    assert ccs.flow.estimate(colour[:1]).shape == (0, 2, 48, 64)


def test_one_frame_has_no_pair():
    assert estimate(noise(1, 20, 24), "opencv").shape == (0, 2, 20, 24)


@pytest.mark.parametrize(("name", "bound"), [("ipol_I0_I1", 0.1), ("middlebury_rubberwhale_10_11", 0.4)])
def test_near_the_original_authors_code(real_data, name, bound):
    """Another algorithm of the same family: measured 0.056 px (ipol) and 0.22 px (this crop of rubberwhale)."""
    with np.load(real_data / "flow_ref" / f"{name}.npz") as data:
        frames, reference = np.stack([data["gray0"], data["gray1"]]), data["flow"]
    crop = np.s_[150:290, 120:300] if frames.shape[1] > 256 else np.s_[:, :]
    flow = estimate(np.stack([frame[crop] for frame in frames]), "opencv")[0].transpose(1, 2, 0)
    assert np.linalg.norm(flow - reference[crop], axis=2).mean() < bound


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (np.zeros((0, 20, 20), np.uint8), "0 frames"),
        (np.zeros((2, 2, 20), np.uint8), "20x2"),
        (np.zeros((2, 20, 0), np.uint8), "0x20"),
        (np.zeros((2, 20, 20), np.float32), "float32"),
        (np.zeros((20, 20), np.uint8), r"\(20, 20\)"),
        (np.zeros((2, 20, 20, 4), np.uint8), r"\(2, 20, 20, 4\)"),
        ([[1]], "list"),
    ],
)
def test_unusable_frames_are_refused(frames, found):
    with pytest.raises(CcsError, match=found):
        estimate(frames, "opencv")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tau", 0.26),
        ("tau", 0),
        ("lambda", -0.15),
        ("lambda_", 0.0),
        ("theta", 0),
        ("scales", 0),
        ("scales", 2.0),
        ("scale_step", 1.0),
        ("scale_step", 0.1),
        ("warps", True),
        ("epsilon", -1e-9),
        ("epsilon", float("nan")),
        ("inner_iterations", 0),
        ("outer_iterations", 0),
        ("median_filtering", 4),
        ("gamma", float("inf")),
        ("tau", "0.25"),
    ],
)
def test_parameters_out_of_range_are_named(name, value):
    with pytest.raises(CcsError, match=f"setting {name.rstrip('_')}: .*found {value!r}"):
        estimate(np.zeros((2, 20, 20), np.uint8), "opencv", **{name: value})


def test_unknown_names_are_named():
    with pytest.raises(CcsError, match=r"unknown parameter nscales; .*scales"):
        estimate(np.zeros((2, 20, 20), np.uint8), "opencv", nscales=3)
    with pytest.raises(CcsError, match=r"unknown backend 'cuda'; .*opencv-cuda"):
        estimate(np.zeros((2, 20, 20), np.uint8), "cuda")


class FakeCuda:
    """Stands in for `cv2.cuda` of a build with CUDA: its flow comes from the CPU, and it notes how it is used."""

    def __init__(self, num_devices: int = 1, compatible: bool = True, built: bool = True):
        self.created, self.streams, self.pooled = [], [], False
        self.getCudaEnabledDeviceCount = lambda: num_devices
        self.DeviceInfo = lambda device: SimpleNamespace(isCompatible=lambda: compatible)
        self.GpuMat = FakeGpuMat
        if built:
            self.OpticalFlowDual_TVL1_create = self.create

    def setBufferPoolUsage(self, on):
        self.pooled = on

    def Stream(self):
        assert self.pooled, "a stream made before the pool is asked for does not use it"
        self.streams.append(SimpleNamespace(waitForCompletion=lambda: None))
        return self.streams[-1]

    def create(self, *arguments):
        self.created.append(arguments)

        def calc(first, second, flow, stream):
            assert stream is self.streams[-1]
            result = FakeGpuMat()
            result.upload(cv2.optflow.createOptFlow_DualTVL1().calc(first.array, second.array, None), stream)
            return result

        return SimpleNamespace(calc=calc)


class FakeGpuMat:
    def upload(self, array, stream):
        self.array = array.copy()

    def download(self, stream):
        return self.array


@pytest.mark.parametrize(("missing", "chosen"), [(None, "native-cuda"), ("no GPU", "native")])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, missing, chosen):
    monkeypatch.setitem(BACKENDS, "native-cuda", BACKENDS["native-cuda"]._replace(available=lambda: missing))
    assert choose("auto") == chosen


def test_cuda_is_asked_as_it_wants_to_be(monkeypatch):
    frames = noise(4, 20, 24)
    expected = estimate(frames, "opencv")
    monkeypatch.setattr(cv2, "cuda", fake := FakeCuda())
    np.testing.assert_array_equal(estimate(frames, "opencv-cuda"), expected)
    assert len(fake.streams) == 1
    assert fake.created == [(0.25, 0.15, 0.3, 5, 5, 0.01, 300, 0.8, 0.0, False)]
    estimate(frames[:2], "opencv-cuda", tau=0.2, inner_iterations=4, outer_iterations=2)
    assert len(fake.created) == 2, "an object serves one size only"
    assert fake.created[1][0::6] == (0.2, 8)


@pytest.mark.parametrize(
    ("fake", "advice"),
    [
        (FakeCuda(built=False), "envs/opencv-cuda.sh"),
        (FakeCuda(num_devices=0), "CUDA_VISIBLE_DEVICES"),
        (FakeCuda(num_devices=-1), "driver"),
        (FakeCuda(compatible=False), "compute capability"),
        (None, "envs/opencv-cuda.sh"),
    ],
    ids=["not built", "no device", "old driver", "other GPU", "no module"],
)
def test_cuda_that_does_not_work(monkeypatch, fake, advice):
    frames = noise(2, 20, 24)
    if fake:
        monkeypatch.setattr(cv2, "cuda", fake)
    else:
        monkeypatch.delattr(cv2, "cuda")
    with pytest.raises(CcsError, match=f"(?s)opencv-cuda cannot be used here: .*{advice}.*set the flow backend"):
        estimate(frames, "opencv-cuda")


def test_opencv_without_its_extra_modules(monkeypatch):
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(CcsError, match="Install opencv-contrib-python-headless"):
        estimate(noise(2, 20, 24), "opencv")


@pytest.mark.gpu
def test_cuda_on_a_gpu():
    if not (hasattr(cv2.cuda, "OpticalFlowDual_TVL1_create") and cv2.cuda.getCudaEnabledDeviceCount() > 0):
        pytest.skip("needs an OpenCV built with CUDA, and a GPU")
    frames = np.stack([texture(48, 64), texture(48, 64, 1.5, -0.75), texture(48, 64, 3.0, -1.5)])
    flow = estimate(frames, "opencv-cuda")[:, :, 8:-8, 8:-8]
    assert np.hypot(flow[:, 0] - 1.5, flow[:, 1] + 0.75).mean() < 0.1
