"""The locked environment: exact, hashed, without addresses, and one owner of `cv2`."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "envs" / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^ \\;]+)", LOCK, re.MULTILINE))


def test_every_package_asked_for_is_locked_with_hashes_and_no_address():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = asked["project"], asked["dependency-groups"]
    asked = project["dependencies"] + project["optional-dependencies"]["gpu"] + groups["dev"]
    assert {re.match(r"[A-Za-z0-9_.-]+", each).group() for each in asked} <= LOCKED.keys()
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK
    assert "index" not in LOCK.lower()
    assert LOCKED["torch"] != "2.13.0"


def test_every_dependency_says_why_it_is_there():
    text = (ROOT / "pyproject.toml").read_text()
    for section in ("\ndependencies", "\ngpu", "\ndev"):
        lines = text.split(f"{section} = [\n")[1].split("\n]")[0].splitlines()
        assert lines
        assert all(re.search(r'",\s+# \S', line) for line in lines)


def test_one_package_owns_cv2():
    assert packages_distributions()["cv2"] == ["opencv-contrib-python-headless"]
    assert [name for name in LOCKED if name.startswith("opencv")] == ["opencv-contrib-python-headless"]


def test_the_conda_environment_is_that_of_the_lock():
    conda = runpy.run_path(str(ROOT / "envs" / "conda.py"))
    assert (ROOT / "envs" / "ccs.yaml").read_text() == conda["conda_environment"]()


# a make that runs the tests tells of itself what these look for
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
CPU = runpy.run_path(str(ROOT / "envs" / "cpu.py"))
TRAINING_STEP = """
import ctypes, sys
sys.modules["triton"] = None  # as if it were not installed
load, left_out = ctypes.CDLL, sys.argv[1:]
# torch loads what it finds, needed or not; what it is linked to the system loads for it
ctypes.CDLL = lambda name, *more, **options: None if name in left_out else load(name, *more, **options)
import accelerate, captum.attr, torch, torchvision
model = torchvision.models.shufflenet_v2_x0_5(weights=None)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
model(torch.randn(2, 3, 32, 32)).sum().backward()
optimizer.step()
torch.linalg.inv(torch.eye(3))
print(open("/proc/self/maps").read())
"""


def test_the_lock_for_cpus_leaves_out_nothing_else():
    def names(text: str) -> set[str]:
        return set(re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE))

    assert names(LOCK) - names(CPU["cpu_lock"](LOCK)) == set(CPU["LEFT_OUT"])
    apart = CPU["cpu_lock"](LOCK, torch_apart=True)
    gone = names(LOCK) - names(apart)
    assert set(CPU["LEFT_OUT"]) | {"torch", "torchvision", "nvidia-cudnn-cu13", "nvidia-cublas"} <= gone
    assert all(name.startswith(("torch", "nvidia-", "cuda-", "triton")) for name in gone)
    assert {"nvidia-cuda-nvrtc", "nvidia-cuda-nvdisasm", "cuda-bindings"} <= names(apart)  # the tests' kernels
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)
    assert all(entry in entries for entry in re.split(r"^(?=[A-Za-z0-9])", apart, flags=re.MULTILINE))
    assert CPU["torch_requirements"](LOCK) == [f"{name}=={LOCKED[name]}" for name in ("torch", "torchvision")]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what a process has loaded")
def test_torch_on_a_cpu_loads_nothing_that_is_left_out():
    left_out = set()
    for name in CPU["LEFT_OUT"]:
        with suppress(PackageNotFoundError):  # in an environment that was made so
            left_out |= {str(file.locate()) for file in distribution(name).files or [] if ".so" in file.name}
    line = [sys.executable, "-c", TRAINING_STEP, *left_out]
    loaded = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert "libtorch_cpu.so" in loaded
    assert not {path for path in left_out if path in loaded}


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_for_cpus_takes_torch_from_the_index_that_is_named(tmp_path):
    """With made-up packages: a build +cpu of the locked version counts as that version, and no other index has it."""
    for name in ("torch", "torchvision"):
        (tmp_path / name).mkdir()
        version = f"{LOCKED[name]}+cpu"
        wheel = tmp_path / name / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(
                f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
            file.writestr(
                f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            file.writestr(f"{name}-{version}.dist-info/RECORD", "")
        (tmp_path / name / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    command = ["make", "-n", "-B", "CPU=1", f"TORCH_INDEX={tmp_path.as_uri()}", ".venv/.ready"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=OUTSIDE).stdout
    (line,) = (line for line in lines.splitlines() if "--index-url" in line)
    assert "--require-hashes" not in line
    assert re.search(r"envs/cpu.py --torch-apart > (\S+)\n.*--require-hashes --no-deps -r \1\n", lines)
    line = line.replace(".venv/bin/python", sys.executable) + f" --target {tmp_path / 'installed'}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    subprocess.run(
        line, shell=True, cwd=ROOT, check=True, capture_output=True, env={**clean, "PIP_CONFIG_FILE": os.devnull}
    )
    assert {path.name for path in (tmp_path / "installed").glob("*.dist-info")} == {
        f"{name}-{LOCKED[name]}+cpu.dist-info" for name in ("torch", "torchvision")
    }
    line = ["make", "-n", "TORCH_INDEX=x", "env"]
    told = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, env=OUTSIDE)
    assert told.returncode == 2
    assert "CPU=1" in told.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(
    ("made", "flag", "says"), [("", "CPU=", ""), ("", "CPU=1", "remove it"), (" CPU=1", "CPU=1", "")]
)
def test_an_environment_that_is_there_stays(made, flag, says, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("envs/requirements.lock", "pyproject.toml", ".venv/.ready"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"made{made}\n")
        os.utime(tmp_path / name, (1, 1 + (name == ".venv/.ready")))
    line = ["make", "--no-print-directory", "env", flag]
    told = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True, env=OUTSIDE).stdout
    assert says in told
    assert bool(told.replace("make: Nothing to be done for 'env'.\n", "")) == bool(says)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("home", [None, "/nonexistent", "."])
def test_make_gives_snakemake_a_home_that_can_be_written(home, tmp_path):
    """Where there is one it stays."""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    if home:
        environment["HOME"] = str(tmp_path / home)
    command = ["make", "--no-print-directory", "--eval", "show: ; @echo $$HOME", "show"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (str(tmp_path) if home == "." else str(ROOT / ".snakemake"))


def test_figures_need_no_home():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG", "MPL"))}
    command = [sys.executable, "-c", "import ccs.figures.style"]
    environment |= {"HOME": "/dev/null/none", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_make_help_tells_of_each_target():
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, env=OUTSIDE).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert set(re.findall(r"^make (\S+)  ", told, re.MULTILINE)) == {*phony, "results/table1.csv"}
    assert told.splitlines()[-1].endswith("without all that GPUs need")
