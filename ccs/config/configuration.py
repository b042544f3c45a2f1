"""The configuration: read from YAML by Snakemake, checked here against the settings of the stages.

A misspelt key, a wrong type or a value out of range is an error that names the key. Defaults are filled in, so that
what follows needs none. Nothing slow is imported: every job of a cluster parses the Snakefile.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from ccs.config.messages import Checker, Key, leaves, not_text, texts
from ccs.datasets import adapters
from ccs.datasets.disk import nfc
from ccs.datasets.manifests import Manifest
from ccs.flow.settings import FlowSettings, GpuSettings
from ccs.frames.settings import FfmpegSettings, FramesSettings
from ccs.models.catalogue import WEIGHTS
from ccs.models.settings import ANY_NUMBER
from ccs.quarantine import QuarantineSettings
from ccs.settings import Different, Field, Ge, Integer, Le, by_name, from_names, nearest, settings, word
from ccs.stage import CcsError
from ccs.tables import shown
from ccs.train.settings import EvaluateSettings, RunSettings, conflicts


@settings
class GeneralSettings(GpuSettings, QuarantineSettings, FfmpegSettings):
    """Of the whole workflow."""

    seeds: Annotated[tuple[Annotated[Integer, Ge(0), Le(2**32 - 1)], ...], Field(min_length=1), Different()] = (0, 1, 2)
    """every run is trained once with each"""


BLOCKS = {"frames": FramesSettings, "flow": FlowSettings, "train": RunSettings, "evaluate": EvaluateSettings}
SECTIONS = {
    "datasets": "data sets by name; each becomes data/NAME and columns of the tables",
    "frames": "how videos are decoded",
    "flow": "TV-L1 optical flow, with OpenCV's defaults",
    "train": "settings of every run, unless the run says otherwise",
    "evaluate": "how test videos are scored",
    "bases": "named changes that runs start from; one that is given here takes the place of that name's default",
    "runs": "experiments by name, each with the base that it starts from (tsn unless it says so) and what it changes "
    "in `train` and, under the key evaluate, in `evaluate`",
    "tables": "which runs the tables show",
    "figures": "which runs the figures show",
}
ADAPTER = "how the videos and their lists are laid out"
NAME = "^[A-Za-z0-9][A-Za-z0-9_-]*$"
UNSAYABLE = re.compile("[\0\ud800-\udfff]")
A_NAME = "a name is made of letters, digits, _ and -, since folders are named after it"

BASES: dict[str, dict[str, Any]] = {
    "tsn": {},
    # Carreira and Zisserman, 2017: 10 frames and 10 pairs a segment
    "i3d": {"backbone": "i3d", "flow_length": 10, "evaluate": {"fusion": [1.0, 1.0]}},
    # Zhou et al., 2018, on the backbone of `train`
    "trn": {
        "aggregation": "trn_multiscale",
        "segments": 8,
        "evaluate": {"segments": 8, "crops": 10, "fusion": [1.0, 1.0]},
    },
}
RUNS: dict[str, Any] = {"ccs": {}}
# the paper's values, for weights that were trained before
FINE_TUNING = {name: by_name(RunSettings())[name] for name in ("lr", "dropout")}


# -- a whole one -------------------------------------------------------------------------------------------------------
def complete(config: Mapping, source: str = "config", overrides: Mapping | None = None) -> dict[str, Any]:
    """A copy of `config` with every default filled in.

    Each of its `runs` has all settings of `train`, and those of `evaluate` under that key: the run's own, or else its
    base's, or else those of all runs.

    Args:
        config: as read from YAML.
        source: the name of its file, for messages.
        overrides: the part of it that `--config` gave, whose values Snakemake hands over as text.

    Raises:
        CcsError: with a line for each thing that is wrong.
    """
    checker = Checker(list(leaves(overrides or {})))
    for key, text in texts(config):
        if UNSAYABLE.search(text):
            checker.say(key, f"{text!r} has a character that no file name and no command line can hold")
    general = GeneralSettings.__pydantic_fields__  # type: ignore[attr-defined]
    for name in config:
        if name not in (*SECTIONS, *general):
            checker.say(str(name), f"no such key{nearest(name, (*SECTIONS, *general))}")
    full = checker.block(GeneralSettings, {name: value for name, value in config.items() if name in general}) or {}
    for name, kind in BLOCKS.items():
        full[name] = checker.block(kind, config.get(name, {}), (name,))
    full["datasets"] = _datasets(checker, config.get("datasets"))
    bases = {name: _changes(checker, each, ("bases", name)) for name, each in _named(checker, config, "bases").items()}
    full["bases"] = BASES | bases
    changes = {name: _run_changes(checker, each, name) for name, each in _named(checker, config, "runs", RUNS).items()}
    for section, known in (("tables", shown.tables()), ("figures", shown.figures())):
        full[section] = _shown(checker, config.get(section, {}), section, known)
    if not checker.problems:
        full["runs"] = {name: _run(checker, full, each, name) for name, each in changes.items()}
        full["tables"].setdefault(main_table(full), {}).setdefault("rows", {name: name for name in full["runs"]})
        _check_shown(checker, full)
    if checker.problems:
        raise CcsError("\n  ".join([f"{source} is not valid:", *checker.problems]))
    return full


def _mapping(checker: Checker, value: object, key: Key, told: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    checker.say(key, f"{value!r} is not of type 'object' ({told})")
    return {}


def _named(checker: Checker, config: Mapping, section: str, default: Mapping | None = None) -> Mapping[str, Any]:
    """A section whose keys are names."""
    given = checker.read(config.get(section, default or {}), (section,))
    found = _mapping(checker, given, (section,), SECTIONS[section])
    if given == {} and section != "bases":
        checker.say(section, f"{dict(found)} should be non-empty ({SECTIONS[section]})")
    for name in found:
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            checker.say(section, f"{name!r} does not match {NAME!r} ({A_NAME}){not_text(name)}")
    return found


def _datasets(checker: Checker, blocks: object) -> dict[str, dict[str, Any] | None]:
    if blocks is None:
        checker.say("datasets", f"missing ({SECTIONS['datasets']})")
        return {}
    found = {
        name: _dataset(checker, each, name) for name, each in _named(checker, {"datasets": blocks}, "datasets").items()
    }
    demos = [name for name, block in found.items() if block and block["adapter"] == "demo"]
    for name in demos[1:]:
        checker.say(("datasets", name), f"only one data set can be a demo, and {demos[0]} is one")
    return found


def _dataset(checker: Checker, block: object, name: str) -> dict[str, Any] | None:
    key = ("datasets", name)
    if not isinstance(block, Mapping):
        _mapping(checker, block, key, "a data set")
        return None
    others = dict(block)
    adapter = others.pop("adapter", None)
    if adapter is None:
        checker.say((*key, "adapter"), f"missing ({ADAPTER}: {', '.join(adapters.ADAPTERS)})")
        return None
    if not isinstance(adapter, str) or adapter not in adapters.ADAPTERS:
        checker.say((*key, "adapter"), f"{adapter!r} is not one of {list(adapters.ADAPTERS)} ({ADAPTER})")
        return None
    found = checker.block(adapters.ADAPTERS[adapter].Settings, others, key)
    return None if found is None else {"adapter": adapter, **found}


# -- runs --------------------------------------------------------------------------------------------------------------
def _changes(checker: Checker, changes: object, key: Key) -> dict[str, Any] | None:
    """What a base or a run changes, checked whatever it is changed from."""
    changes = checker.read(changes, key)
    given = dict(_mapping(checker, {} if changes is None else changes, key, "changes of `train` and `evaluate`"))
    evaluate = given.pop("evaluate", None)
    run = checker.block(RunSettings, given, key, given_only=True)
    scored = checker.block(EvaluateSettings, {} if evaluate is None else evaluate, (*key, "evaluate"), given_only=True)
    return None if run is None or scored is None else run | ({"evaluate": scored} if scored else {})


def _run_changes(checker: Checker, changes: object, name: str) -> tuple[object, dict[str, Any] | None]:
    """A run's base and its changes."""
    given = dict(changes) if isinstance(changes, Mapping) else changes
    base = given.pop("base", "tsn") if isinstance(given, dict) else "tsn"
    return base, _changes(checker, given, ("runs", name))


