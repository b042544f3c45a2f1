"""Commands in README and docs: each block is run or its page says why not, and what inline code names is there.

`<!-- not run in tests: REASON -->` in a line before a block of commands, or after one in a sentence, marks it; `tests
(TEXT): REASON` marks the lines of the block that contain that text. A block may have several marks.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import jsonschema
import pytest
import torch
import yaml

from ccs import __version__, cli
from ccs.datasets import demo
from ccs.models.backbones.i3d import I3D

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]
PAGES += sorted(ROOT.glob("docs/**/*.md"))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

MARK = re.compile(r"<!-- not run in tests(?: \((?P<lines>[^)]+)\))?: (?P<reason>\w.*?) -->", re.DOTALL)
# a fence, or lines that are indented by four; then nothing but blank lines before one that is not
BLOCK = re.compile(
    r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```$|^(?P<indented>(?: {4}[^\n]*\n)(?:\n*(?: {4}[^\n]*\n))*)",
    re.MULTILINE | re.DOTALL,
)
INLINE = re.compile(rf"`([^`]+)`(?:\s*({MARK.pattern}))?", re.DOTALL)
TEMPLATE = re.compile(r"\b[A-Z]{2,}\b|^[A-Z]$|\[|\.\.\.")  # a word for something that the reader puts in
FLAG = re.compile(r"^--?[a-zA-Z][\w-]*")
WIDE = re.compile(r"^ *(-\S.*?)(?:  |$)", re.MULTILINE)  # the flags at the beginning of a line of a help
# programs of which no flag is checked: they are not the project's, nor is any of them run here
OTHERS = {"cd", "git", "pip", "pre-commit", "pytest", "tensorboard", "xdg-open"}
RUN = {"ccs", "cp", "make", "mkdir", "snakemake", "source"}

FRAMES = 17  # of each video here: one window of I3D
FEW = demo.Rendering(train_per_class=2, test_per_class=1)
SHOWN = demo.Recipe("raise_present_test_003", "test", "raise_present", 3)  # the video of docs/predict.md


class Block(NamedTuple):
    """A block of code in a page."""

    language: str
    """of a fence; "" is a shell's, as is what is indented"""
    text: str
    marks: list[re.Match[str]]
    """in the lines before it"""


class Command(NamedTuple):
    """A line of a shell."""

    line: str
    output: list[str]
    """what the page shows of it, by line"""
    reason: str | None
    """why it is not run"""
    inline: bool

    @property
    def steps(self) -> list[list[str]]:
        """Its words, without variables, for each command between &&."""
        found = [shlex.split(each, comments=True) for each in self.line.split(" && ")]
        return [[word for n, word in enumerate(each) if n or "=" not in word] for each in found]

    @property
    def is_template(self) -> bool:
        return any(TEMPLATE.search(word) for step in self.steps for word in step if "=" not in word)


def blocks(text: str) -> Iterator[Block]:
    for found in BLOCK.finditer(text):
        before = reversed(text[: found.start()].rstrip("\n").splitlines())
        marks = list(takewhile(bool, map(MARK.fullmatch, before)))
        code = found["fenced"] if found["indented"] is None else re.sub(r"^ {4}", "", found["indented"], flags=re.M)
        yield Block(found["language"] or "", code, marks)


def commands_of(block: Block) -> list[Command]:
    """The lines of a block of a shell; with a prompt in it, all lines but those after one are output."""
    prompted = any(line.startswith("$ ") for line in block.text.splitlines())
    found: list[Command] = []
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
        if prompted and not line.startswith("$ "):
            found[-1].output.append(line)
        elif shlex.split(line, comments=True):
            line = line.removeprefix("$ ")
            reasons = [mark["reason"] for mark in block.marks if (mark["lines"] or "") in line]
            found.append(Command(line, [], reasons[0] if reasons else None, inline=False))
    return found


def inline(text: str) -> list[tuple[str, str | None]]:
    """Code in sentences and tables, blanks as one, and the reason of a mark behind it."""
    found = INLINE.finditer(BLOCK.sub("", text))
    return [(" ".join(each[1].split()), each["reason"]) for each in found]


