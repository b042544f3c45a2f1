# What the rules share: the checked configuration, the data sets' videos in memory, and settings as flags.
# Jobs of a cluster parse this file again, so nothing here may import what is slow to import.
import functools
import getpass
import hashlib
import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")

try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user may have no name, and Snakemake asks for it
    os.environ.update(LOGNAME=str(os.getuid()))

from ccs.config import configuration, project, running, terminal
from ccs.datasets import adapters
from ccs.datasets import manifests as manifest_files
from ccs.datasets.demo import Rendering
from ccs.flow.settings import ENGINES
from ccs.launch.gpus import visible_gpus
from ccs.models.catalogue import BACKBONES
from ccs.provenance import ROOT, modules, stage_digest
from ccs.settings import settings_of
from ccs.tables import shown as catalogue


resource_scopes:
    gpu="local",


# -- videos ------------------------------------------------------------------------------------------------------------
@functools.cache
def manifests(dataset):
    """The data set's manifests by split number; every error in names and lists comes up here."""
    settings = config["datasets"][dataset]
    return {split: adapters.load(dataset, settings, split) for split in adapters.splits(settings)}


@functools.cache
def all_videos(dataset):
    """The videos of all splits."""
    videos = {video.video: video for manifest in manifests(dataset).values() for video in manifest.videos}
    return tuple(videos[name] for name in sorted(videos))


@functools.cache
def shard_digests(dataset):
    """A digest of the videos of each shard that has any."""
    manifest = next(iter(manifests(dataset).values()))
    return manifest_files.shard_digests(
        replace(manifest, videos=all_videos(dataset)), config["datasets"][dataset]["shards"]
    )


@functools.cache
def split_digests(dataset):
    """A digest per split number of what training depends on: classes, and the videos' labels and parts."""
    return {split: manifest_files.split_digest(manifest) for split, manifest in manifests(dataset).items()}


def split_numbers(wildcards):
    return " ".join(map(str, manifests(wildcards.dataset)))


def all_split_digests(wildcards):
    return " ".join(split_digests(wildcards.dataset).values())


if workflow.is_main_process:
    terminal.follow(workflow)
if workflow.is_main_process and not workflow.output_settings.dryrun:
    running.begin()

SOURCE = " ".join(os.path.relpath(os.path.realpath(file)) for file in workflow.overwrite_configfiles) or "config.yaml"
try:
    config = configuration.complete(config, SOURCE, workflow.config_settings.config)
    if not workflow.remote_exec:  # a cluster's job needs its own data set only, and has been checked before
        if workflow.output_settings.dryrun:
            project.warn(config, SOURCE)
        else:
            project.check_notes()
        for dataset in config["datasets"]:
            shard_digests(dataset)
            for manifest in manifests(dataset).values():
                configuration.check_runs(config, manifest)
        configuration.warn_of_scratch(config)
        configuration.check_classes(
            config, {name: next(iter(manifests(name).values())).classes for name in config["datasets"]}
        )
except CcsError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    run="|".join(config["runs"]),
    shard=r"\d{4}",
    split=r"\d+",
    seed=r"\d+",


def shard_digest(wildcards):
    digests = shard_digests(wildcards.dataset)
    if wildcards.shard not in digests:
        raise WorkflowError(f"dataset {wildcards.dataset} has no video in a shard {wildcards.shard}")
    return digests[wildcards.shard]


def shard_files(folder, suffix):
    """A function for `input:`: the data set's files in `folder`, one per shard that has videos."""

    def files(wildcards):
        return [f"data/{wildcards.dataset}/{folder}/{shard}{suffix}" for shard in shard_digests(wildcards.dataset)]

    return files


def start_project():
    """Before the first job, and before anything is written."""
    try:
        project.check(config, SOURCE)
        project.write(config, SOURCE)
    except CcsError as error:
        raise WorkflowError(str(error)) from None


def write_manifests():
    try:
        for dataset, settings in config["datasets"].items():
            manifest_files.write(f"data/{dataset}/manifest.csv", manifests(dataset), settings["shards"])
    except CcsError as error:
        raise WorkflowError(str(error)) from None


def split_digest(wildcards):
    digests = split_digests(wildcards.dataset)
    if int(wildcards.split) not in digests:
        raise WorkflowError(f"dataset {wildcards.dataset} is not configured to have a split {wildcards.split}")
    return digests[int(wildcards.split)]


