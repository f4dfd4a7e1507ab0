import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from septum.errors import ImageError, OutputError
from septum.report import pictures
from septum.report.chart import _running_mean, _ticks
from septum.report.page import write_page
from septum.report.pictures import shrink
from septum.report.sections import Command, Curves, Headline, Number, Picture, Pictures, Section, Table, Text
from septum.report.training_curves import training_sections

VOID = {"meta", "img", "br", "hr", "link", "input"}
RNG = np.random.default_rng(0)


class Page(HTMLParser):
    """Parses a page; fails on tags that do not balance."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.open, self.elements, self.text = html, [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.text.append(data.strip())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def pictures(self) -> list[np.ndarray]:
        sources = [str(image["src"]) for image in self.attributes("img")]
        return [decoded(source) for source in sources]


def decoded(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"))


@pytest.fixture
def page(tmp_path: Path):
    def write(*sections: Section, title: str = "A run", subtitle: str = "", footer: str = "") -> Page:
        path = tmp_path / "report.html"
        write_page(path, title=title, subtitle=subtitle, sections=sections, footer=footer)
        return Page(path.read_text(encoding="utf-8"))

    return write


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (*shape, 3)).astype(np.uint8)


def one_of_each() -> list[Section]:
    return [
        Headline([Number(0.9312, "F1 at IoU 0.5", "62 nuclei"), Number("3 min 40 s", "training")]),
        Text("How it was measured", ["First paragraph.", "Second paragraph."]),
        Table("Scores", ["image", "F1"], [["a.tif", 0.9], ["b.tif", 0.8]], note="A table."),
        Curves("Loss", "step", "loss", {"raw": ([0, 5, 10], [1, 0.5, 0.2])}, note="A curve."),
        Pictures("Overlays", [Picture(noise(20, 30), "the caption", "the alt text")], legend={"missed": (255, 176, 0)}),
    ]


# --- the page as a whole


def test_every_section_appears_with_its_content(page) -> None:
    parsed = page(*one_of_each(), title="The title", subtitle="The subtitle", footer="The footer")
    for text in (
        *("The title", "The subtitle", "The footer", "0.9312", "F1 at IoU 0.5", "62 nuclei", "3 min 40 s", "training"),
        *("How it was measured", "First paragraph.", "Second paragraph.", "Scores", "image", "a.tif", "A table."),
        *("Loss", "step", "loss", "A curve.", "Overlays", "the caption", "missed"),
    ):
        assert text in parsed.text, text
    assert parsed.attributes("img")[0]["alt"] == "the alt text"
    assert {"style": "background:rgb(255 176 0)", "class": "swatch"} in parsed.attributes("span")


def test_nothing_is_loaded_and_nothing_runs(page) -> None:
    parsed = page(*one_of_each())
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in parsed.elements}
    assert "default-src 'none'" in parsed.html
    for tag, attributes in parsed.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                assert str(value).startswith(("data:image/", "#")), (tag, name)
    for loader in ("http:", "https:", "@import", "url("):
        assert loader not in parsed.html


@pytest.mark.parametrize(
    "nasty", ["<script>alert(1)</script>.tif", '" onload="x', "a & b < c", "{{ 7 * 7 }}", "</style>"]
)
def test_every_text_is_escaped(page, nasty: str) -> None:
    parsed = page(
        Headline([Number(nasty, nasty, nasty)]),
        Text(nasty, [nasty]),
        Table(nasty, [nasty], [[nasty]], note=nasty),
        Curves(nasty, nasty, nasty, {nasty: ([0, 1], [0, 1]), "other": ([0, 1], [1, 1])}, note=nasty),
        Pictures(nasty, [Picture(noise(4, 4), nasty, nasty)], note=nasty, legend={nasty: (0, 0, 0)}),
        title=nasty,
        subtitle=nasty,
        footer=nasty,
    )
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert not any("onload" in attributes for _, attributes in parsed.elements)
    assert parsed.attributes("img")[0]["alt"] == nasty
    # page: title twice, subtitle, footer; headline 3; text 2; table 4; curves 5; pictures 4; links to the last four
    assert parsed.text.count(nasty) == 4 + 3 + 2 + 4 + 5 + 4 + 4


def test_links_at_the_top_lead_to_the_sections(page) -> None:
    parsed = page(*one_of_each())
    links = [str(link["href"]) for link in parsed.attributes("a")]
    titled = [f"#{s['id']}" for s in parsed.attributes("section") if "aria-labelledby" in s]
    assert links == titled
    assert len(links) == 4
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_empty_sections_make_a_page(page) -> None:
    parsed = page(
        Headline([]), Text("", []), Table("t", [], []), Table("u", ["a", "b"], []), Curves("c", "x", "y", {}),
        Curves("d", "x", "y", {"none": ([], []), "nan": ([1], [np.nan])}), Pictures("p", []),
    )  # fmt: skip
    assert parsed.text.count("No points were recorded.") == 2
    assert parsed.text.count("None.") == 1
    assert page().attributes("section") == []


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(path, title="first", sections=[])
    before = path.read_bytes()
    with pytest.raises(ImageError, match="float64"):
        write_page(path, title="second", sections=[Pictures("p", [Picture(np.zeros((4, 4, 3)), "", "")])])
    assert path.read_bytes() == before
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OutputError):
        write_page(folder, title="third", sections=[])
    assert sorted(tmp_path.iterdir()) == [folder, path]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (4, 0, 3)])
def test_pictures_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=re.escape(str(shape))):
        write_page(tmp_path / "p.html", title="", sections=[Pictures("", [Picture(np.zeros(shape, np.uint8), "", "")])])
    assert not list(tmp_path.iterdir())


def test_the_page_module_does_not_import_torch() -> None:
    code = "import sys, septum.report.page; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commands_stand_by_themselves_as_they_are_typed(page) -> None:
    parsed = page(Text("Next", ["Do this:", Command("septum predict 'my run' <images>"), "Then that."]))
    assert parsed.text[-3:] == ["Do this:", "septum predict 'my run' <images>", "Then that."]
    assert [tag for tag, _ in parsed.elements][-4:] == ["p", "pre", "code", "p"]


def test_a_folded_table_opens_with_a_click_and_empty_headers_are_left_out(page) -> None:
    parsed = page(Table("t", ["a", "b"], [["c", "d"]] * 3, folded=True))
    assert [tag for tag, _ in parsed.elements if tag in ("details", "summary", "table")] == [
        "details",
        "summary",
        "table",
    ]
    assert "Show all 3" in parsed.text
    assert not page(Table("t", ["a", "b"], [["c", "d"]])).attributes("details")
    assert not page(Table("t", ["", ""], [["c", "d"]])).attributes("thead")


# --- numbers


def column(page, *cells: object, best: str | None = None) -> tuple[list[str], list[str]]:
    """Texts and CSS classes of one column of a table."""
    rows = [[f"row {i}", cell] for i, cell in enumerate(cells)]
    parsed = page(Table("t", ["name", "value"], rows, best={"value": best} if best else {}))
    texts = parsed.text[parsed.text.index("row 0") :]
    return texts[1 : 2 * len(cells) : 2], [str(td.get("class", "")) for td in parsed.attributes("td")]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([0.931249, 0.5], ["0.9312", "0.5000"]),
        ([1.0, 0.98765], ["1.0000", "0.9877"]),
        ([0.000353, 0.000005], ["0.000353", "0.000005"]),
        ([31030658, 7], ["31,030,658", "7"]),
        ([1234.5678, 2.5], ["1,235", "2"]),
        ([12.0, 3.0], ["12", "3"]),
        ([123.456, 1e-7], ["123.5", "1e-07"]),
        ([0.5, None, float("nan")], ["0.5", "–", "–"]),
        ([np.float32(0.25), np.int64(3)], ["0.25", "3.00"]),
        ([-0.5, 0.25], ["-0.50", "0.25"]),
        ([True, False], ["yes", "no"]),
        (["text", 0.123456], ["text", "0.1235"]),
        ([float("inf"), 1.5], ["inf", "1.5"]),
        ([0, 0.0], ["0", "0"]),
    ],
)
def test_numbers_are_rounded_alike_in_a_column(page, cells: list[object], expected: list[str]) -> None:
    assert column(page, *cells)[0] == expected


def test_numbers_stand_right_and_the_best_is_marked(page) -> None:
    assert column(page, 0.5, 0.9, None, best="highest")[1] == ["number", "number best", "number"]
    assert column(page, 0.5, 0.9, 0.5, best="lowest")[1] == ["number best", "number", "number best"]
    assert column(page, "a", 0.9, "b" * 25)[1] == ["short", "short", ""]
    assert column(page, None, None, best="highest")[1] == ["short", "short"]


def test_rows_and_columns_have_headers(page) -> None:
    parsed = page(Table("t", ["name", "value"], [["a", 1], ["b", 2]]))
    assert [th["scope"] for th in parsed.attributes("th")] == ["col", "col", "row", "row"]


# --- curves


def paths(parsed: Page, kind: str) -> list[np.ndarray]:
    """Points of the lines of a chart, in thousandths of its sides from the left and the top."""
    found = [str(p["d"]) for p in parsed.attributes("path") if p.get("class") == kind]
    return [np.array([point.split(",") for point in d[1:].split("L")], float) for d in found]


def test_a_straight_line_is_straight_and_ticks_are_where_they_belong(page) -> None:
    parsed = page(Curves("c", "x", "y", {"line": ([0, 5, 10], [0, 1, 2])}))
    np.testing.assert_array_equal(paths(parsed, "line")[0], [[0, 1000], [500, 500], [1000, 0]])
    y_ticks = re.findall(r'style="top:([\d.]+)%">([\d.]+)<', parsed.html)
    x_ticks = re.findall(r'style="left:([\d.]+)%">([\d.]+)<', parsed.html)
    assert y_ticks == [("100.0", "0.0"), ("75.0", "0.5"), ("50.0", "1.0"), ("25.0", "1.5"), ("0.0", "2.0")]
    assert x_ticks == [("0.0", "0"), ("20.0", "2"), ("40.0", "4"), ("60.0", "6"), ("80.0", "8"), ("100.0", "10")]
    (grid,) = (path["d"] for path in parsed.attributes("path") if path.get("class") == "grid")
    assert grid == "".join(f"M0 {10 * float(top)}H1000" for top, _ in y_ticks)


def test_a_logarithmic_axis_spaces_decades_evenly(page) -> None:
    parsed = page(Curves("c", "x", "y", {"line": ([0, 1, 2, 3], [1, 0, 0.1, 0.01])}, log_y=True))
    np.testing.assert_allclose(paths(parsed, "line")[0], [[0, 0], [2000 / 3, 500], [1000, 1000]], atol=0.1)


def test_points_that_are_not_finite_are_left_out(page) -> None:
    with_gaps = page(Curves("c", "x", "y", {"a": ([0, 1, 2, np.inf, 4], [3, np.nan, 5, 6, 7])}))
    without = page(Curves("c", "x", "y", {"a": ([0, 2, 4], [3, 5, 7])}))
    assert with_gaps.html == without.html


def test_a_spike_survives_in_a_long_curve_and_the_page_stays_small(page) -> None:
    y = RNG.normal(size=100_000) / 100
    y[77_777] = 1.0
    parsed = page(Curves("c", "step", "y", {"a": (np.arange(100_000), y)}))
    (line,) = paths(parsed, "line")
    assert len(line) <= 602
    assert line[line[:, 1].argmin(), 0] == pytest.approx(777.8, abs=0.1)
    assert len(parsed.html) < 40_000


def test_one_point_and_a_constant_are_drawn_inside_the_diagram(page) -> None:
    for series in (([3], [0.7]), ([1, 2, 3], [0.7, 0.7, 0.7]), ([1, 2], [0, 0]), ([1, 2], [1.0, 1.0 + 1e-15])):
        for log_y in (False, True):
            drawn = paths(page(Curves("c", "x", "y", {"a": series}, log_y=log_y)), "line")
            for line in drawn:
                assert ((line >= 0) & (line <= 1000)).all()


def test_smoothing_is_the_mean_of_the_points_around(page) -> None:
    y = RNG.normal(size=40)
    slow = [y[max(0, i - 3) : i + 4].mean() for i in range(40)]
    np.testing.assert_allclose(_running_mean(y, 6), slow, atol=1e-12)
    parsed = page(Curves("c", "x", "y", {"a": (range(100), RNG.normal(size=100))}, smooth=True))
    thin, thick = paths(parsed, "line thin")[0], paths(parsed, "line")[0]
    assert np.diff(thick[:, 1]).std() < 0.5 * np.diff(thin[:, 1]).std()


def test_a_chart_is_described_for_those_who_do_not_see_it(page) -> None:
    parsed = page(Curves("c", "step", "loss", {"raw": ([10, 20, 3000], [0.71, 0.05, 0.0612345])}))
    labels = [div["aria-label"] for div in parsed.attributes("div") if div.get("role") == "img"]
    assert labels == ["raw: loss from 0.71 at step 10 to 0.06123 at step 3,000, lowest 0.05, highest 0.71"]


@pytest.mark.parametrize("log", [False, True])
def test_ticks_enclose_the_range_with_few_round_numbers(log: bool) -> None:
    for _ in range(300):
        low = 10 ** RNG.uniform(-6, 6)
        high = low * (1 + 10 ** RNG.uniform(-3, 4))
        ticks, labels = _ticks(low, high, log)
        assert ticks[0] <= low * (1 + 1e-6)
        assert ticks[-1] >= high * (1 - 1e-6)
        assert 2 <= len(ticks) <= 9
        assert len(set(labels)) == len(labels)
        np.testing.assert_allclose([float(label.replace(",", "")) for label in labels], ticks, rtol=1e-5, atol=1e-12)
        assert {re.sub(r"[.0]", "", f"{np.diff(ticks)[0]:.3g}".split("e")[0]) if not log else "1"} <= {"1", "2", "5"}


def test_ticks_of_scores() -> None:
    assert _ticks(0.47, 0.95)[1] == ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]
    assert _ticks(0.06, 0.7, log=True)[1] == ["0.05", "0.1", "0.2", "0.5", "1"]


# --- pictures


@pytest.mark.parametrize("shape", [(1, 1), (7, 40), (128, 128), (129, 20), (300, 500), (1024, 100)])
def test_few_pictures_are_embedded_exactly(page, shape: tuple[int, int]) -> None:
    rgb = noise(*shape)
    parsed = page(Pictures("p", [Picture(rgb, "", "")]))
    np.testing.assert_array_equal(parsed.pictures()[0], rgb)
    assert (parsed.attributes("img")[0].get("class") == "crop") == (max(shape) <= 128)


def test_large_pictures_shrink_to_the_width_of_a_page(page) -> None:
    rgb = np.repeat(np.repeat(noise(50, 40), 40, axis=0), 40, axis=1)
    (shown,) = page(Pictures("p", [Picture(rgb, "", "")])).pictures()
    assert shown.shape == (1024, 819, 3)
    np.testing.assert_array_equal(shrink(np.repeat(np.repeat(noise(8, 8), 4, 0), 4, 1), 8).shape, (8, 8, 3))


def test_shrinking_averages_areas() -> None:
    rgb = noise(32, 48)
    blocks = rgb.reshape(8, 4, 12, 4, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink(rgb, 12), blocks, atol=2)
    assert shrink(rgb, 48) is rgb


def test_many_pictures_of_a_section_are_folded_away(page) -> None:
    crop = Picture(noise(4, 4), "", "")
    assert not page(Pictures("p", [crop] * 40)).attributes("details")
    assert not page(Pictures("p", [crop] * 42, columns=6)).attributes("details")  # whole rows
    assert page(Pictures("p", [crop] * 43, columns=6)).attributes("details")
    parsed = page(Pictures("p", [crop] * 1240, columns=8))
    assert len(parsed.attributes("details")) == 1
    assert "1,200 more" in parsed.text
    assert len(parsed.attributes("img")) == 1240


@pytest.mark.parametrize(
    ("n_images", "n_crops", "most"),
    [(6, 1000, 1_000_000), pytest.param(30, 5000, 5_000_000, marks=pytest.mark.slow)],
)
def test_a_page_of_many_pictures_stays_small_and_they_are_compressed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_images: int, n_crops: int, most: int
) -> None:
    if most < 5_000_000:  # a fifth of the pictures in a fifth of the room
        monkeypatch.setattr(pictures, "_PAGE_BYTES", pictures._PAGE_BYTES * most // 5_000_000)
    grey = np.clip(RNG.normal(110, 20, (n_images + 1, 512, 512)), 0, 255).astype(np.uint8)  # as noisy as micrographs
    images = np.repeat(grey[..., None], 3, axis=-1)
    images[:, ::16, 100:400] = (255, 176, 0)  # outlines
    images[:, 100:400, ::16] = (86, 180, 233)
    corners = RNG.integers(0, 480, (n_crops, 2))
    crops = [
        Picture(
            images[-1, y : y + 32, x : x + 32],
            f"cells_0{k % 30:02d}.tif: missed, {k} px, IoU 0.00",
            f"missed object {k}",
        )
        for k, (y, x) in enumerate(corners)
    ]
    overlays = [Picture(image, f"image {k}", f"overlay of image {k}") for k, image in enumerate(images[:-1])]
    compressed, save = [], Image.Image.save
    monkeypatch.setattr(Image.Image, "save", lambda *given, **how: (compressed.append(1), save(*given, **how)))
    write_page(
        tmp_path / "report.html",
        title="Large",
        sections=[Pictures("Overlays", overlays), Pictures("Error atlas", crops, columns=8)],
    )
    total = len(crops) + len(overlays)
    assert total <= len(compressed) < total + 400  # each once, and before that a sample of at most 100 up to four times
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(html) < most
    shown = re.findall(r'src="(data:image/webp[^"]+)"', html)[-100:]
    for source, crop in zip(shown, crops[-100:], strict=True):  # outlines keep their colours
        assert np.abs(decoded(source).astype(int) - crop.rgb).max() <= 32


# --- training


def test_a_log_becomes_curves_of_loss_and_score(page) -> None:
    log = [{"step": s, "loss": 1 / s, "learning_rate": 1e-3, "seconds": 0.1} for s in range(10, 500, 10)]
    log += [{"step": 100, "validation": {"score": 0.5}}, {"step": 400, "validation": {"score": 0.91234, "f1": 0.9}}]
    log += [{"step": 490, "validation": {"score": 0.9}}, {"step": 490, "ended_early": True}]
    loss, score = training_sections(log)
    assert isinstance(loss, Curves)
    assert isinstance(score, Curves)
    assert loss.series["loss"][1] == tuple(1 / s for s in range(10, 500, 10))
    assert score.series["validation"] == ((100, 400, 490), (0.5, 0.91234, 0.9))
    text = page(loss, score).text
    assert "The loss on the training patches; it should fall. Thin: raw values. Thick: running mean." in text
    assert (
        "The score on the held-out images, which the network never trains on; it should rise. Best: 0.9123 at step 400."
    ) in text


@pytest.mark.parametrize(
    "log",
    [
        [],
        [{}],
        [{"step": 1}],
        [{"step": 1, "loss": float("nan")}],
        [{"step": 2, "validation": {}}],
        [{"step": 2, "loss": None}],
    ],
)
def test_a_log_without_losses_or_scores_gives_no_curves(log: list[dict]) -> None:
    assert training_sections(log) == []