def inline_commands(text: str) -> list[Command]:
    programs = {"ccs", "make", "pip", "python", "snakemake"}
    return [Command(code, [], reason, True) for code, reason in inline(text) if code.split()[0] in programs]


def commands(text: str) -> list[Command]:
    shell = [command for block in blocks(text) if not block.language for command in commands_of(block)]
    return shell + inline_commands(text)


@cache
def usage(program: str, what: str = "") -> str:
    """The help of a program, or of a command or script of it; "" for what is not the project's."""
    if program == "ccs" and what in cli.COMMANDS and what != "run":
        with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
            cli.main([what, *(["ucf101"] if what == "datasets" else []), "--help"])
        return printed.getvalue()
    if program in ("ccs", "snakemake"):
        line = [sys.executable, "-m", program, "--help"]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout
    if program == "python" and (ROOT / what).is_file():  # as it stands: its help would import all that it uses
        return "\n".join(re.findall(r'add_argument\(\s*"(--[\w-]+)"', (ROOT / what).read_text()))
    return ""


def usage_of(step: list[str]) -> str:
    program, what = Path(step[0]).name, step[1] if len(step) > 1 else ""
    if program == "ccs":
        return usage("snakemake") if what == "run" else usage(program, "" if what.startswith("-") else what)
    return usage(program, what if program == "python" else "")


def flags(text: str) -> set[str]:
    return {flag for shown in WIDE.findall(text) for flag in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", shown)}


def check_flags(words: list[str], texts: list[str]) -> None:
    """Each flag is in one of these helps, and its value among those that are offered there."""
    for word, value in zip(words, [*words[1:], ""], strict=False):
        if not (found := FLAG.match(word)):
            continue
        knowing = [text for text in texts if found[0] in flags(text)]
        assert knowing, f"{' '.join(words)}: no {found[0]} in the help"
        choices = [re.search(rf"^ *(?:-\w[^\n]*, )?{found[0]} {{([^}}]*)}}", text, re.MULTILINE) for text in knowing]
        if all(choices) and value and not TEMPLATE.search(value):
            offered = {each for choice in choices if choice for each in choice[1].split(",")}
            assert value in offered, f"{' '.join(words)}: {found[0]} takes {sorted(offered)}"


def check_program(step: list[str]) -> None:
    """What a command calls is there: the program, the script, the module, the extra."""
    program, *words = Path(step[0]).name, *step[1:]
    if program == "ccs" and words:
        assert words[0] in {*cli.COMMANDS, "help", "version"}, step
    elif program == "python" and words:
        script = ROOT / words[0]
        assert importlib.util.find_spec(words[1]) if words[0] == "-m" else script.is_file(), step
    elif program == "bash":  # what `benchmarks/gpu/pack` puts there
        assert (ROOT / words[0].replace(".gpu/", "benchmarks/gpu/")).is_file(), step
    else:
        assert program in {"python", *RUN, *OTHERS}, f"{step}: whose program is that? See OTHERS"


class Parsed(Exception):
    """The arguments of a command were right; the command has not begun."""


def is_whole(step: list[str]) -> bool:
    """Whether a command would run as it stands, and is not only named."""
    if len(step) == 1 or step == ["ccs", "run"]:
        return False
    if step[0] == "snakemake":  # with a target; what lacks one tells of a flag
        return any(word == "all" or "/" in word for word in step)
    if step[0] != "ccs" or step[1] in ("run", "version") or "--help" in step:
        return True
    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_end(*given, **named):
        parse(*given, **named)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_end)
        try:
            cli.main(step[1:])
        except Parsed:
            return True
        except SystemExit:
            return False
    raise AssertionError(f"{step}: it has read no arguments")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_is_not_run_has_a_mark_with_a_reason(page):
    text = page.read_text()
    inside = [each for each in INLINE.finditer(BLOCK.sub("", text)) if each[2]]
    marks = sum(len(block.marks) for block in blocks(text)) + len(inside)
    assert text.count("<!-- not run") == marks, "a mark without a reason, or not beside what it marks"
    for block in blocks(text):
        if block.language == "python":  # run by test_predict.py
            assert page.name == "python.md" or block.marks, block.text
        elif block.language == "yaml":
            schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
            jsonschema.validate(yaml.safe_load(block.text), schema)
        else:
            assert block.language in ("", "text"), block.text
        for command in [] if block.language else commands_of(block):
            ran = {step[0] for step in command.steps} <= RUN
            assert command.reason or ran, f"{command.line}: neither run nor marked"
        for mark in block.marks:
            assert (mark["lines"] or "") in block.text, f"no line for {mark[0]}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_programs_and_flags_are_there(page):
    intro, *sections = re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)
    for section in sections or [""]:
        named = [step for command in commands(intro + section) for step in command.steps]
        for step in named:
            check_program(step)
            if text := usage_of(step):
                check_flags(step[1:], [text])
        texts = list(filter(None, map(usage_of, named))) or [usage("snakemake")]
        for code, _ in inline(intro + section):
            if code.startswith("--") and len(code) > 2:  # a flag of a command that the section or the page's top names
                check_flags(shlex.split(code), texts)
    for command in commands(page.read_text()):
        if command.reason and not command.is_template:
            assert all(map(is_whole, (step for step in command.steps if step[0] == "ccs"))), command.line


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_extras_and_paths_are_there(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"(?:ccs-video|'\.)\[(\w+)\]", page.read_text())) <= set(extras)
    schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    for code, _ in inline(page.read_text()):
        if found := re.fullmatch(r"(frames|flow|train|evaluate)\.(\w+)(: .*)?", code):
            of_file = found[2] in ("csv", "h5", "json", "txt")
            assert of_file or found[2] in schema["properties"][found[1]]["properties"], code
        if re.match(r"(ccs|workflow|profiles|docs|benchmarks|tests|envs)/", code) and "NAME" not in code:
            assert (ROOT / code.split()[0]).exists(), code