def _run(checker: Checker, full: Mapping, run: tuple[object, dict[str, Any] | None], name: str) -> dict[str, Any]:
    """The whole run; notes what is wrong with its base, and combinations that make no sense."""
    base_name, changes = run
    where, base = f"runs.{name}", full["bases"].get(base_name) if isinstance(base_name, str) else None
    if base is None:
        checker.say(f"{where}.base", f"no such base: {base_name!r}{nearest(base_name, full['bases'])}")
        base = {}
    own = {**base, **(changes or {})}
    evaluate = {**full["evaluate"], **base.get("evaluate", {}), **(changes or {}).get("evaluate", {})}
    whole = {**full["train"], **own, "evaluate": evaluate}
    settings_of_run = from_names(RunSettings, {key: value for key, value in whole.items() if key != "evaluate"})
    found = list(conflicts(settings_of_run, settings_of_run, settings_of_run))
    for key, text in found:
        checker.say(f"{where}.{key}", text)
    segments = evaluate["segments"]
    if not found and whole["aggregation"] not in ANY_NUMBER and segments % whole["segments"]:
        checker.say(
            f"{where}.evaluate.segments",
            f"{segments} is no multiple of the {whole['segments']} segments that the aggregation "
            f"{whole['aggregation']} is trained with (train.segments) and takes at a time",
        )
    for key, path in weights_files(whole).items():
        if whole["backbone"] != full["train"]["backbone"] and key not in own:
            checker.say(
                f"{where}.{key}",
                f"{path} is train.{key}, for {full['train']['backbone']}, and this run has the backbone "
                f"{whole['backbone']}: give it {key} of its own",
            )
    return whole


