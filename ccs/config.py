"""The configuration: read from YAML by Snakemake, checked here against `workflow/schemas/config.schema.yaml`.

A misspelt key, a wrong type or a value out of range is an error that names the key. Defaults are filled in, so that
what follows needs none.
"""

from __future__ import annotations

import copy
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from ccs.datasets.manifests import Manifest
from ccs.stage import CcsError

SCHEMA = Path(__file__).resolve().parent.parent / "workflow" / "schemas" / "config.schema.yaml"


def complete(config: Mapping, source: str = "config") -> dict:
    """A copy of `config` with every default filled in.

    Each of its `runs` has all settings of `train`, and those of `evaluate` under that key: the run's own, or else its
    base's, or else those of all runs.

    Args:
        config: as read from YAML.
        source: the name of its file, for messages.

    Raises:
        CcsError: with a line for each thing that is wrong.
    """
    config = copy.deepcopy(dict(config))
    validator = _validator()
    problems = list(_problems(validator, config))
    if not problems:
        demos = [name for name, block in config["datasets"].items() if block["adapter"] == "demo"]
        problems += [f"datasets.{name}: only one data set can be a demo, and {demos[0]} is one" for name in demos[1:]]
        problems += _fill_runs(validator, config)
        problems += _check_shown(config)
        flow = config["flow"]
        if flow["gamma"] and flow["backend"].startswith("native"):
            problems.append(f"flow.backend: {flow['backend']} has no illumination term: set it to auto, or gamma to 0")
    if problems:
        raise CcsError("\n  ".join([f"{source} is not valid:", *problems]))
    return config


def _fill_runs(validator: Draft202012Validator, config: dict) -> Iterator[str]:
    """Make every run whole, in place; yields what is wrong with bases and runs."""
    bases = {name: changes or {} for name, changes in config["bases"].items()}
    broken = set()
    for name, changes in bases.items():
        for problem in _problems_of_changes(validator, changes, f"bases.{name}"):
            broken.add(name)
            yield problem
    for name, changes in config["runs"].items():
        where, changes = f"runs.{name}", dict(changes or {})
        base = changes.pop("base", "tsn")
        if not isinstance(base, str) or base not in bases:
            yield f"{where}.base: no such base: {base!r}{_nearest(base, bases)}"
            continue
        found = list(_problems_of_changes(validator, changes, where))
        if not found and base not in broken:
            run = _run(config, bases[base], changes)
            found = list(_problems_of_run(validator, config, {**bases[base], **changes}, run, where))
            config["runs"][name] = run
        yield from found


def _run(config: Mapping, base: Mapping, changes: Mapping) -> dict:
    evaluate = {**config["evaluate"], **(base.get("evaluate") or {}), **(changes.get("evaluate") or {})}
    return {**config["train"], **base, **changes, "evaluate": evaluate}


def _problems_of_changes(validator: Draft202012Validator, changes: Mapping, where: str) -> Iterator[str]:
    """What is wrong with the keys and values that a base or a run changes, whatever they are changed from."""
    changes = copy.deepcopy(dict(changes))
    evaluate = changes.pop("evaluate", None) or {}
    yield from _problems(validator.evolve(schema={"$ref": "#/$defs/train"}), changes, where)
    yield from _problems(validator.evolve(schema={"$ref": "#/properties/evaluate"}), evaluate, f"{where}.evaluate")


def _problems_of_run(
    validator: Draft202012Validator, config: Mapping, own: Mapping, run: Mapping, where: str
) -> Iterator[str]:
    """Combinations that make no sense. own: what the run and its base say themselves, before `train`."""
    settings = {name: value for name, value in run.items() if name != "evaluate"}
    found = list(_problems(validator.evolve(schema={"$ref": "#/$defs/run"}), settings, where))
    yield from found
    segments = run["evaluate"]["segments"]
    if not found and run["aggregation"] not in ("mean", "max") and segments % run["segments"]:
        yield (
            f"{where}.evaluate.segments: {segments} is no multiple of the {run['segments']} segments that the "
            f"aggregation {run['aggregation']} is trained with (train.segments) and takes at a time"
        )
    for key, path in weights_files(run).items():
        if run["backbone"] != config["train"]["backbone"] and key not in own:
            yield (
                f"{where}.{key}: {path} is train.{key}, for {config['train']['backbone']}, and this run has the "
                f"backbone {run['backbone']}: give it {key} of its own"
            )


def runs_of(block: Mapping) -> list[str]:
    """The names of the runs that a block of `tables` or `figures` shows, each once."""
    if "run" in block:
        return [block["run"]]
    groups = block.get("groups", {"": block.get("rows", {})})
    return list(dict.fromkeys(run for rows in groups.values() for run in rows))