def demo():
    """The name of the data set that the pipeline renders, or None; the configuration allows one."""
    return next((name for name, block in config["datasets"].items() if block["adapter"] == "demo"), None)


def rendered_videos():
    return [video.path for video in manifests(demo())[1].videos] if demo() else []


def rendered_videos_of_shard(wildcards):
    """The shard's videos where the pipeline renders them. Raw videos are no inputs: thousands of them are slow."""
    if wildcards.dataset != demo():
        return []
    num_shards = config["datasets"][demo()]["shards"]
    videos = manifests(demo())[1].videos
    return [v.path for v in videos if manifest_files.shard_of(v.video, num_shards) == int(wildcards.shard)]


# -- settings ----------------------------------------------------------------------------------------------------------
# Snakemake compares the values of params without their names and order, so related settings make up one value.
flags = configuration.flags


def demo_settings(wildcards):
    rendering = settings_of(Rendering)
    return flags({name: value for name, value in config["datasets"][demo()].items() if name in rendering})


def frames_settings(wildcards):
    other = "short_side" if config["frames"]["size"] else "size"
    block = config["datasets"][wildcards.dataset]
    imported = {"bound": block["bound"]} if "bound" in block else {}
    return flags({name: value for name, value in config["frames"].items() if name != other} | imported)


def run_settings(wildcards):
    """With the fusion that early stopping watches: nothing else that a run is evaluated with changes its weights."""
    run = config["runs"][wildcards.run]
    watched = {"evaluate_fusion": run["evaluate"]["fusion"]} if run["patience"] else {}
    return flags({name: value for name, value in run.items() if name != "evaluate"} | watched)


def flow_code():
    """The code of the engine in use and of what is around it. auto is the CPU's or, where there is a GPU, its twin."""
    backend, gamma = config["flow"]["backend"], config["flow"]["gamma"]
    # native-cuda gives native's bits, so that a project may move to a machine without a GPU, and none flows anew
    engine = ENGINES[backend if backend != "auto" else "opencv" if gamma else "native"]
    kernels = ["ccs/flow/*.cu"] if engine == ENGINES["native-cuda"] else []
    return stage_digest("ccs.flow", *kernels, without=tuple({*ENGINES.values()} - {*modules(engine)}))


def network_code(stage, *runs, data=()):
    """The code of a stage that builds the networks of these runs: that of their backbones, and of no other."""
    backbones = sorted({config["runs"][run]["backbone"] for run in runs})
    entries = [BACKBONES[name] for name in backbones]
    code = stage_digest(stage, *data, also=tuple(entry.module for entry in entries))
    return f"{code} {' '.join(name for name, entry in zip(backbones, entries) if entry.is_3d)}".rstrip()


def train_code(wildcards):
    return network_code("ccs.train", wildcards.run)


def evaluate_code(wildcards):
    return network_code("ccs.evaluate", wildcards.run)


def evaluate_settings(wildcards):
    return flags(config["runs"][wildcards.run]["evaluate"])


def weights_files(wildcards):
    """Which files the run's weights are, where they are any: another file under the same name trains again."""
    run = config["runs"][wildcards.run]
    try:
        configuration.check_weights(wildcards.run, run)  # of a run that nothing shows: asked for by its name
    except CcsError as error:
        raise WorkflowError(str(error)) from None
    statuses = {path: os.stat(path) for path in configuration.weights_files(run).values()}
    return [f"{path} {status.st_size} {status.st_mtime_ns}" for path, status in statuses.items()]


def runs_to_train():
    """Known once Snakemake has planned its jobs."""
    return sorted({job.wildcards.run for job in workflow.dag.needrun_jobs() if job.rule.name == "train"})


# A param that is a function of `output` or `threads` is left out when Snakemake looks for changed params: these do not
# change what comes out, or only when something else does.
def directory_of_videos(wildcards, output):
    return os.path.commonpath(output)


def ffmpeg(wildcards, output):
    return configuration.flag(config["ffmpeg"])


def evaluation(wildcards, output):
    """What the checkpoint says that its run is evaluated with; what is evaluated says it itself."""
    run = config["runs"][wildcards.run]
    watched = {"fusion"} if run["patience"] else set()
    return flags({f"evaluate_{name}": value for name, value in run["evaluate"].items() if name not in watched})


def gpu_memory(wildcards, output):
    return config["gpu_memory"]


def max_bad_fraction(wildcards, output):
    return config["max_bad_fraction"]


