"""Labels and data in Markdown: shown as they are, and left readable where nothing needs escaping."""

from __future__ import annotations

import pytest

from ccs.tables.layout import plain

from .made_up import Html, parse_markdown, random_scores, unescaped

NASTY = r"<b>*a*</b> _b_ `c` [d](e) **f** a|b \* &lt; ~~g~~"
ESCAPED = r"\<b\>\*a\*\</b\> \_b\_ \`c\` [d\](e) \*\*f\*\* a\|b \\\* \&lt; \~\~g\~\~"


@pytest.mark.parametrize(
    "text",
    [
        "two_stream",
        "ConvNets+LSTM [5]",
        "R(2+1)D [32] (a)",
        "[+0.1, +2.0]",
        'It\'s {ours} & "theirs"',
        "50.0 ± 5.0",
        "86.2.7",
        "-",
        "native 0.1.0; x86_64",
        "TSN & CCS; all",
    ],
)
def test_what_is_no_markup_stays_as_it_is(text):
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        (NASTY, ESCAPED),
        ("_a b_", r"\_a b\_"),
        ("a__b", r"a\_\_b"),
        ("(_a_)", r"(\_a\_)"),
        ("[a][b]", r"[a\][b]"),
        ("&#42;", r"\&#42;"),
        ("\\", "\\\\"),
    ],
)
def test_markup_is_escaped(text, markdown):
    assert plain(text) == markdown
    assert unescaped(markdown) == text


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table4"])
def test_labels_are_shown_as_they_are_wherever_they_stand(build, table):
    settings = {"losses": {"alphas": [0.3, 0.3, 0.8], "ranking": True}, "network": {"weights": "my_*_net*.pth"}}
    files = [
        random_scores(seed=s, run=run, settings=settings, fusion=fusion, dataset=dataset)
        for s, (run, dataset, fusion) in enumerate(
            [("ccs", "demo", (1.0, 1.5)), ("other", "demo", (1.0, 1.0)), ("other", "_x_", (1.0, 1.0))]
        )
    ]
    rows = {"ccs": NASTY, "other": "two_stream"}
    _, markdown, html = build(table, *files, rows={"Base *b*": rows} if table == "table3" else rows)
    section = r"Base \*b\*" if table == "table3" else "Measured here: demo"
    lines = parse_markdown(markdown[markdown.index("## Measured here: demo") :], section)
    assert [line["Method"] for line in lines] == [NASTY, "two_stream"]
    assert f"1 : 1.5 for {ESCAPED}; 1 : 1 for two_stream" in markdown
    assert r"## Measured here: \_x\_, split 1" in markdown
    page = Html(html)
    assert f"1 : 1.5 for {NASTY}; 1 : 1 for two_stream" in page.text
    assert not {"b", "em", "del"} & {tag for tag, _ in page.tags}
    if table == "table3":
        assert rf"- Nothing to compare the rows of Base \*b\* with, as {ESCAPED} was not measured here." in markdown
        assert f"Nothing to compare the rows of Base *b* with, as {NASTY} was not measured here." in page.text
    if table in ("table1", "table2"):
        assert {line["Pre-train"] for line in lines} == {"my_*_net*.pth"}


def test_markup_of_our_own_stays(build):
    _, markdown, html = build("table1", random_scores(), random_scores(run="b", skill=9), rows={"ccs": "a", "b": "b"})
    assert parse_markdown(markdown, "Measured here: demo")[1]["RGB"].startswith("**")
    assert "ConvNets+LSTM [5]" in markdown
    assert "One seed: no standard deviation. The best number of a column is bold." in markdown
    for text in (markdown, html):
        assert "deviation over" not in text
        assert "best mean" not in text


def test_quarantined_videos_are_named_in_bold(build):
    scores = random_scores(quarantined=[i < 2 for i in range(40)])
    scores.rgb[:2] = scores.flow[:2] = float("nan")
    _, markdown, html = build("table1", scores, rows={"ccs": "a"})
    said = "2 of 40 test videos could not be decoded and count as errors"
    assert f"- **{said}** (why: `data/demo/quarantine.csv`)." in markdown
    assert f"<strong>{said}</strong> (why: <code>data/demo/quarantine.csv</code>)." in html
