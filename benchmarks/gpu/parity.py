"""native-cuda against the CPU engine and the digests of OpenCV's flow, on real clips at 340x256 and own size; twice."""

import hashlib
import json

import common
import numpy as np

from ccs.flow.engines import estimate
from ccs.flow.quantise import quantise
from ccs.flow.settings import Parameters

gpu = common.engine()
import os

known = json.loads((common.HERE / "references.json").read_text())["pairs"]
small = bool(os.environ.get("CCS_TRIAL_SIMULATED"))
few = dict(scales=2, warps=1, inner_iterations=2, outer_iterations=1) if small else {}
for size in [(24, 20)] if small else [common.SIZE, None, (427, 240), (171, 128)]:
    paths = common.clip_paths()[: 1 if small else 8]
    clips = [common.grey_frames(path, 3, size) for path in paths]
    flows = gpu.estimate_videos(clips, Parameters(**few), 4 << 30)
    again = gpu.estimate_videos(clips, Parameters(**few), 4 << 30)
    repeatable = all(np.array_equal(a, b) for a, b in zip(flows, again))
    single = gpu.estimate_videos([clips[0][:2]], Parameters(**few), 4 << 30)[0]
    rows, like_opencv, references = [], 0, 0
    for path, frames, flow in zip(paths, clips, flows):
        cpu = estimate(frames, "native", **few)
        for pair, (ours, theirs) in enumerate(zip(flow, cpu)):
            epe = np.hypot(*(ours - theirs))
            steps = np.abs(quantise(ours, 20)[0].astype(int) - quantise(theirs, 20)[0])
            rows.append(
                (epe.mean(), epe.max(), np.mean(steps == 0), np.array_equal(ours, theirs), np.isfinite(ours).all())
            )
            entry = known.get(f"{path.stem} {pair}")
            if (
                size == common.SIZE
                and entry
                and entry["frames"] == hashlib.sha256(frames[pair : pair + 2].tobytes()).hexdigest()[:16]
            ):
                references += 1
                like_opencv += entry.get("opencv") == hashlib.sha256(ours.tobytes()).hexdigest()[:16]
    columns = list(zip(*rows))
    common.say(
        step="parity",
        size=size or "own",
        pairs=len(rows),
        identical_to_cpu=int(sum(columns[3])),
        mean_epe=float(np.mean(columns[0])),
        worst_pair_epe=float(np.max(columns[0])),
        worst_pixel=float(np.max(columns[1])),
        eight_bits_equal=float(np.mean(columns[2])),
        finite=bool(all(columns[4])),
        repeatable=repeatable,
        alone_as_in_batch=bool(np.array_equal(single, flows[0][:1])),
        identical_to_opencv=f"{like_opencv}/{references}",
    )
