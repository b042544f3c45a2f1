"""Where a run loses: in its features, or in the classifier on them? Fresh linear classifiers on frozen features.

    python benchmarks/probe.py --folder DIR --runs two_stream cb cs ccs

DIR is a folder in which the demo has run. For each run and seed the pooled features that reach the head are taken from
the training (and validation) and the test videos, at segment centres; a logistic regression for each stream of its own
is fitted to the former. Prints top-1 of the network's own head and of these classifiers, RGB, flow and their sum. Where
the latter are no better, the features lack what the head does not find.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from ccs.clips.dataset import TestClips
from ccs.datasets import manifests
from ccs.models.network import snippet_of
from ccs.shards.reader import ShardReader
from ccs.train import checkpoint

SEGMENTS = 8
PENALTY = 0.001  # on squared weights of standardised features


def main() -> None:
    """Print a row for each run: means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the demo has run")
    parser.add_argument("--runs", nargs="+", required=True, help="names of runs")
    args = parser.parse_args()
    manifest = manifests.read(args.folder / "data/demo/manifest.csv")
    reader = ShardReader(sorted((args.folder / "data/demo/shards").glob("*.h5")))
    print("| run | seeds | RGB | Flow | RGB+Flow | fresh RGB | fresh Flow | fresh RGB+Flow |\n" + "|---" * 8 + "|")
    for run in args.runs:
        paths = sorted((args.folder / f"results/runs/demo/split1/{run}").glob("seed*/checkpoint.pt"))
        rows = [probe(checkpoint.network(checkpoint.read(path)), manifest, reader) for path in paths]
        print(f"| {run} | {len(rows)} | {' | '.join(f'{value:.1f}' for value in np.mean(rows, axis=0))} |", flush=True)


def probe(trained: checkpoint.TrainedNetwork, manifest: manifests.Manifest, reader: ShardReader) -> list[float]:
    """Top-1 in percent: own head's RGB, flow, sum; fresh classifiers' RGB, flow, sum."""
    train, test = (collect(trained, manifest, reader, parts) for parts in (("train", "val"), ("test",)))
    own = [test["rgb"], test["flow"]]
    fresh = [fit(train[name], train["label"])(test[name]) for name in ("x_rgb", "x_flow")]
    return [
        100 * float((logits.argmax(dim=1) == test["label"]).float().mean())
        for rgb, flow in (own, fresh)
        for logits in (rgb, flow, rgb + flow)
    ]


def collect(
    trained: checkpoint.TrainedNetwork, manifest: manifests.Manifest, reader: ShardReader, parts: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """Features (N, D) and logits (N, classes) of both streams, and labels (N)."""
    videos = [video for video in manifest.videos if video.split in parts]
    snippet = snippet_of(trained.network)
    clips = TestClips(reader, videos, trained.clips, snippet=snippet, segments=SEGMENTS, crops=1)
    seen: list[tuple[torch.Tensor, ...]] = []
    hook = trained.model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    outputs, labels = [], []
    with torch.inference_mode():
        for index in range(len(clips)):
            rgb, flow, label = clips[index]
            outputs.append(trained.model(rgb, flow))
            labels.append(label)
    hook.remove()
    found = {"x_rgb": torch.cat([x for x, _ in seen]), "x_flow": torch.cat([x for _, x in seen])}
    found |= {name: torch.cat([getattr(output, name) for output in outputs]) for name in ("rgb", "flow")}
    return {**{name: value.clone() for name, value in found.items()}, "label": torch.tensor(labels)}


def fit(x: torch.Tensor, label: torch.Tensor):
    """Logistic regression on standardised features; a function from features to logits."""
    mean, scale = x.mean(dim=0), x.std() + 1e-6
    weight = torch.zeros(x.shape[1], int(label.max()) + 1, requires_grad=True)
    bias = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy((x - mean) / scale @ weight + bias, label)
        value = value + PENALTY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return lambda other: ((other - mean) / scale @ weight + bias).detach()


if __name__ == "__main__":
    main()
