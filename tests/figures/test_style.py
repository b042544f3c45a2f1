"""Files are vectors with text, the same bytes twice and whole; text fits where it is put."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from matplotlib.image import imread

from ccs.figures import bars, cam, style
from ccs.figures.figure1 import __main__ as figure1
from ccs.figures.figure5a import __main__ as figure5a
from ccs.stage import CcsError


@pytest.fixture
def figures(make_scores, draw):
    """Each figure drawn under a name."""

    def make(name):
        confusion = draw(figure1, [make_scores(num_quarantined=2)], {"two_stream": "TSN"}, name=f"{name}1")
        return confusion, draw(figure5a, [make_scores()], {"two_stream": "average"}, name=f"{name}5a")

    return make


def test_same_input_same_bytes(figures):
    for one, two in zip(figures("one"), figures("two"), strict=True):
        assert one.svg.read_bytes() == two.svg.read_bytes()
        assert one.png.read_bytes() == two.png.read_bytes()


def test_svg_is_vectors_and_text_of_any_font(figures):
    for drawn in figures("f"):
        svg = drawn.svg.read_text()
        assert "<image" not in svg
        assert "<title>" in svg
        assert "sans-serif" in svg
        assert not drawn.ids("DejaVu")  # no letters as paths
        assert len(drawn.texts) > 10


def test_png_has_200_dots_per_inch(figures):
    for drawn in figures("f"):
        root = drawn.svg.read_text().split("<svg", 1)[1]
        width = float(root.split('width="')[1].split("pt")[0])
        height = float(root.split('height="')[1].split("pt")[0])
        pixels = imread(drawn.png)
        assert pixels.shape[:2] == pytest.approx((height / 72 * 200, width / 72 * 200), abs=1)
        assert pixels.min() < 0.2  # something is drawn
        assert (pixels[0] == 1).all()  # and nothing at the edges
        assert (pixels[:, -1] == 1).all()
        assert (pixels[-1] == 1).all()


def test_a_users_matplotlibrc_does_not_count(figures):
    import matplotlib

    before = figures("before")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        during = figures("during")
    for one, two in zip(before, during, strict=True):
        assert one.svg.read_bytes() == two.svg.read_bytes()


def test_nothing_half_written(tmp_path, monkeypatch):
    with style.applied():
        figure = style.new_figure(1, 1)
    monkeypatch.setattr(figure, "savefig", lambda path, **_: (path.write_text("half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        style.save(figure, tmp_path / "f.svg", tmp_path / "f.png", title="")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CcsError, match=r"expected a name that ends in \.png; rename"):
        style.save(figure, tmp_path / "f.svg", tmp_path / "f.jpg", title="")


def test_a_huge_figure_has_fewer_dots(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "MAX_SIDE", 300)
    with style.applied():
        style.save(style.new_figure(1, 5), tmp_path / "f.svg", tmp_path / "f.png", title="")
    assert imread(tmp_path / "f.png").shape[:2] == (300, 60)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("drink", ["drink"]),
        ("Putting something on a surface", ["Putting something", "on a surface"]),
        ("HandstandPushupsOnTheFloor", ["HandstandPushups", "OnTheFloor"]),
        ("shoot_ball_into_the_basket", ["shoot_ball_into_", "the_basket"]),
        ("  two\n\x01lines ", ["two lines"]),
    ],
)
def test_wrap_breaks_where_words_end(text, lines):
    assert style.wrap(text, 1.05, 8) == lines


@pytest.mark.parametrize(
    "text", ["Pretending or failing to wipe something off of something", "x" * 90, "a b c", "日本"]
)
def test_wrapped_lines_fit(text):
    for width in (0.3, 0.7, 1.6):
        lines = style.wrap(text, width, 8)
        assert all(style.text_width(line, 8) <= width for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert len(style.wrap(text, width, 8, max_lines=2)) <= 2
        assert style.wrap(text, width, 8, max_lines=1)[0].endswith("…") == (len(lines) > 1)


MADE_UP = "日\uf8ff"  # the second letter is in no font that anyone would install for tests


def write_letters(tmp_path):
    with style.applied():
        figure = style.new_figure(2, 1)
        style.write(figure, 0.5, 0.5, MADE_UP, fontsize=20)
        style.save(figure, tmp_path / "f.svg", tmp_path / "f.png", title="")
    return (tmp_path / "f.svg").read_text(), imread(tmp_path / "f.png")[..., 0]


@pytest.fixture
def only_bundled_fonts(monkeypatch):
    own = matplotlib.get_data_path()
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if font.fname.startswith(own)])
    installed = []
    monkeypatch.setattr(style, "findSystemFonts", lambda: installed)
    caches = (style.fallbacks, style.text_width, style._learn_new_fonts)
    for each in caches:
        each.cache_clear()
    yield installed
    for each in caches:
        each.cache_clear()


@pytest.mark.filterwarnings("error")
def test_letters_of_no_font_are_named_once(tmp_path, capfd, only_bundled_fonts):
    assert style.text_width(MADE_UP) > 0
    svg, _ = write_letters(tmp_path)
    assert MADE_UP in svg
    said = capfd.readouterr().err
    start = f"ccs: {tmp_path / 'f.png'} (the SVG keeps the text): no installed font has {MADE_UP}, drawn as boxes"
    assert said.startswith(start)
    assert said.count("\n") == 1


@pytest.mark.filterwarnings("error")
def test_letters_come_from_a_font_that_was_installed_since(tmp_path, capfd, only_bundled_fonts):
    pen = TTGlyphPen(None)  # both letters are a black square as wide as the type is high
    for place, corner in enumerate([(0, 0), (0, 1000), (1000, 1000), (1000, 0)]):
        (pen.lineTo if place else pen.moveTo)(corner)
    pen.closePath()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(letter): "square" for letter in MADE_UP})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (500, 0), "square": (1000, 0)})
    font.setupHorizontalHeader(ascent=1000, descent=0)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "squares.ttf")
    (tmp_path / "broken.ttf").write_text("no font")
    only_bundled_fonts += [str(tmp_path / "broken.ttf"), str(tmp_path / "squares.ttf")]
    assert style.text_width(MADE_UP, 36) == pytest.approx(1, abs=0.02)
    svg, png = write_letters(tmp_path)
    assert MADE_UP in svg
    assert (png < 0.5).sum() == pytest.approx(2 * (20 / 72 * style.DPI) ** 2, rel=0.05)
    caption = cam.caption([MADE_UP[0]], 200)[..., 0]  # of a film, at 100 dots per inch
    assert (caption < 128).sum() == pytest.approx((style.SMALL / 72 * 100) ** 2, rel=0.2)
    assert capfd.readouterr().err == ""


def test_text_has_contrast_on_every_cell():
    # WCAG 2.1 asks for 4.5; black or white always gives that
    for grey in np.linspace(0, 1, 21):
        colour = (grey, grey, grey)
        pair = sorted((style.luminance(colour), style.luminance(style.ink_on(colour))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_series_differ_without_colour():
    assert len({look["hatch"] for look in bars.LOOKS}) == len(bars.LOOKS)
    assert {look["facecolor"] for look in bars.LOOKS} <= set(style.PALETTE.values())