# -- tables and figures ------------------------------------------------------------------------------------------------
def _shown(checker: Checker, blocks: object, section: str, known: Mapping) -> dict[str, dict[str, Any]]:
    found = {}
    for name, block in _mapping(checker, blocks, (section,), SECTIONS[section]).items():
        if name not in known:
            checker.say((section, name), f"no such key{nearest(name, known)}")
            continue
        checked = checker.block(known[name].Shown, block, (section, name))
        found[name] = {key: value for key, value in (checked or {}).items() if value is not None}
    return found


def main_table(config: Mapping) -> str:
    """The table of all runs, which is made where no target is named: table1, or accuracy where no paper is meant."""
    own = all(block["adapter"] in adapters.OWN for block in config["datasets"].values())
    names = ("accuracy", "table1") if own else ("table1", "accuracy")
    return next((name for name in names if name in config["tables"]), names[0])


def runs_of(block: Mapping) -> list[str]:
    """The names of the runs that a block of `tables` or `figures` shows, each once."""
    if "run" in block:
        return [block["run"]]
    groups = block.get("groups", {"": block.get("rows", {})})
    return list(dict.fromkeys(run for rows in groups.values() for run in rows))


def shown_runs(config: Mapping, dataset: str) -> list[str]:
    """The names of the runs that some table or figure shows on `dataset`."""
    blocks = [*config["tables"].values(), *config["figures"].values()]
    on = [block for block in blocks if dataset in block.get("datasets", config["datasets"])]
    return list(dict.fromkeys(run for block in on for run in runs_of(block)))


def _check_shown(checker: Checker, config: Mapping) -> None:
    """The runs and data sets that tables and figures name must exist."""
    for section in ("tables", "figures"):
        for output, block in config[section].items():
            where = f"{section}.{output}"
            if not runs_of(block):
                checker.say(f"{where}.rows", "missing (run name and the label of its row)")
            groups = {f"groups.{name}": rows for name, rows in block.get("groups", {}).items()}
            rows = {"rows": block.get("rows", {}), "run": {block["run"]: ""} if "run" in block else {}, **groups}
            for key, names in rows.items():
                for name in names:
                    if name not in config["runs"]:
                        checker.say(f"{where}.{key}.{name}", f"no such run{nearest(name, config['runs'])}")
                if section == "figures" and len({*map(nfc, names.values())}) < len(names):
                    checker.say(f"{where}.{key}", "two rows have one label, which the figure could not tell apart")
            for name in block.get("datasets", []):
                if name not in config["datasets"]:
                    checker.say(f"{where}.datasets", f"no data set {name!r}{nearest(name, config['datasets'])}")


