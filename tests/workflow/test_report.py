"""The quick preset takes every rule through; its report opens in a browser and shows everything that was asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
BROWSER = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Path:
    """The folder of a whole quick run."""
    folder = tmp_path_factory.mktemp("quick")
    configs = [ROOT / "config.yaml", ROOT / "workflow/configs/quick.yaml"]
    snakemake = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", folder, "--cores", "2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*snakemake, "--configfile", *configs, "--", "all"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


def test_every_table_and_figure_is_there(everything):
    for table in CONFIG["tables"]:
        measured = pd.read_csv(everything / f"results/{table}.csv")
        assert {"measured", "published"} <= set(measured["source"])
        for suffix in (".md", ".html"):
            assert (everything / f"results/{table}{suffix}").stat().st_size > 1000
    for figure in CONFIG["figures"]:
        for suffix in (".svg", ".png", ".csv", ".settings.html"):
            assert (everything / f"results/figures/{figure}{suffix}").stat().st_size > 200
    history = list((everything / "results/runs").rglob("history.csv"))
    assert len(history) == len({path.parent.parent.name for path in history}) == len(CONFIG["runs"])  # each run once


@pytest.mark.skipif(None in BROWSER, reason="no Chromium with its driver (Debian packages chromium, chromium-driver)")
def test_report_opens_in_a_browser(everything, tmp_path):
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    report = everything / "results/report.html"
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER[0]
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path}")
    options.add_argument("--window-size=1600,1200")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(BROWSER[1]))
    try:
        driver.get(report.as_uri())
        wait = WebDriverWait(driver, 30)
        wait.until(lambda d: "Results" in d.find_element(By.TAG_NAME, "body").text)
        driver.save_screenshot(str(everything / "report.png"))
        print(driver.find_element(By.TAG_NAME, "body").text)
        assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    finally:
        driver.quit()
