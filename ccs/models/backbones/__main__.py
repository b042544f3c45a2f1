"""Published weights of a backbone: fetched into torch.hub's folder, checked, and loaded once to see that they fit.

    ccs weights                          # what there is, with files, digests and addresses
    ccs weights bninception kinetics     # both streams' files of it; without a name, of all names

For machines without a network, such as the nodes of a cluster: call it where there is one, on the same file system, or
copy the files that it names into the folder that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ccs.models import backbones, published
from ccs.models.catalogue import BACKBONES, OWN, WEIGHTS, unpublished
from ccs.settings import Flags
from ccs.stage import CcsError, run


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch and check, or list; `CcsError` where a file cannot be had or does not fit."""
    parser = Flags(prog="ccs weights", description="Fetch and check the published weights of a backbone, or list them.")
    parser.add_argument("backbone", nargs="?", help="bninception, i3d or a network of torchvision; none: list")
    parser.add_argument("name", nargs="?", choices=WEIGHTS, help="one of its weights (default: all that it has)")
    args = parser.parse_args(argv)
    if args.backbone is None:
        print("\n".join(listed()))
        return
    backbones.is_3d(args.backbone)  # it is known
    entry = BACKBONES[args.backbone]
    names = [args.name] if args.name else list(entry.weights)
    if not names:
        raise CcsError(unpublished(args.backbone, WEIGHTS[0]))
    for name in names:
        for flow_length in (None, entry.flow_pairs.get(name, 5)):
            backbones.build(args.backbone, weights=name, flow_length=flow_length)
        print(f"{args.backbone} {name}: in {published.folder()}, as published")


def listed() -> Iterator[str]:
    """A line for each file in `published.FILES`, with its addresses below it, and where torchvision's come from."""
    for (backbone, name), streams in published.FILES.items():
        for stream, files in zip(("RGB", "flow"), streams, strict=True):
            for file in files:
                yield f"{backbone} {name}, {stream}: {file.name} ({file.digest})"
                yield from (f"    {address}" for address in file.addresses)
    ours = [f"{name} {weights}" for name, entry in OWN.items() for weights in entry.weights]
    of_torchvision = [each for each in ours if tuple(each.split()) not in published.FILES]
    yield f"{', '.join(of_torchvision)}, and imagenet of all others: torchvision's own"
    yield f"They go into {published.folder()}"


if __name__ == "__main__":
    run(main)
