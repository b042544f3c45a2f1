"""native-cuda against the CPU engine and the digests of OpenCV's flow, on real clips of several sizes; status 1 if not.

Float and 8 bits; the same twice, alone as in the company of other sizes, from several threads at once.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import common
import numpy as np

from ccs.flow.engines import estimate
from ccs.flow.quantise import quantise
from ccs.flow.settings import Parameters

gpu = common.engine()
known = json.loads((common.HERE / "references.json").read_text())["pairs"]
parameters = Parameters(**common.FEW)
sizes = [common.SIZE, None] if common.SMALL else [common.SIZE, None, (427, 240), (171, 128), (640, 360)]
clips = {
    size: {path.stem: common.grey_frames(path, 3, size) for path in common.clip_paths()[: 2 if common.SMALL else 8]}
    for size in sizes
}


def flows_of(videos):
    return gpu.estimate_videos(videos, parameters, common.MEMORY)


def same(flows, others):
    return bool(all(np.array_equal(a, b) for a, b in zip(flows, others, strict=True)))


def in_8_bits(videos):
    return gpu.estimate_quantised(videos, parameters, common.BOUND, common.MEMORY)


wrong = []
everything = [frames for of_size in clips.values() for frames in of_size.values()]
company = flows_of(everything)
with ThreadPoolExecutor(4) as pool:
    parts = [everything[k::4] for k in range(4)]
    threads = list(pool.map(flows_of, parts))
checks = {
    "repeatable": same(company, flows_of(everything)),
    "alone_as_in_company": same([flow[:1] for flow in company[:2]], [flows_of([v[:2]])[0] for v in everything[:2]]),
    "by_threads": all(same(company[k::4], threads[k]) for k in range(4)),
}
quantised = in_8_bits(everything)
checks["8_bits_are_the_floats"] = all(
    np.array_equal(values, quantise(flow, common.BOUND)[0]) and clipped == np.count_nonzero(np.abs(flow) > common.BOUND)
    for flow, (values, clipped) in zip(company, quantised, strict=True)
)
common.say(step="parity", pairs=sum(map(len, company)), **checks)
wrong += [name for name, right in checks.items() if not right]

at = iter(zip(company, quantised, strict=True))
for size, of_size in clips.items():
    rows, like_opencv, references = [], 0, 0
    for stem, frames in of_size.items():
        flow, (values, _) = next(at)
        cpu = estimate(frames, "native", **common.FEW)
        for pair, (ours, theirs) in enumerate(zip(flow, cpu, strict=True)):
            epe, bytes_equal = np.hypot(*(ours - theirs)), values[pair] == quantise(theirs, common.BOUND)[0]
            identical = np.array_equal(ours, theirs)
            rows.append((epe.mean(), epe.max(), bytes_equal.mean(), identical, bytes_equal.all()))
            entry = known.get(f"{stem} {pair}", {})
            if size == common.SIZE and "opencv" in entry and entry["frames"] == common.digest(frames[pair : pair + 2]):
                references += 1
                like_opencv += entry["opencv"] == common.digest(ours)
    epe, worst, bytes_equal, identical, bytes_identical = (np.array(column) for column in zip(*rows, strict=True))
    common.say(
        step="parity",
        size=size or "own",
        pairs=len(rows),
        identical_to_cpu=int(identical.sum()),
        identical_in_8_bits=int(bytes_identical.sum()),
        mean_epe=float(epe.mean()),
        worst_pair_epe=float(epe.max()),
        worst_pixel=float(worst.max()),
        eight_bits_equal=float(bytes_equal.mean()),
        identical_to_opencv=f"{like_opencv}/{references}",
    )
    # a pair in hundreds stops an iteration sooner or later than on the CPU: then it is off by some thousandths
    if not (epe.max() < 0.02 and bytes_equal.mean() > 0.999):
        wrong.append(f"the flow at {size or 'own size'}")
if wrong:
    sys.exit(f"not as it should be: {', '.join(wrong)}")
