"""The pages: self-contained, whatever the labels hold, with the settings and versions of every run."""

from __future__ import annotations

import json

import pytest

from ccs.scores import write
from ccs.tables import details as details_page

from .made_up import Html, random_scores, scores_with

NASTY = """<script>alert(1)</script> & "q" | *b* `c` https://example.org {x} ±"""
SETTINGS = {
    "network": {"weights": "/home/someone/tsn_kinetics.pth", "weights_flow": "/home/someone/flow.pth"},
    "losses": {"alphas": [0.3, 0.3, 0.8], "ranking": True},
    "train": {"lr": 0.001, "patience": None},
}


def settings(**losses) -> dict:
    return SETTINGS | {"losses": SETTINGS["losses"] | losses}


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table4"])
def test_a_page_is_whole_and_loads_nothing(build, table):
    files = [
        random_scores(seed=s, run=run, settings=settings(), dataset=dataset, fusion=fusion)
        for s in (0, 1)
        for run, fusion in (("ccs", (1.0, 1.5)), ("other", (1.0, 1.0)))  # the labels are in the note on fusion too
        for dataset in ("demo", "a-b_c")
    ]
    rows = {"ccs": NASTY, "other": "Other"}
    csv, _, html = build(table, *files, rows={f"Base {NASTY}": rows} if table == "table3" else rows)
    page = Html(html)
    assert html.startswith("<!DOCTYPE html>")
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert not page.loads
    assert not {"script", "img", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert " ".join(NASTY.split()) in page.text
    if table == "table3":
        assert [f"Base {NASTY}"] in page.rows
    column = "demo test top-1" if table == "table2" else "demo RGB+Flow"
    for mean, std in csv[csv["source"] == "measured"][[column, f"{column} std"]].to_numpy():
        assert f"{mean:.1f} ± {std:.1f}" in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_settings_stand_once_where_shared_and_by_run_where_not(build):
    files = [
        scores_with((5, 6, 6), settings=settings(), seed=s, versions={"torch": "2.11.0", "flow": f"native {s}"})
        for s in (0, 3)
    ]
    files.append(scores_with((5, 6, 6), run="other", settings=settings(ranking=False), versions={"torch": "2.11.0"}))
    _, markdown, html = build("table1", *files, rows={"other": "Other", "ccs": "CCS"})
    page = Html(html)
    text = page.text[page.text.index("Settings and versions") :]
    assert text.count("losses.alphas") == 1
    assert "losses.alphas0.3, 0.3, 0.8" in text
    assert "train.patiencenone" in text
    assert "network.weightstsn_kinetics.pth" in text
    assert "someone" not in html  # where the weights lie is nobody's concern
    assert "torch2.11.0" in text
    assert ["demo", "CCS", "ccs", "0, 3", "1 : 1", "losses.ranking: true; flow: native 0 / native 3"] in page.rows
    assert ["demo", "Other", "other", "0", "1 : 1", "losses.ranking: false"] in page.rows
    assert "- Computed with flow native 0; torch 2.11.0." in markdown
    assert "- Computed with flow native 3; torch 2.11.0." in markdown


@pytest.mark.parametrize("rows", [{"ccs": "CCS"}, {"TSN": {"ccs": "All"}, "I3D": {"ccs": "Base"}}])
def test_settings_are_a_page_of_their_own_for_figures(tmp_path, rows):
    write(tmp_path / "s.h5", scores_with((5, 6, 6), settings=settings()))
    flags = ["--rows", json.dumps(rows), "--title", "figure5a", "--html", str(tmp_path / "f.html")]
    details_page.main(["--scores", str(tmp_path / "s.h5"), *flags])
    page = Html((tmp_path / "f.html").read_text(encoding="utf-8"))
    label = "CCS" if "ccs" in rows else "TSN, All and I3D, Base"
    assert ["demo", label, "ccs", "0", "1 : 1", "nothing"] in page.rows
    assert "figure5a: settings and versions" in page.text
    assert not page.loads