def max_bad(wildcards, output):
    """How many videos of one shard may be bad before it is clear that the data set has too many."""
    # 0.29 * 100 is a little less than 29
    return int(config["max_bad_fraction"] * len(all_videos(wildcards.dataset)) + 1e-9)


def loader_workers(wildcards, threads, resources):
    """Of each process; there is one a GPU, and `threads` on each node."""
    return threads * resources.get("nodes", 1) // max(resources.gpu, 1) if threads > 1 else 0


# -- what a rule's inputs come from ------------------------------------------------------------------------------------
# Where the job failed, or was stopped, that would have made an input anew, a missing intermediate is no reason for
# Snakemake to run anything, and nothing tells any longer that it was to be made. So each rule has as a param, too, what
# all rules above it depend on: what is out of date is so by itself, whatever has become of that which it is made from.
def digest(*content):
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


@functools.cache
def rendering(dataset):
    """Of the data set's videos themselves, where the pipeline renders them."""
    return digest(demo_settings(None), stage_digest("ccs.datasets.demo")) if dataset == demo() else ""


@functools.cache
def frames_digest(dataset, shard=None):
    """Of the frames of a shard, or of all shards."""
    videos, settings = shard_digests(dataset), frames_settings(SimpleNamespace(dataset=dataset))
    return digest(videos.get(shard) if shard else videos, settings, stage_digest("ccs.frames"), rendering(dataset))


@functools.cache
def flow_digest(dataset, shard=None):
    return digest(frames_digest(dataset, shard), flags(config["flow"]), flow_code())


@functools.cache
def training_inputs(dataset, run):
    """All that the shards and the code of a training depend on."""
    stages = [stage_digest("ccs.quarantine"), stage_digest("ccs.shards"), network_code("ccs.train", run)]
    return digest(flow_digest(dataset), *stages)


@functools.cache
def trained(dataset, split, run):
    """Of a checkpoint; its seed is in its name."""
    wildcards = SimpleNamespace(dataset=dataset, split=split, run=run)
    inputs = training_inputs(dataset, run)
    return digest(inputs, split_digest(wildcards), run_settings(wildcards), weights_files(wildcards))


@functools.cache
def scored(dataset, split, run):
    """Of its scores."""
    code = network_code("ccs.evaluate", run)
    return digest(trained(dataset, split, run), flags(config["runs"][run]["evaluate"]), code)


def videos_rendered(wildcards):
    return rendering(wildcards.dataset)


def frames_above(wildcards):
    return frames_digest(wildcards.dataset, wildcards.get("shard"))


def flow_above(wildcards):
    return flow_digest(wildcards.dataset, wildcards.shard)


def shards_above(wildcards):
    return digest(flow_digest(wildcards.dataset), stage_digest("ccs.shards"))


def provenance(wildcards):
    """Interrupted training goes on only if none of it has changed."""
    return training_inputs(wildcards.dataset, wildcards.run)


def training_above(wildcards):
    return trained(wildcards.dataset, wildcards.split, wildcards.run)


def scores_above(wildcards):
    return scored(wildcards.dataset, wildcards.split, wildcards.run)


def trainings_above(wildcards):
    """Of all trainings of a run whose curves are drawn."""
    return digest(*(trained(*of_folder(folder)) for folder in map(os.path.dirname, run_histories(wildcards))))


def shown_above(wildcards):
    """Of all scores, and so of all else, that a table or figure shows."""
    return digest(*(scored(*of_folder(folder)) for folder in runs_folders(wildcards)))


def of_folder(folder):
    """Data set, split and run of a folder of `folders_of`."""
    dataset, split, run = Path(folder).parts[2:5]
    return dataset, split.removeprefix("split"), run


# -- the machine -------------------------------------------------------------------------------------------------------
GPUS = 0 if workflow.remote_exec or workflow.non_local_exec else len(visible_gpus())
# so many at once, if nothing else is said: jobs that wait for one would keep others from the cores
if GPUS and workflow.global_resources.get("gpu").value is None:
    workflow.register_resource("gpu", GPUS)
for name, resources in workflow.resource_settings.overwrite_resources.items():
    given = resources.get("gpu")
    # Snakemake would quietly take fewer
    if GPUS and given is not None and not given.is_evaluable() and given.value > GPUS:
        raise WorkflowError(f"--set-resources {name}:gpu={given.value}: this machine has {GPUS} GPUs; ask for no more")