def test_numbers_that_the_readme_repeats_are_those_of_the_pages():
    readme = (ROOT / "README.md").read_text()
    for number, page in (
        (r"\d+\.\d ± \d+\.\d|\[[+-][\d.]+, [+-][\d.]+\]", "docs/demo.md"),
        (r"[\d.]+(?= (?:pairs/s|times OpenCV))", "docs/flow.md"),
        (r"\d+ MB(?=,)", "docs/install.md"),
    ):
        found = re.findall(number, readme)
        assert found
        assert not set(found) - set(re.findall(number.partition("(?=")[0], (ROOT / page).read_text()))


def results_named() -> list[str]:
    """Files and pictures of the demo below results/ that pages name."""
    named = {code for page in PAGES for code, _ in inline(page.read_text()) if re.fullmatch(r"results/[\w./]+", code)}
    return sorted(name if Path(name).suffix else f"{name}.svg" for name in named if not TEMPLATE.search(name))


# -- the commands, run -------------------------------------------------------------------------------------------------

# command: a pattern of what it prints, and how many files it makes of a name. Of snakemake, what it would do by stage,
# and files that can be made by it.
PROMISED: dict[str, tuple[str, dict[str, int]]] = {
    "ccs flow videos/ -o flow/ --rgb": (
        "",
        {"flow/?/img_*.jpg": 2 * FRAMES} | {f"flow/?/flow_{axis}_000??.jpg": 2 * FRAMES - 2 for axis in "xy"},
    ),
    "ccs flow videos/ -o flow/ --short-side 256": ("", {"flow/?/flow_[xy]_000??.jpg": 4 * (FRAMES - 1)}),
    "ccs flow --help": ("usage: ccs flow", {}),
    "ccs version": (rf"ccs {re.escape(__version__)}\n", {}),
    "ccs weights": (r"bninception[^\n]*SHA-256[^\n]*\n\s+https?://", {}),
    "ccs predict new.mp4 --checkpoint results/runs/demo/split1/ccs --cam films/": ("new.mp4: ", {"films/new.mp4": 1}),
    "ccs predict new.mp4 --cam films/ --checkpoint sports/results/runs/my_videos/split1/ccs": (
        "new.mp4: ",
        {"films/new.mp4": 1},
    ),
    f"ccs predict data/demo/videos/raise_present/{SHOWN.video}.mp4 --top 3 --cam films/ "
    "--checkpoint results/runs/demo/split1/ccs/seed0/checkpoint.pt": ("", {f"films/{SHOWN.video}.mp4": 1}),
    "ccs results results/runs/demo/split1/ccs": (
        r"raise_present.*mean of classes",
        {f"results/runs/demo/split1/ccs/{name}.csv": 1 for name in ("classes", "accuracy", "videos")},
    ),
    "ccs export results/runs/demo/split1/ccs -o ccs.onnx": ("", {"ccs.onnx": 1, "ccs.onnx.json": 1}),
    "ccs features videos/ --weights rgb_imagenet.pt,flow_imagenet.pt -o features/": (
        "",
        {"features/?_rgb.npy": 2, "features/?_flow.npy": 2, "features/?_times.npy": 2, "features/?.json": 2},
    ),
    "ccs features videos/ --weights results/runs/demo/split1/ccs --layer z -o features/": (
        "",
        {"features/?_rgb.npy": 2, "features/?_flow.npy": 2},
    ),
    "snakemake all": (r"\ntrain +57 .*\nreport +1 ", dict.fromkeys(results_named(), 1)),  # as docs/tables.md counts
    "snakemake --directory sports all": (
        "",
        {"results/accuracy.md": 1, "results/figures/confusion.svg": 1, "results/report.html": 1}
        | {f"results/runs/my_videos/split1/ccs/{name}": 1 for name in ("mistakes.html", "seed0/checkpoint.pt")},
    ),
    "snakemake results/table1.csv": (r"\ntrain +6 .*\ntable +1 ", {}),
    "snakemake results/runs/demo/split1/ccs/mistakes.html": (r"\ntrain +3 .*\nmistakes +1 ", {}),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A checkout, and in it what the pages take to be there: videos, and what a run of the demo leaves."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "Snakefile", "ccs", "config.yaml", "envs", "pyproject.toml", "workflow"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "profiles", folder / "profiles")  # a page adds to it
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()  # of `make env`, which is not made
    ffmpeg, small = demo.find_ffmpeg(), demo.Settings(width=64, height=64, frames=FRAMES)
    frames = demo.render(demo.Recipe("new", "test", "eat", 0), small)
    demo.encode(frames, folder / "new.mp4", 25, ffmpeg)
    demo.encode(frames[:6], folder / "short.mp4", 25, ffmpeg)  # one snippet
    demo.encode(demo.render(SHOWN, demo.Settings()), folder / f"{SHOWN.video}.mp4", demo.Settings().fps, ffmpeg)
    copies = {f"data/demo/videos/{SHOWN.class_name}/{SHOWN.video}.mp4": f"{SHOWN.video}.mp4"}
    copies |= {f"videos/{name}.mp4": "new.mp4" for name in "ab"}
    copies |= {f".../{name}/{number}.mp4": "new.mp4" for name in ("juggling", "walking") for number in range(10)}
    copies |= dict.fromkeys(demo.video_paths("demo", FEW).values(), "short.mp4")
    for name, source in copies.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / source, folder / name)
    for name, channels in (("rgb", 3), ("flow", 2)):
        torch.manual_seed(0)
        torch.save(I3D(channels).state_dict(), folder / f"{name}_imagenet.pt")
    train(folder)
    shutil.copytree(folder / "results/runs/demo", folder / "sports/results/runs/my_videos")
    return folder


