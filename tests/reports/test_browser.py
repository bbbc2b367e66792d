"""The page in a headless Chromium: what is seen, what is switched, what is asked for elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from sartorius import plates, report
from sartorius.running import wiring
from sartorius.structures.detections import DetectionsFolder
from tests.reports.folders import write_run
from tests.reports.plates.tables import row, write

webdriver = pytest.importorskip("selenium.webdriver")
PICTURES = [f"{kind}{k:02d}" for kind in ("astro", "cort", "shsy5y") for k in range(4)]
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--window-size=1280,900", "--disable-dev-shm-usage",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield opened
    opened.quit()


def written(output: Path, *runs: Path) -> Path:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        overrides = [f"run=[{','.join(map(str, runs))}]", f"output={output}", "bootstrap.samples=100", "plots=false"]
        return Path(report.main(compose("report", overrides=overrides))).resolve()


@pytest.fixture(scope="module")
def pages(tiny_competition: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of one run over 12 images and one of two runs, as files."""
    folder = tmp_path_factory.mktemp("pages")
    first = write_run(folder / "first", tiny_competition, PICTURES[:12])
    second = write_run(folder / "second", tiny_competition, PICTURES[:3], seed=1)
    return {"one": written(folder / "one.html", first), "two": written(folder / "two.html", first, second)}