# -- against the data --------------------------------------------------------------------------------------------------
def check_runs(config: Mapping, manifest: Manifest) -> None:
    """What can be known of the runs that are shown before any work: raises `CcsError`, or warns on standard error."""
    num_val = sum(video.split == "val" for video in manifest.videos)
    adapter = config["datasets"][manifest.dataset]["adapter"]
    for name in shown_runs(config, manifest.dataset):
        run = config["runs"][name]
        check_weights(name, run)
        if run["patience"] and not num_val:
            raise CcsError(
                f"runs.{name}: patience is {run['patience']}, but {manifest.dataset} has no validation videos to "
                f"watch: raise datasets.{manifest.dataset}.val_fraction, or set patience to 0"
            )
        if run["flip"] and adapters.mirrored_labels(adapter):
            print(
                f"ccs: warning: runs.{name}: flip mirrors {manifest.dataset}'s videos, where left and right are labels",
                file=sys.stderr,
            )


def fetch_weights(config: Mapping, names: Iterable[str]) -> None:
    """Fetch the published weights of these runs, or say on standard error why they cannot be had.

    Before the first job: where training runs there may be no network, and it begins only after all flow.
    """
    from ccs.models import published  # brings Python's HTTP and TLS

    seen: set[tuple[published.File, ...]] = {()}  # of no name, or of torchvision, which fetches its own
    for name in names:
        run = config["runs"][name]
        for key, flow in (("weights", False), ("weights_flow", True)):
            weights = run["weights"] if run[key] == "same" else run[key]
            files = published.files(run["backbone"], weights, flow=flow)
            if files not in seen:
                seen.add(files)
                try:
                    published.fetch(run["backbone"], weights, flow=flow)
                except CcsError as error:
                    print(f"ccs: warning: runs.{name}: {key} {weights}: {error}", file=sys.stderr)


def warn_of_scratch(config: Mapping) -> None:
    """Says on standard error which runs begin with random weights by settings that are for pretrained ones."""
    shown_anywhere = {name: None for dataset in config["datasets"] for name in shown_runs(config, dataset)}
    for name in shown_anywhere:
        run = config["runs"][name]
        streams = {run["weights"], run["weights_flow"]}
        meant_for_pretrained = [key for key in FINE_TUNING if run[key] == FINE_TUNING[key]]
        if streams <= {"none", "same"} and meant_for_pretrained:
            values = " and ".join(f"{key} {word(run[key])}" for key in meant_for_pretrained)
            print(
                f"ccs: warning: runs.{name}: weights: none begins with random weights, but {values} (the defaults) are "
                "for pretrained ones, and a network learns next to nothing by them from few videos: give weights, or "
                "set, for example, lr 0.03 and dropout 0.2 0.2",
                file=sys.stderr,
            )


def check_classes(config: Mapping, classes: Mapping[str, Sequence[str]]) -> None:
    """Raises `CcsError` where a figure is to show a class that none of its data sets has. classes: by data set."""
    for figure, block in config["figures"].items():
        known = {name: None for dataset in block.get("datasets", config["datasets"]) for name in classes[dataset]}
        for name in block.get("classes", []):
            if name not in known:
                raise CcsError(f"figures.{figure}.classes: no class {name!r}{nearest(name, known)}")


def check_weights(name: str, run: Mapping) -> None:
    """Raises `CcsError` where a file among the weights of the run `name` is not there."""
    for key, path in weights_files(run).items():
        if not Path(path).is_file():
            raise CcsError(f"runs.{name}: {key}: no file {path}; expected none, {', '.join(WEIGHTS)} or a path")


def weights_files(run: Mapping) -> dict[str, str]:
    """The files among the run's weights, by their keys."""
    keys = ("weights", "weights_flow")
    return {key: run[key] for key in keys if run[key] not in ("none", "same", *WEIGHTS)}


# -- for the rules -----------------------------------------------------------------------------------------------------
def flags(values: Mapping[str, Any]) -> str:
    """{"short_side": 64} as "--short-side 64": the same text in whatever order and form the settings were written."""
    return " ".join(word for name in sorted(values) for word in _words(f"--{name.replace('_', '-')}", values[name]))


def _words(name: str, value: object) -> Iterator[str]:
    several = value if isinstance(value, list) else [value]
    if any(str(each).startswith("-") for each in several):  # which would be taken for flags
        yield from (f"{name}={flag(each)}" for each in several)
    else:
        yield from (name, *map(flag, several))


def flag(value: object) -> str:
    """One value for a shell."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return shlex.quote(word(value))