def train(folder: Path) -> None:
    """A run of the demo by the workflow's stages, but of few and small videos, and of one epoch."""
    run, data = "results/runs/demo/split1/ccs/seed0", "data/demo"
    settings = json.dumps({"adapter": "demo", "shards": 1} | dataclasses.asdict(FEW))
    made = f"--manifest {data}/manifest.csv --quarantine {data}/quarantine.csv"
    for line in (
        f"datasets --dataset demo --settings '{settings}' --output {data}/manifest.csv",
        f"frames {made} --shard 0000 --output {data}/frames/0000.h5 --size 64x64 --workers 1",
        f"flow --frames {data}/frames/0000.h5 --output {data}/flow/0000.h5 --warps 2 --workers 1",
        f"shards --frames {data}/frames/0000.h5 --flow {data}/flow/0000.h5 --output {data}/shards/0000.h5",
        f"train {made} --shards {data}/shards/0000.h5 --run ccs --backbone alexnet --weights none --epochs 1"
        f" --input-size 64 --batch-videos 2 --evaluate-segments 3 --evaluate-fusion 1 1"
        f" --checkpoint {run}/checkpoint.pt --history {run}/history.csv",
        f"evaluate --checkpoint {run}/checkpoint.pt {made} --shards {data}/shards/0000.h5 --segments 3"
        f" --output {run}/scores.h5",
    ):
        with contextlib.chdir(folder):
            cli.main(shlex.split(line))