@pytest.fixture(scope="module")
def unscored_page(tiny_competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of predictions without truth: 12 images, of which one has not been predicted and one has no cells."""
    folder = write_run(tmp_path_factory.mktemp("unscored"), tiny_competition, PICTURES[1:12], curves=False)
    detections = DetectionsFolder(folder / "detections")
    detections.write(detections.load(PICTURES[1]).select([]))
    overrides = [f"detections={folder}", f"images={tiny_competition}/train", "plots=false"]
    return Path(report.main(wiring.compose("report", overrides))).resolve()


@pytest.fixture
def unscored(browser: Any, unscored_page: Path) -> Iterator[Any]:
    """The page of predictions without truth."""
    yield from visited(browser, unscored_page)


@pytest.fixture
def page(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """The page of one run, opened anew; then: no console error, and nothing was asked for but the file and its data."""
    yield from visited(browser, pages["one"])


@pytest.fixture
def pair(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """The page of two runs."""
    yield from visited(browser, pages["two"])


def visited(browser: Any, path: Path) -> Iterator[Any]:
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(path.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    import json

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert asked and all(url.startswith((path.as_uri(), "data:")) for url in asked)


def seen(browser: Any, selector: str) -> int:
    """How many elements of the selector are displayed."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).length"
    return int(browser.execute_script(script, selector))


def names(browser: Any) -> list[str]:
    """The images that are shown, in their order."""
    script = "return [...document.querySelectorAll('.card:not([hidden])')].map(card => card.dataset.name)"
    return list(browser.execute_script(script))


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def choose(browser: Any, selector: str, value: str) -> None:
    script = (
        "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    )
    browser.execute_script(script, selector, value)


def press(browser: Any, key: str) -> None:
    browser.execute_script("document.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"
                           .replace("document.dispatchEvent", "document.body.dispatchEvent"), key)  # fmt: skip


def test_everything_is_there(page: Any) -> None:
    for selector in (
        "h1",
        "nav a",
        ".tiles li",
        "#gallery .card img",
        ".plot svg",
        "#every details",
        "#config details",
    ):
        assert seen(page, selector), selector
    assert page.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert seen(page, ".plot svg text") > 50, "plots have letters"


def test_outlines_are_switched(page: Any) -> None:
    cards = "#cards "
    hits, missed, false = (seen(page, cards + path) for path in ("path.hit", "path.truth.m0", "path.false"))
    found = cards + "path.truth:not(.m0)"
    assert hits and missed and false and seen(page, found) == 0, "annotations of found cells are off at first"
    click(page, "input[name=truth]")
    assert seen(page, found) == hits
    for name, path, count in (
        ("hit", "path.hit", hits),
        ("missed", "path.truth.m0", missed),
        ("false", "path.false", false),
    ):
        click(page, f"input[name={name}]")
        assert seen(page, cards + path) == 0
        click(page, f"input[name={name}]")
        assert seen(page, cards + path) == count
    press(page, "f")
    assert seen(page, cards + "path.false") == 0 and seen(page, cards + "path.hit") == hits


def test_colours_tell_the_layers_apart(page: Any) -> None:
    click(page, "input[name=truth]")
    script = "return getComputedStyle(document.querySelector(arguments[0])).stroke"
    found = {page.execute_script(script, f"#cards path{kind}") for kind in (".hit", ".false", ".m0", ".truth:not(.m0)")}
    assert len(found) == 4


def test_order_and_filter(page: Any) -> None:
    score = {n: float(s) for n, s in page.execute_script(
        "return [...document.querySelectorAll('.card')].map(c => [c.dataset.name, c.dataset.score])"
    )}  # fmt: skip
    assert names(page) == sorted(score, key=lambda name: (score[name], name))
    choose(page, "#order", "best")
    assert names(page) == sorted(score, key=lambda name: (-score[name], name))
    choose(page, "#order", "name")
    choose(page, "#type", "cort")
    assert names(page) == PICTURES[4:8]
    choose(page, "#type", "")
    assert names(page) == PICTURES[:12]


def test_images_without_truth_are_sorted_by_what_they_hold(unscored: Any) -> None:
    script = "return [...document.querySelectorAll('.card')].map(c => [c.dataset.name, {...c.dataset}])"
    cards = dict(unscored.execute_script(script))
    assert cards[PICTURES[0]]["marked"] == "3" and cards[PICTURES[1]]["marked"] == "1"
    assert seen(unscored, ".mark") == 2 and seen(unscored, ".card.bad") == 1
    for order, key, sign in (("cells", "cells", -1), ("fewest", "cells", 1), ("confluent", "confluence", -1),
                             ("sparse", "confluence", 1), ("sure", "mean", -1), ("unsure", "mean", 1),
                             ("marked", "marked", -1)):  # fmt: skip
        choose(unscored, "#order", order)
        assert names(unscored) == sorted(cards, key=lambda name: (sign * float(cards[name].get(key, 0)), name)), order
    click(unscored, ".card.bad .open")
    assert seen(unscored, "#large") == 1, "without an image too"
    click(unscored, "#close")
    click(unscored, ".card:not(.bad, .empty) .open")
    hover = "document.querySelector('#large path.hit').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))"
    unscored.execute_script(hover)
    said = unscored.find_element("id", "large-cell").text
    assert said.startswith("predicted, score 0.") and said.rpartition(", ")[2] in ("astro", "cort", "shsy5y")


def test_one_image_enlarged(page: Any) -> None:
    choose(page, "#order", "name")
    click(page, ".card[data-name=astro02] .open")
    assert seen(page, "#large") == 1 and page.find_element("id", "large-name").text == "astro02"
    cells = page.execute_script("return [...document.querySelectorAll('#large path')].map(p => p.dataset.c)")
    assert len(cells) == 3 + 3, "3 annotated cells; 2 hits and a false alarm"
    hover = "document.querySelector('#large path.hit').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))"
    page.execute_script(hover)
    assert page.find_element("id", "large-cell").text.startswith("hit, IoU 1.00, score 0.")
    width = "return document.querySelector('#large-frame').getBoundingClientRect().width"
    before = page.execute_script(width)
    click(page, "#larger")
    assert page.execute_script(width) == pytest.approx(1.5 * before, abs=1)
    hits = seen(page, "#large path.hit")
    click(page, "#large [data-layer=hit]")
    assert hits == 2 and seen(page, "#large path.hit") == 0
    press(page, "ArrowRight")
    assert page.find_element("id", "large-name").text == "astro03"
    click(page, "#close")
    assert seen(page, "#large") == 0


def test_tables_are_sorted_and_configs_searched(page: Any) -> None:
    click(page, "#every summary")
    column = (
        "return [...document.querySelectorAll('table.sortable tbody tr')].map(r => Number(r.cells[2].dataset.value))"
    )
    assert page.execute_script(column) == sorted(page.execute_script(column))
    click(page, "table.sortable th:nth-child(3) button")
    click(page, "table.sortable th:nth-child(3) button")
    assert page.execute_script(column) == sorted(page.execute_script(column), reverse=True)
    click(page, "#config summary")
    every = seen(page, "#config tbody tr")
    page.execute_script(
        "const s = document.querySelector('.search'); s.value = 'DATA root'; s.dispatchEvent(new Event('input'))"
    )
    assert seen(page, "#config tbody tr") == 1 < every


def test_runs_are_switched(pair: Any) -> None:
    assert seen(pair, "#cards path.r0") and seen(pair, "#cards path.r1") == 0
    press(pair, "2")
    assert seen(pair, "#cards path.r1") and seen(pair, "#cards path.r0") == 0
    assert "not predicted by this run" in pair.find_element("id", "cards").text
    choose(pair, "#order", "gap")
    assert len(names(pair)) == 12


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    click(page, ".card .open")
    assert page.execute_script("return document.querySelector('#large').getBoundingClientRect().width") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_where_the_person_likes_it_dark(page: Any) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.execute_script(ground)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert page.execute_script(ground) != light
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [390, 1280])
def test_plates_stay_within_the_window(browser: Any, tmp_path: Path, width: int) -> None:
    rows = [row(f"{letter}{k}_t{t}", k + t) for letter in "AH" for k in (1, 12) for t in range(3)]
    table = write(tmp_path / "images.csv", *rows)
    overrides = [f"tables={table}", r"well='(?P<well>.+)_t(?P<time>.)'", f"output={tmp_path}/out", "plots=false"]
    for _ in visited(browser, Path(plates.main(wiring.compose("plates", overrides)))):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert seen(browser, ".plot.wide svg text") > 50 and seen(browser, "#wells tbody tr") == 4
        click(browser, "#wells th:nth-child(4) button")
        script = "return [...document.querySelectorAll('#wells tbody th')].map(cell => cell.textContent)"
        assert browser.execute_script(script) == ["A1", "H1", "A12", "H12"], "sorted by cells"
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
