"""What a call of Snakemake tells a person: what it will do and why, what runs and how far it is, and how it ended.

`follow` takes the place of Snakemake's own messages in the terminal; its log file keeps them all. In a terminal the
last lines are about the jobs that run, each with what its log says last; elsewhere each job is a line when it starts
and one when it ends, and what takes long is told of from time to time.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from ccs.config import running
from ccs.stage import give_up_stdout

Workflow = Any  # Snakemake's; its own types allow None for what is there by now

LATE = 5.0  # seconds in which a job that waits for nothing has begun its log
SECONDS = 1.0  # between looks at logs, in a terminal
OFTEN, SELDOM = 60.0, 600.0  # seconds between lines about jobs that run, elsewhere: twice as long each time
TAIL = 1 << 13  # bytes at the end of a log in which its last line is
BAR = re.compile(r".*?(?P<percent>\d+)%\|.*\[[\d:]+<(?P<left>[\d:]+)")  # of tqdm, once it knows
CONTROL = re.compile(r"\x1b\[[\d;?]*[ -/]*[@-~]")  # of a terminal: colours, the cursor's place
NO_RULE = re.compile(r"No rule to produce (\S+)")  # what Snakemake says of an unknown target
MESSAGE = 20  # lines of a failed job's log, where it has no message of ours

# Messages of Snakemake's that say nothing to a person, by how they begin, and kinds of them that are told otherwise
# here. Any other is passed on.
NOISE = (
    "Assuming unrestricted shared filesystem",
    "Building DAG of jobs",
    "Using shell:",
    "Conda environments: ignored",
    "Select jobs to execute",
    "Reasons:",
    "This was a dry-run",
    "RuleException:\nCalledProcessError",
    "Exiting because a job execution failed",
    "Shutting down, this might take some time",
    "WorkflowError:\nAt least one job did not complete successfully",
    "Complete log",
    "Elapsed time",
)
OTHERWISE = ("workflow_started", "resources_info", "job_started", "progress", "shellcmd")


@dataclass
class Job:
    """One that was started, or was submitted to a cluster."""

    name: str
    rule: str
    logs: list[str]
    started: float  # time.time()
    failure: str = ""  # what a cluster says of it

    def waits(self) -> bool:
        """In a queue: it has not begun its log. One that has no log is taken for begun."""
        late = time.time() - self.started > LATE
        return late and bool(self.logs) and not any(_written(log, self.started) for log in self.logs)


def follow(workflow: Workflow) -> None:
    """From here on tell it so. Another logger, or `--quiet`, stays what it is; with `--printshellcmds` (-p),
    `--verbose` or `--debug-dag` Snakemake's messages stay, too.
    """
    settings = workflow.output_settings
    if {str(each).rpartition(".")[2].lower() for each in settings.quiet or ()} - {"host"}:
        return
    logger = workflow.logger_manager.logger
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler" and isinstance(handler, logging.StreamHandler):
            whole = settings.printshellcmds or settings.verbose or settings.debug_dag
            logger.removeHandler(handler)
            logger.addHandler(Follower(workflow, handler, whole=whole))
            return


class Follower(logging.Handler):
    """Snakemake's records as a person wants them."""

    def __init__(self, workflow: Workflow, snakemakes: logging.StreamHandler, *, whole: bool):
        super().__init__(snakemakes.level)
        self.workflow = workflow
        self.snakemakes = snakemakes
        self.whole = whole
        self.stream: TextIO = snakemakes.stream
        self.is_terminal = self.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.total: Counter[str] = Counter()  # jobs by rule
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)  # that ended, by rule
        self.running: dict[int, Job] = {}
        self.failed: dict[int, Job] = {}
        self.began = time.time()
        self.lines = 0  # at the end of the terminal, about what runs
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None

    # -- records ---------------------------------------------------------------------------------------------------
    def emit(self, record: logging.LogRecord) -> None:
        """Errors in here are shown as those of any logger, and the work goes on."""
        try:
            self._erase()
            self._take(record, str(getattr(record, "event", None) or ""))
            self._draw()
        except Exception:
            self.handleError(record)

    def _take(self, record: logging.LogRecord, event: str) -> None:
        if self.whole:
            self.snakemakes.handle(record)
        if event == "run_info":
            self._plan(getattr(record, "stats", {}))
        elif event == "job_info":
            self._start(record)
        elif event == "job_finished":
            if job := self.running.pop(vars(record)["job_id"], None):  # else a target such as `all`
                self._finish(job, vars(record)["job_id"])
        elif event == "job_error":
            self._fail(record)
        elif not self.whole and event not in OTHERWISE and not str(record.msg).startswith(NOISE):
            self.snakemakes.handle(record)
        if unknown := NO_RULE.search(record.getMessage()):
            self._say(near(self.workflow, unknown[1]))
        idle = str(record.msg).startswith("Nothing to be done")  # only by now are there settings of an execution
        if idle and not (self.workflow.dryrun or self.workflow.execution_settings.no_hooks):
            self.workflow._onsuccess(None)  # what there is, all the same

    def _plan(self, stats: dict[str, int]) -> None:
        if self.total:  # a dry run tells it once more when it ends
            return
        nothing = {"total", *(job.rule.name for job in self.workflow.dag.jobs if job.is_norun)}  # targets such as `all`
        self.total = Counter({stage: count for stage, count in stats.items() if stage not in nothing})
        if not self.whole:
            self._say(plan(self.workflow.dag, self.total) + targets(self.workflow))
            if self.workflow.dryrun:
                self._say("Nothing was done (-n). Each job with its files and command: -p")

    def _start(self, record: logging.LogRecord) -> None:
        if self.workflow.dryrun:
            return
        about = vars(record)
        if about["rule_name"] not in self.total:
            return
        job = Job(name(about["rule_name"], about["wildcards"]), about["rule_name"], list(about["log"]), time.time())
        if not self.running and not self.seconds:
            self.began = job.started
        self.running[about["jobid"]] = job
        if not self.is_terminal:
            self._say_when(f"starts: {job.name}")
        if self.thread is None and not self.whole:
            self.thread = threading.Thread(target=self._watch, daemon=True)
            self.thread.start()

    def _finish(self, job: Job, number: int) -> None:
        self.failed.pop(number, None)
        taken = time.time() - job.started
        self.seconds[job.rule].append(taken)
        self._say_when(f"{self._done()} of {self.total.total()} done: {job.name}, in {tqdm.format_interval(taken)}")
        for log in job.logs:
            for line in _lines(log):
                if line.startswith("ccs: warning:"):
                    self._say(line, always=True)

    def _fail(self, record: logging.LogRecord) -> None:
        about = vars(record)
        job = self.running.pop(about["jobid"], None) or Job(about["rule_name"], about["rule_name"], [], time.time())
        job.logs, job.failure = list(about["log"]), about["rule_msg"] or ""  # a cluster has a log of its own
        if not running.TOLD.is_set():
            self.failed[about["jobid"]] = job
        self._say_when(f"{'stopped' if running.TOLD.is_set() else 'failed'}: {job.name}")

    def close(self) -> None:
        """The last thing that is said: why jobs failed, and where more of it is."""
        self.ended.set()
        with self._held():
            self._erase()
            for job in self.failed.values():
                reason = message(job.logs[0]) if job.logs else []
                logs = ", ".join(_from(self.workflow, log) for log in job.logs)
                told = [f"\nfailed: {job.name}", job.failure, *reason, f"(log: {logs})"]
                self._say("\n".join(filter(None, told)), always=True)
            if self.failed:
                self._say("\nWhat was done stays. Once the cause is mended, the same command goes on", always=True)
            elif running.TOLD.is_set():
                self._say("What was done stays. The same command goes on", always=True)
            self.failed.clear()
        super().close()

    # -- what is told ------------------------------------------------------------------------------------------------
    def finish(self) -> None:
        """All jobs are done: nothing more is said about what runs."""
        self.ended.set()
        with self._held():
            self._erase()
            if not self.total:
                return
            took = tqdm.format_interval(time.time() - self.began)
            self._say(f"{self._done()} of {self.total.total()} done, in {took}")

    @contextmanager
    def _held(self) -> Generator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _done(self) -> int:
        return sum(map(len, self.seconds.values()))

    def _say(self, text: str, *, always: bool = False) -> None:
        if always or not self.whole:
            print(text, file=self.stream, flush=True)

    def _say_when(self, text: str) -> None:
        self._say(f"{time.strftime('%H:%M:%S')}  {text}")

    def _watch(self) -> None:
        """In a thread: tell of jobs that run."""
        pause = SECONDS if self.is_terminal else OFTEN
        while not self.ended.wait(pause):
            with self._held():
                if self.is_terminal:
                    self._erase()
                    self._draw()
                else:
                    for line in self._about():
                        self._say_when(line)
                    pause = min(2 * pause, SELDOM)

    def _draw(self) -> None:
        if not self.is_terminal or not self.running or self.ended.is_set() or self.whole:
            return
        width, height = os.get_terminal_size(self.stream.fileno())  # 0 where they are not known
        lines = list(self._about())[: max(1, (height or 24) - 2)]
        width = max(width or 80, 8)
        about = [line if len(line) <= width else f"{line[: width - 4]} ..." for line in lines]
        # without its wrapping the terminal cuts lines of wide letters too
        print("\x1b[?7l", *(f"{line}\n" for line in about), "\x1b[?7h", sep="", end="", file=self.stream, flush=True)
        self.lines = len(about)

    def _erase(self) -> None:
        if self.lines:
            print(f"\x1b[{self.lines}A\x1b[J", end="", file=self.stream, flush=True)
            self.lines = 0

    def _about(self) -> Iterator[str]:
        """A line about all jobs, and one about each that runs."""
        now = time.time()
        waiting = {number for number, job in self.running.items() if job.waits()}
        status = f"{self._done()} of {self.total.total()} done, {len(self.running) - len(waiting)} running"
        if waiting:
            status += f", {len(waiting)} waiting in the queue"
        left = self._left(now)
        yield f"{status}, {tqdm.format_interval(now - self.began)} so far" + (
            f", about {tqdm.format_interval(left)} left" if left is not None else ""
        )
        for number, job in self.running.items():
            said = next(filter(None, (_last_said(log, job.started) for log in job.logs)), "")
            said = "waits" if number in waiting else said
            yield f"  {job.name}, {tqdm.format_interval(now - job.started)}  {said}".rstrip()

    def _left(self, now: float) -> float | None:
        """Seconds, by how long jobs of the same rules took and how many ran at once; None where one that takes long has
        no example yet.
        """
        to_do = self.total - Counter({rule: len(each) for rule, each in self.seconds.items()})
        quick = self.workflow._localrules
        if any(rule not in self.seconds and rule not in quick for rule in to_do):
            return None
        mean = {rule: sum(each) / len(each) for rule, each in self.seconds.items()}
        ran = {rule: [now - job.started for job in self.running.values() if job.rule == rule] for rule in mean}
        work = sum(mean[rule] * to_do[rule] - sum(min(mean[rule], each) for each in ran[rule]) for rule in mean)
        busy = sum(map(sum, self.seconds.values())) + sum(now - job.started for job in self.running.values())
        return work / max(busy / max(now - self.began, 1e-3), 1e-3)