def num_gpus(wildcards):
    """Of a job that can use one. A cluster is taken to have them."""
    return int(workflow.remote_exec or workflow.non_local_exec or GPUS > 0)


def flow_gpus(wildcards):
    return 0 if config["flow"]["backend"] in ("native", "opencv") else num_gpus(wildcards)


def threads_of_gpu():
    """Eight, which load clips for it, and here its share of more cores; beyond 32 they would only take memory."""
    gpus = workflow.global_resources.get("gpu").value if GPUS else 0
    return max(8, min(workflow.cores // gpus, 32)) if gpus else 8


def gpu_threads(wildcards, rulename):
    """Those of its GPUs; on each node, where a cluster's job has several."""
    # threads are decided before resources, so those of `--set-resources train:gpu=4` are looked up
    resources = workflow.resource_settings.overwrite_resources.get(rulename, {})
    given = {name: each.value for name, each in resources.items() if not each.is_evaluable()}
    return max(1, threads_of_gpu() * given.get("gpu", num_gpus(wildcards)) // given.get("nodes", 1))


def check_slurm():
    """Snakemake's SLURM executor asks sacct for the state of jobs; without accounting it would wait for ever."""
    settings = workflow.executor_settings
    asked = getattr(settings, "status_command", None)
    if not asked:  # another executor
        return
    printed = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False).stdout
    found = dict(re.findall(r"^(\w+) *= (\S+)", printed, re.MULTILINE))
    seconds = settings.init_seconds_before_status_checks
    # it takes sacct, too, where SLURM forgets ended jobs too early for squeue
    forgotten = int(found.get("MinJobAge", 300)) < 3 * seconds
    if found.get("AccountingStorageType") != "accounting_storage/none" or (asked == "squeue" and not forgotten):
        return
    raise WorkflowError(
        "slurm-status-command: this cluster keeps no accounting (scontrol show config: AccountingStorageType), so sacct "
        "never says that a job has ended. Set in the profile, as profiles/slurm does, slurm-status-command: squeue, and "
        f"slurm-init-seconds-before-status-checks to at most a third of MinJobAge ({found['MinJobAge']} s); it is {seconds}"
    )


# -- targets -----------------------------------------------------------------------------------------------------------
OF_NETWORKS = [name for name, figure in catalogue.figures().items() if getattr(figure, "OF_NETWORKS", False)]
OF_SCORES = [name for name in catalogue.figures() if name not in OF_NETWORKS]
MAIN_TABLE = configuration.main_table(config)
TABLES = [f"results/{table}.csv" for table in config["tables"]]
FIGURES = [f"results/figures/{figure}.svg" for figure in config["figures"]]
DETAILS = [f"results/figures/{figure}.details.html" for figure in config["figures"]]
SHOWN = {**config["tables"], **config["figures"]}
RUNS = list(dict.fromkeys(run for block in SHOWN.values() for run in configuration.runs_of(block)))
CURVES = [f"results/figures/curves/{run}.svg" for run in RUNS]


def shown(wildcards):
    """The block of the configuration of a table or figure."""
    section, name = ("tables", wildcards.table) if "table" in wildcards.keys() else ("figures", wildcards.figure)
    if name not in config[section]:
        raise WorkflowError(f"{section}.{name}: not in the configuration: say there which runs {name} is to show")
    return config[section][name]


def runs_folders(wildcards):
    """The folder of every run on every data set and split, and with every seed, that a table or figure shows."""
    return folders_of(shown(wildcards), wildcards.get("figure"))


def folders_of(block, figure=None):
    """Those of a block of the configuration; figure: its name, if it is a figure's."""
    seeds = config["seeds"][:1] if figure in OF_NETWORKS else config["seeds"]
    return [
        f"results/runs/{dataset}/split{split}/{run}/seed{seed}"
        for dataset in block.get("datasets", config["datasets"])
        for split in adapters.splits(config["datasets"][dataset])
        for run in configuration.runs_of(block)
        for seed in seeds
    ]


def run_histories(wildcards):
    """The histories of every training of a run that some table or figure needs; of all, if none shows it."""
    every = folders_of({"run": wildcards.run})
    needed = {folder for name, block in SHOWN.items() for folder in folders_of(block, name)}
    return [f"{folder}/history.csv" for folder in ([each for each in every if each in needed] or every)]


def scores_of_seeds(wildcards):
    """Of one run on one test split."""
    folder = f"results/runs/{wildcards.dataset}/split{wildcards.split}/{wildcards.run}"
    return [f"{folder}/seed{seed}/scores.h5" for seed in config["seeds"]]


def shown_scores(wildcards):
    return [f"{folder}/scores.h5" for folder in runs_folders(wildcards)]


def shown_lookalikes(wildcards):
    """Of the data sets whose division into training and test is the user's own."""
    shown_datasets = shown(wildcards).get("datasets", config["datasets"])
    own = [name for name in shown_datasets if config["datasets"][name]["adapter"] in adapters.OWN]
    return [f"data/{name}/lookalikes.csv" for name in own]


def shown_checkpoints(wildcards):
    return [f"{folder}/checkpoint.pt" for folder in runs_folders(wildcards)]


def shown_rows(wildcards):
    block = shown(wildcards)
    labels = config["tables"][MAIN_TABLE]["rows"]  # of figures that show one run
    rows = block.get("groups") or block.get("rows") or {block["run"]: labels.get(block["run"], block["run"])}
    return shlex.quote(json.dumps(rows, ensure_ascii=False))


def figure_settings(wildcards):
    """Flags of one figure alone: all in its block but what it shows."""
    block = shown(wildcards)
    return flags({name: block[name] for name in block if name not in ("rows", "groups", "run", "datasets")})


def table_code(wildcards):
    return stage_digest("ccs.tables", *published(wildcards.table), also=(f"ccs.tables.{wildcards.table}",))


def figure_module(wildcards, output):
    """The code has it, too."""
    return catalogue.figures()[wildcards.figure].__name__


def figure_code(wildcards):
    stage = figure_module(wildcards, None)
    if wildcards.figure in OF_NETWORKS:
        return network_code(stage, *configuration.runs_of(shown(wildcards)), data=published(wildcards.figure))
    return stage_digest(stage, *published(wildcards.figure))


def published(name):
    """The file of what the paper prints in a table or beside a figure, where it does."""
    path = Path("ccs", "published", f"{name}.csv")
    return [str(path)] if (ROOT / path).is_file() else []


def caption(wildcards, output):
    """For the report; what it says changes no table and no figure."""
    name = wildcards.get("table") or wildcards.figure
    return {**catalogue.tables(), **catalogue.figures()}[name].CAPTION


def pages_of_mistakes():
    """Of the run whose confusion is shown under that name, which is that of videos of one's own."""
    block = config["figures"].get("confusion", {})
    folders = dict.fromkeys(os.path.dirname(folder) for folder in folders_of(block)) if block else ()
    return [f"{folder}/mistakes.html" for folder in folders]


MISTAKES = pages_of_mistakes()


def cam_datasets(wildcards):
    """The data set of each of those checkpoints."""
    return [Path(folder).parts[2] for folder in runs_folders(wildcards)]


def cam_manifests(wildcards):
    return [f"data/{dataset}/manifest.csv" for dataset in cam_datasets(wildcards)]


def cam_quarantines(wildcards):
    return [f"data/{dataset}/quarantine.csv" for dataset in cam_datasets(wildcards)]


def cam_shards(wildcards):
    """The shards of all data sets."""
    names = dict.fromkeys(cam_datasets(wildcards))
    return [f"data/{dataset}/shards/{shard}.h5" for dataset in names for shard in shard_digests(dataset)]


def unlabelled(wildcards):
    """The part of the manifest without labels; something-something-v2 has one."""
    if not workflow.remote_exec and not any(video.split == "unlabelled" for video in all_videos(wildcards.dataset)):
        raise WorkflowError(
            f"dataset {wildcards.dataset} has no videos without labels: predictions.csv is for the official test videos "
            "of something-something-v2"
        )
    return "unlabelled"


# Functions, as in text that stands in `params` itself Snakemake looks for wildcards, such as the {inter} of a label.
def whole_config(wildcards):
    return json.dumps(config)


def snakefile(wildcards):
    return str(workflow.main_snakefile)


def report_style(wildcards):
    return str(Path(workflow.basedir, "workflow", "report", "report.css"))


def report_captions(wildcards):
    """A digest of the captions and the looks, which are no inputs of any job."""
    texts = [path.read_bytes() for path in sorted(Path(workflow.basedir, "workflow", "report").glob("*.*"))]
    texts += [module.CAPTION.encode() for module in (*catalogue.tables().values(), *catalogue.figures().values())]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]