def shown_runs(config: Mapping, dataset: str) -> list[str]:
    """The names of the runs that some table or figure shows on `dataset`."""
    blocks = [*config["tables"].values(), *config["figures"].values()]
    shown = [block for block in blocks if dataset in block.get("datasets", config["datasets"])]
    return list(dict.fromkeys(run for block in shown for run in runs_of(block)))


def _check_shown(config: dict) -> Iterator[str]:
    """The runs and data sets that tables and figures name must exist."""
    config["tables"]["table1"].setdefault("rows", {name: name for name in config["runs"]})
    for section in ("tables", "figures"):
        for output, shown in config[section].items():
            where = f"{section}.{output}"
            if shown.keys() <= {"datasets"}:
                yield f"{where}.rows: missing (run name and the label of its row)"
            groups = {f"groups.{name}": rows for name, rows in shown.get("groups", {}).items()}
            rows = {"rows": shown.get("rows", {}), "run": {shown["run"]: ""} if "run" in shown else {}, **groups}
            for key, names in rows.items():
                for name in names:
                    if name not in config["runs"]:
                        yield f"{where}.{key}.{name}: no such run{_nearest(name, config['runs'])}"
                if section == "figures" and len(set(names.values())) < len(names):
                    yield f"{where}.{key}: two rows have one label, which the figure could not tell apart"
            for name in shown.get("datasets", []):
                if name not in config["datasets"]:
                    yield f"{where}.datasets: no data set {name!r}{_nearest(name, config['datasets'])}"


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
        if adapter == "something_v2" and run["flip"]:
            print(
                f"ccs: warning: runs.{name}: flip mirrors {manifest.dataset}'s videos, where left and right are labels",
                file=sys.stderr,
            )


def check_classes(config: Mapping, classes: Mapping[str, Sequence[str]]) -> None:
    """Raises `CcsError` where Figure 6 is to show a class that none of its data sets has. classes: by data set."""
    block = config["figures"].get("figure6", {})
    known = {name: None for dataset in block.get("datasets", config["datasets"]) for name in classes[dataset]}
    for name in block.get("classes", []):
        if name not in known:
            raise CcsError(f"figures.figure6.classes: no class {name!r}{_nearest(name, known)}")


def check_weights(name: str, run: Mapping) -> None:
    """Raises `CcsError` where a file among the weights of the run `name` is not there."""
    for key, path in weights_files(run).items():
        if not Path(path).is_file():
            raise CcsError(f"runs.{name}: {key}: no file {path}; expected none, imagenet or a path")


def weights_files(run: Mapping) -> dict[str, str]:
    """The files among the run's weights, by their keys."""
    keys = ("weights", "weights_flow")
    return {key: run[key] for key in keys if run[key] not in ("none", "imagenet", "same")}


@cache
def _validator() -> Draft202012Validator:
    return extend(Draft202012Validator, {"properties": _fill_and_check})(yaml.safe_load(SCHEMA.read_text()))


def _fill_and_check(
    validator: Draft202012Validator, properties: Mapping, instance: object, schema: Mapping
) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for name, value in properties.items():
            if "default" in value:
                instance.setdefault(name, copy.deepcopy(value["default"]))
    yield from Draft202012Validator.VALIDATORS["properties"](validator, properties, instance, schema)


def _problems(validator: Draft202012Validator, instance: object, path: str = "") -> Iterator[str]:
    for error in validator.iter_errors(instance):
        yield from _explain(error, ".".join(filter(None, [path, *map(str, error.absolute_path)])))


def _explain(error: ValidationError, where: str) -> Iterator[str]:
    """One error as lines `key: what is wrong: what is expected`."""
    prefix = f"{where}." if where else ""
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        for name in error.instance:
            if name not in known:
                yield f"{prefix}{name}: no such key{_nearest(name, known)}"
        return
    if error.validator == "required":
        properties = error.schema.get("properties", {})
        for name in error.validator_value:
            if name not in error.instance:
                yield f"{prefix}{name}: missing{_description(properties.get(name, {}))}"
        return
    told = f"{error.instance!r} is not possible here" if error.validator == "not" else error.message
    if error.validator == "enum" and len(error.validator_value) > 10:
        told = f"no {error.instance!r}{_nearest(error.instance, dict.fromkeys(error.validator_value))}"
    message = f"{told}{_description(error.schema)}"
    if error.validator == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        message += "; YAML reads 1e-3 as text, write 1.0e-3 or 0.001"
    yield f"{where or 'it'}: {message}"


def _description(schema: Mapping) -> str:
    return f" ({' '.join(schema['description'].split())})" if "description" in schema else ""


def _nearest(name: object, known: Mapping) -> str:
    close = difflib.get_close_matches(str(name), [str(each) for each in known], n=1)
    if close:
        return f": did you mean {close[0]}?"
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return f"; there are {', '.join(map(str, list(known)[:12]))}{more}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