def name(rule: str, wildcards: dict[str, str]) -> str:
    """Of a job: `train demo split 1 ccs seed 0`."""
    told = [f"{key} {value}" if key in ("split", "seed", "shard") else value for key, value in wildcards.items()]
    return " ".join([rule, *map(str, told)])


def plan(dag: Any, total: Counter[str]) -> str:
    """Each stage with how many jobs of it there are to do, and why, in the order of the stages."""
    why = defaultdict(set)
    for job in dag.needrun_jobs(exclude_finished=False):
        why[job.rule.name].update(dag.reason(job).get_names())
    width = max(map(len, [*total, "stage"]))
    rows = [f"{'stage':{width}}  jobs  why", *(_row(stage, total[stage], why[stage], width) for stage in total)]
    return "\n".join([*rows, f"{'total':{width}}  {total.total():4}", ""])


def _row(stage: str, jobs: int, why: set[str], width: int) -> str:
    """What follows from another stage's reasons is told where there is no other."""
    told = (why - {"input files updated by another job"}) or why
    return f"{stage:{width}}  {jobs:4}  {'; '.join(sorted(told))}".rstrip()


def targets(workflow: Workflow) -> str:
    """Where none was named: which was taken, and which there are."""
    if workflow.dag_settings.targets:
        return ""
    return (
        f"No target was named, so it is {workflow.default_target}. `-- all` makes every table and figure, and each "
        f"is a target of its own:\n  {' '.join(_named(workflow))}\n"
    )


