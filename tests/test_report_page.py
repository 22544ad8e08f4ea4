"""The page in a browser: offline, sorted, pointed at, by keyboard and touch, light and dark."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import undrawn
from browser import chromium, look
from fake_workdir import stage_key, write_comparison, write_workdir

from unlearn_jax.report import write_report
from unlearn_jax.report.render import html
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.stats import estimate

ALPHA = "svg.plot[aria-label^='Forgetting against alpha']"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = write_workdir(tmp_path_factory.mktemp("page"), budgets=(2, 4), samples=40)
    with undrawn.drawn_again(files=False):
        write_report(path)
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser, workdir):
    """Opens the report in a window, and unfolds all of it."""
    def open_page(folded=False, **window):
        browser.get_log("browser")
        look(browser, workdir / "report.html", **window)
        if not folded:
            browser.find_element("id", "fold").click()
        return browser
    return open_page


def forgetting(workdir, method: str, epochs: int, alpha: str):
    rows = pd.read_csv(workdir / "results.csv", dtype={"forget_set": str})
    rows = rows[(rows.method == method) & (rows.epochs == epochs)
                & (rows.metric == f"forgetting@{alpha}")]
    return estimate(rows.value)


def tip(driver) -> str:
    return driver.find_element("id", "tip").text


def center(driver, selector: str, across: float, down: float) -> tuple[float, float]:
    """Where a point of a picture is in the window, after scrolling there."""
    return driver.execute_script(
        "const svg = document.querySelector(arguments[0]);"
        "svg.scrollIntoView({block: 'center'});"
        "const p = new DOMPoint(arguments[1], arguments[2]).matrixTransform(svg.getScreenCTM());"
        "return [p.x, p.y];", selector, across, down)


def points(driver, selector: str) -> list:
    return json.loads(driver.execute_script(
        "return document.querySelector(arguments[0]).closest('figure')"
        ".querySelector('script').textContent", selector))


def move_mouse(driver, x: float, y: float) -> None:
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})


def press(driver, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, "key": key})


def test_it_asks_for_nothing_and_complains_of_nothing(page):
    driver = page()
    driver.get_log("performance")
    driver.refresh()
    events = [json.loads(e["message"])["message"] for e in driver.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events
             if e["method"] == "Network.requestWillBeSent"]
    assert len(asked) >= 1
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert driver.get_log("browser") == []
    below = {e.get_attribute("textContent") for e in driver.find_elements("css selector", "sub")}
    assert "R" in below and "Rs" not in below, "the M_Rs of other seeds"


def test_a_column_is_sorted_by_its_numbers_both_ways(page):
    driver = page()
    column = ("const t = [...document.querySelectorAll('table')].find(t => "
              "t.tHead.textContent.includes('MAE test'));"
              "const i = [...t.tHead.rows[0].cells].findIndex(c => "
              "c.textContent.startsWith('MAE test'));")
    press_title = column + "t.tHead.rows[0].cells[i].firstChild.click();"
    read = column + "return [...t.tBodies[0].rows].map(r => parseFloat(r.cells[i].dataset.sort));"
    before = driver.execute_script(read)
    assert len(set(before)) > 1  # otherwise every order is sorted
    driver.execute_script(press_title)
    assert driver.execute_script(read) == sorted(before)
    driver.execute_script(press_title)
    assert driver.execute_script(read) == sorted(before, reverse=True)
    assert driver.execute_script(column + "return t.tHead.rows[0].cells[i].ariaSort") \
        == "descending"


def test_values_are_shown_where_one_points(page, workdir):
    driver = page()
    [panel] = points(driver, ALPHA)
    series = next(s for s in panel[3] if s[0] == "M<sub>FT</sub>, 4 epochs")
    across, down, x, y, *_ = series[2][-1]
    assert x == "15"
    e = forgetting(workdir, "ft", 4, "15")
    assert float(y) == pytest.approx(e.mean, rel=1e-3)
    move_mouse(driver, *center(driver, ALPHA, across, down))
    assert tip(driver).splitlines() == [
        "MFT, 4 epochs", "α (years): 15", f"Forgetting (1: errs as MR): {y}",
        f"{e.low:.3g} to {e.high:.3g}"]
    # the box lies within the window, and the ring on the point
    inside = driver.execute_script(
        "const t = document.getElementById('tip').getBoundingClientRect();"
        "return t.left >= 0 && t.right <= innerWidth && t.top >= 0 && t.bottom <= innerHeight")
    assert inside
    spot = driver.find_element("css selector", f"{ALPHA} .spot")
    assert (float(spot.get_attribute("cx")), float(spot.get_attribute("cy"))) == (across, down)
    move_mouse(driver, 2, 2)
    assert tip(driver) == ""


def test_values_are_reached_by_the_keyboard(page, workdir):
    driver = page()
    driver.execute_script(f"document.querySelector(\"{ALPHA}\").focus()")
    press(driver, "ArrowRight")
    first = forgetting(workdir, "original", 0, "2").mean
    assert tip(driver).splitlines()[:2] == ["MO", "α (years): 2"]
    assert float(tip(driver).splitlines()[2].split()[-1]) == pytest.approx(first, rel=1e-3)
    press(driver, "ArrowRight")
    assert "α (years): 5" in tip(driver)
    press(driver, "ArrowUp")  # the last series; its point above the same alpha
    assert tip(driver).splitlines()[:2] == ["ceiling: MR against MR", "α (years): 5"]
    press(driver, "Escape")
    assert tip(driver) == ""


def test_a_tap_shows_a_value_and_leaves_it_there(page):
    driver = page(width=390, height=800, touch=True)
    [panel] = points(driver, ALPHA)
    across, down, x, y, *_ = panel[3][0][2][0]
    at = dict(zip("xy", center(driver, ALPHA, across + 6, down + 6)))
    for kind, touched in (("touchStart", [at]), ("touchEnd", [])):
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})
    found = driver.execute_async_script(
        "const done = arguments[0]; let n = 0; (function wait() {"
        "const t = document.getElementById('tip').textContent;"
        "if (t || n++ > 100) { done(t); } else { setTimeout(wait, 20); } })();")
    assert found.startswith("MO") and f"α (years): {x}" in found and y in found


def test_the_values_of_a_picture_make_a_table(page):
    driver = page()
    cells = driver.execute_async_script(
        "const done = arguments[1], d = document.querySelector(arguments[0])"
        ".closest('figure').querySelector('details.values');"
        "d.addEventListener('toggle', () => setTimeout(() => done("
        "[...d.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.textContent))), 0));"
        "d.open = true;", ALPHA)
    [panel] = points(driver, ALPHA)
    [region] = driver.find_elements("css selector", "details.values[open] .scroll")
    assert region.get_attribute("role") == "region"
    assert region.get_attribute("aria-label").startswith("Values: Forgetting against alpha")
    assert cells[0] == ["name", "α (years)", "Forgetting (1: errs as MR)", "more"]
    assert len(cells) == 1 + sum(len(s[2]) for s in panel[3])
    assert cells[1][0] == "MO" and cells[1][1:3] == panel[3][0][2][0][2:4]


def test_a_number_leads_to_its_stage_and_that_to_its_config(page, workdir):
    driver = page()
    e = forgetting(workdir, "ft", 4, "15")
    number = next(a for a in driver.find_elements("css selector", "#s1 a.number")
                  if "forgetting@15 of ft" in a.get_attribute("data-tip")
                  and a.text == f"{e.mean:.3f}")
    driver.execute_script("arguments[0].focus()", number)
    said = tip(driver).splitlines()
    assert said[0] == "forgetting@15 of ft, forget set 20-28"
    values = [float(line.split(": ")[1]) for line in said if line.startswith("seed")]
    np.testing.assert_allclose(np.mean(values), e.mean, rtol=1e-5)
    key = stage_key("ft", "20-28", 4)
    assert f"stage ft {key}" in said
    number.click()
    assert driver.current_url.endswith(f"#stage-{key}")
    row = driver.execute_script(
        "const c = document.querySelector(':target'), b = c.getBoundingClientRect();"
        "return b.top >= 0 && b.bottom <= innerHeight && c.closest('tr').textContent")
    assert row.startswith("ft20-284") and key in row
    driver.find_element("css selector", "tr:has(:target) a[href='#config-train']").click()
    shown = driver.execute_script("return document.querySelector(':target').textContent")
    assert "train.epochs = 12" in shown.splitlines()


def test_no_link_leads_nowhere(page):
    driver = page()
    dead = driver.execute_script(
        "return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"
        ".filter(h => !h.startsWith('#') || !document.getElementById(h.slice(1)))")
    assert dead == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_tables_and_pictures_but_not_the_page(page, width):
    driver = page(width=width, height=800, touch=True)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    driver.execute_script("document.querySelectorAll('.enlarge').forEach(b => b.click())")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    sizes = driver.execute_script(
        "return [...document.querySelectorAll('svg.plot')].map(s => {"
        "const k = s.getScreenCTM().a; return Math.min(...[...s.querySelectorAll('text')]"
        ".filter(t => t.textContent).map(t => k * parseFloat(getComputedStyle(t).fontSize))); })")
    assert len(sizes) > 5 and min(sizes) > 6.9  # pixels


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_cuts_no_picture_and_no_verdict(page, width):
    driver = page(width=width, height=800, touch=True)
    pictures = driver.execute_script(
        "return [...document.querySelectorAll('.picture, .card .scroll')]"
        ".map(p => [p.scrollWidth, p.clientWidth])")
    assert len(pictures) > 8 and all(inner <= outer for inner, outer in pictures)
    first_columns = driver.execute_script(
        "return [...document.querySelectorAll('tbody .key')]"
        ".map(c => c.offsetWidth)")
    assert len(first_columns) > 20 and max(first_columns) < 0.6 * width


def test_the_name_of_a_row_stays_when_a_table_is_scrolled(browser, tmp_path):
    path = write_comparison(tmp_path, samples=12)
    (path / "report.html").write_text(html.render(build(read_run(path)), path))
    look(browser, path / "report.html", width=400, height=800, touch=True)
    browser.find_element("id", "fold").click()
    left, widths = browser.execute_script(
        "const t = [...document.querySelectorAll('table')].find(t => "
        "t.tHead.textContent.startsWith('rank')), s = t.closest('.scroll');"
        "s.scrollLeft = 1000; const row = t.tBodies[0].rows[1], x = s.getBoundingClientRect().left;"
        "return [[...row.cells].slice(0, 2).map(c => c.getBoundingClientRect().left - x),"
        " [...row.cells].slice(0, 2).map(c => c.offsetWidth)];")
    assert left[1] == pytest.approx(1, abs=2) and left[0] < -100  # the rank has left, not the name
    assert widths[0] < 80 < 100 < widths[1]


def luminance(css: str) -> float:
    """Relative luminance (WCAG 2) of `rgb(r, g, b)`."""
    rgb = [int(v) / 255 for v in re.findall(r"\d+", css)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_in_light_and_dark(page, scheme):
    driver = page(scheme=scheme)

    def contrasts():
        paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        inks = driver.execute_script(
            "const of = (s, k) => [...document.querySelectorAll(s)].map(e => "
            "getComputedStyle(e)[k]); return [of('p, td, figcaption, a', 'color').concat("
            "of('svg.plot text', 'fill')), of(arguments[0] + ' path', 'stroke')]", ALPHA)
        return luminance(paper), *(
            {c: (max(luminance(c), luminance(paper)) + 0.05)
             / (min(luminance(c), luminance(paper)) + 0.05)
             for c in set(found) if c.startswith("rgb(")} for found in inks)

    paper, text, lines = contrasts()
    assert (paper < 0.05) == (scheme == "dark")
    # 3 is what WCAG asks of pictures and of titles, which have their model's colour
    assert min(text.values()) > 3 and max(lines.values()) > 4
    driver.find_element("id", "theme").click()
    other, text, _ = contrasts()
    assert (other < 0.05) != (scheme == "dark")
    assert min(text.values()) > 3