def run(step: str, folder: Path, targets: Iterable[str] = ()) -> str:
    """Run one command of a line, or plan it, with further targets of snakemake; what it printed."""
    program, *words = shlex.split(step, comments=True)
    if program == "ccs" and "--help" in words:
        return usage(program, words[0])
    if program == "ccs":
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
            cli.main(words)
        return printed.getvalue()
    if program == "make" and not shutil.which("make"):
        return ""
    line = {"make": ["make", "-n", *words], "snakemake": [sys.executable, "-m", "snakemake", "-n", *words, *targets]}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    given = {"cwd": folder, "env": clean, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(line.get(program, ["bash", "-ec", step]), check=False, **given)
    assert done.returncode == 0, f"{step}: {done.stdout}"
    return done.stdout


def form(lines: list[str]) -> list[str]:
    """Lines with names of classes and numbers as one."""
    names = re.compile(rf"\b({'|'.join(demo.CLASSES)})\b")
    return [" ".join(re.sub(r"\b\d+\.\d+ %", "0 %", names.sub("CLASS", line)).split()) for line in lines]


def wanted(command: Command) -> bool:
    """Whether a command is to be run: of those in sentences the ones that are whole, of programs that run here."""
    if command.reason:
        return False
    (program, *_), *_ = command.steps
    return not command.inline or (
        program in ("ccs", "make", "snakemake") and not command.is_template and all(map(is_whole, command.steps))
    )


@pytest.mark.slow
def test_commands_do_what_the_pages_say(folder):
    """The blocks page by page, then what is in sentences, in one folder; snakemake and make only plan."""
    done = set()
    every = [(page.name, command) for page in PAGES for command in commands(page.read_text()) if wanted(command)]
    for page, command in sorted(every, key=lambda each: each[1].inline):
        line = re.sub(r"^snakemake (-n|--cores all)", "snakemake", " && ".join(map(" ".join, command.steps)))
        if line in done:
            continue
        done.add(line)
        assert line in PROMISED or not line.startswith("ccs "), f"{page}: what does {line!r} promise?"
        pattern, files = PROMISED.get(line, ("", {}))
        planned = line.startswith("snakemake ")
        for path in [path for name in files if not planned for path in folder.glob(name)]:
            path.unlink()
        *_, printed = [run(step, folder, files if planned else ()) for step in command.line.split(" && ")]
        assert re.search(pattern or r"\ntotal +\d+\n" * planned, printed, re.DOTALL), f"{page}: {line}: {printed}"
        for name, number in files.items() if not planned else ():
            assert len(list(folder.glob(name))) == number, f"{page}: {line}: {name}"
        if command.output:
            assert form(printed.rstrip().splitlines()) == form(command.output), f"{page}: {line}: {printed}"
    assert not set(PROMISED) - done, "no page has these commands"