def _named(workflow: Workflow) -> list[str]:
    """The targets that people name: tables, figures, the report."""
    every = next(rule for rule in workflow.rules if rule.name == "all").input
    return [str(each) for each in every if not str(each).startswith("results/figures/curves/")]


def near(workflow: Workflow, target: str) -> str:
    """Of a target that there is not: which was meant, and which there are."""
    named = _named(workflow)
    meant = "".join(f"Did you mean {each}? " for each in difflib.get_close_matches(target, named, n=1))
    return f"{meant}The targets of this configuration:\n  all {' '.join(named)}"


def end(workflow: Workflow, runs: Sequence[str]) -> None:
    """When all jobs are done: what was measured on standard output, and on standard error what there is and what to do
    next. Of checkpoints it names one of the last of these runs; the first ones are what it is compared with.
    """
    for handler in workflow.logger_manager.logger.handlers:
        if isinstance(handler, Follower):
            handler.finish()
    made = [str(path) for job in workflow.dag.jobs for path in job.output if os.path.exists(path)]  # not with --until
    for path in sorted(each for each in made if each.endswith(".md")):
        # published rows of other data stand apart, below
        _print(Path(path).read_text(encoding="utf-8").partition("\n## Published")[0])
    shown = sorted(each for each in made if each.endswith((".html", ".svg")) and ".details." not in each)
    if shown:
        print("To look at:", *(f"  {_from(workflow, each)}" for each in shown), sep="\n", file=sys.stderr)
    following = []
    by_make = "MAKELEVEL" in os.environ
    if "results/report.html" not in shown:
        how = "make results/report.html" if by_make else "the same command with the target `-- all`"
        following.append(f"  every table and figure, and one page of all: {how}")
    if checkpoints := sorted(each for each in made if each.endswith("/checkpoint.pt")):
        chosen = next((each for each in checkpoints if f"/{runs[-1]}/" in each), checkpoints[0])
        enter = f"source {_from(workflow, sys.prefix)}/bin/activate; " if by_make else ""  # its PATH ends with make
        following.append(f"  classify a video: {enter}ccs predict VIDEO --checkpoint {_from(workflow, chosen)}")
    if following:
        print("What next:", *following, sep="\n", file=sys.stderr)


