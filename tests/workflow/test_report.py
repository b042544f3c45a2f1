"""The quick preset takes every rule through; its report opens in a browser and shows everything that was asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from selenium import webdriver
from selenium.common.exceptions import ElementClickInterceptedException, NoSuchElementException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
SHOWN = "iframe, img[src*='filename=']:not([src*='filename=logo'])"  # of an entry, not the report's own logo
BROWSER = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]

pytestmark = pytest.mark.slow


@pytest.fixture
def everything(tmp_path_factory) -> Path:
    """The folder of a whole quick run."""
    folder = tmp_path_factory.mktemp("quick")
    configs = [ROOT / "config.yaml", ROOT / "workflow/configs/quick.yaml"]
    snakemake = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "-d", folder, "--cores", "2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [*snakemake, "--configfile", *configs, "--", "all"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


def check_every_table_and_figure(everything: Path) -> None:
    for table in CONFIG["tables"]:
        measured = pd.read_csv(everything / f"results/{table}.csv")
        assert {"measured", "published"} <= set(measured["source"])
        for suffix in (".md", ".html"):
            assert (everything / f"results/{table}{suffix}").stat().st_size > 1000
    for figure in CONFIG["figures"]:
        for suffix in (".svg", ".png", ".csv", ".details.html"):
            assert (everything / f"results/figures/{figure}{suffix}").stat().st_size > 200
    for run in CONFIG["runs"]:  # all of them are shown
        for suffix in (".svg", ".png", ".csv"):
            assert (everything / f"results/figures/curves/{run}{suffix}").stat().st_size > 200
    history = list((everything / "results/runs").rglob("history.csv"))
    assert len(history) == len({path.parent.parent.name for path in history}) == len(CONFIG["runs"])  # each run once


@pytest.fixture
def driver(tmp_path):
    if None in BROWSER:
        pytest.skip("no Chromium with its driver (Debian packages chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER[0]
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1500,1000"]
    flags += ["no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"]
    for flag in [*flags, f"user-data-dir={tmp_path}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(BROWSER[1]))
    yield browser
    browser.quit()


def check_what_it_opens_on(everything: Path, driver: webdriver.Chrome, wait: WebDriverWait) -> None:
    """Without a click: the numbers in sight, every figure drawn below them, and the graph of the rules after these."""
    pictures = wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, ".prose img"))
    shown = [image.get_attribute("alt") for image in pictures]
    assert shown == [f"results/figures/{figure}.svg" for figure in CONFIG["figures"]]
    for image in pictures:
        wait.until(lambda d, img=image: d.execute_script("return arguments[0].naturalWidth", img) > 300)
    measured = pd.read_csv(everything / "results/table1.csv").query("source == 'measured'")
    cells = driver.find_element(By.CSS_SELECTOR, ".prose table").find_elements(By.TAG_NAME, "td")
    text = [cell.text for cell in cells]
    height = driver.execute_script("return window.innerHeight")
    for label, accuracy in zip(measured["method"], measured["demo RGB+Flow"], strict=True):
        row = text.index(label)
        assert f"{accuracy:.1f}" in text[row : row + 6]
        assert 0 < cells[row].rect["y"] < height
    assert pictures[0].rect["y"] < height
    assert max(image.rect["y"] for image in pictures) < driver.find_element(By.ID, "rulegraph").rect["y"]
    wait.until(lambda d: pictures[0].click() or True)  # opens it alone
    wait.until(lambda d: not d.find_elements(By.CSS_SELECTOR, ".prose") and d.find_element(By.CSS_SELECTOR, SHOWN))


def check_in_a_browser(everything: Path, driver: webdriver.Chrome) -> None:
    """Every entry of each category is opened: figures are pictures that were drawn, pages have their text."""
    # the page moves its columns when they are filled: what is in the way of a click has gone a moment later
    wait = WebDriverWait(driver, 30, ignored_exceptions=[NoSuchElementException, ElementClickInterceptedException])

    def click(find):
        wait.until(lambda d: find(d).click() or True)

    driver.get((everything / "results/report.html").as_uri())
    check_what_it_opens_on(everything, driver, wait)
    pictures, pages = [], []
    entries = {"Figures": 2 * len(CONFIG["figures"]), "Tables": len(CONFIG["tables"]), "Training": len(CONFIG["runs"])}
    for category, num_entries in entries.items():
        click(lambda d, name=category: d.find_element(By.LINK_TEXT, name))
        eyes = wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "a[iconname=eye]"))
        assert len(eyes) == num_entries
        for eye in eyes:
            click(lambda d, eye=eye: eye)
            shown = wait.until(lambda d: d.find_element(By.CSS_SELECTOR, SHOWN))
            name = shown.get_attribute("src").split("filename=")[1].split(";")[0]
            if shown.tag_name == "img":
                wait.until(lambda d, img=shown: d.execute_script("return arguments[0].naturalWidth", img) > 300)
                assert shown.is_displayed()
                pictures.append(name)
            else:
                driver.switch_to.frame(shown)
                text = wait.until(lambda d: d.find_element(By.TAG_NAME, "body").text)
                driver.switch_to.default_content()
                assert "ersions" in text
                pages.append(name)
            driver.save_screenshot(str(everything / f"{name}.png"))
        click(lambda d: d.find_element(By.LINK_TEXT, "Results"))
    assert sorted(pictures) == sorted(f"{name}.svg" for name in [*CONFIG["figures"], *CONFIG["runs"]])
    settings = [f"{figure}.details.html" for figure in CONFIG["figures"]]
    assert sorted(pages) == sorted([*settings, *(f"{table}.html" for table in CONFIG["tables"])])
    assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def check_it_needs_nothing_from_elsewhere(everything: Path) -> None:
    """No script, style, picture or font by address; links to follow are no part of the page."""
    page = (everything / "results/report.html").read_text()
    assert not re.findall(r"""<(?:script|img|iframe|link)[^>]+(?:src|href)=["']https?:""", page)


def test_a_quick_run_and_its_report(everything, request):
    """One test: run on several cores, several would make the run again for each."""
    check_every_table_and_figure(everything)
    check_it_needs_nothing_from_elsewhere(everything)
    check_in_a_browser(everything, request.getfixturevalue("driver"))