def _print(text: str) -> None:
    """On standard output, if it can be: where nobody reads it, its disk is full or its letters are few, the work is
    done all the same, and the file has the text.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
    except OSError:
        give_up_stdout()


def message(log: str) -> list[str]:
    """The lines of a failed stage's log that say why: its message, or its traceback, or what came last."""
    lines = _lines(log)
    for begins in ("ccs: error:", "Traceback (most recent call last)"):
        found = [index for index, line in enumerate(lines) if line.startswith(begins)]
        if found:
            return lines[found[-1] :]
    return lines[-MESSAGE:] or ["it has said nothing"]


def _lines(log: str) -> list[str]:
    try:
        return list(map(_plain, Path(log).read_text(encoding="utf-8", errors="replace").splitlines()))
    except OSError:
        return []


def _plain(line: str) -> str:
    """Without what would move the terminal's cursor or colour what follows."""
    return "".join(letter if letter.isprintable() else " " for letter in CONTROL.sub("", line))


def _written(log: str, since: float) -> bool:
    """There is this log, and not of an earlier call."""
    try:
        return os.stat(log).st_mtime >= since - 1
    except OSError:
        return False


def _last_said(log: str, since: float) -> str:
    """What a log that has been written since then ends with: how far its bar is, and its last message."""
    if not _written(log, since):
        return ""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = list(map(_plain, re.split(r"[\r\n]", file.read().decode(errors="replace"))))
    except OSError:
        return ""
    bars = [bar for bar in map(BAR.match, lines) if bar]
    far = f"{bars[-1]['percent']} %, {bars[-1]['left']} left" if bars and bars[-1]["percent"] != "100" else ""
    last = next((line.strip() for line in reversed(lines) if line.strip() and "%|" not in line), "")
    return ", ".join(filter(None, [far, last]))


def _from(workflow: Workflow, path: str) -> str:
    """The path as it is named where Snakemake was called: `--directory` may be elsewhere."""
    return os.path.relpath(path, workflow.rundir)
