"""What is folded in the page, and what unfolds it: links, the glossary, a search, printing."""

import pytest
import undrawn
from browser import chromium, look
from fake_workdir import write_comparison, write_thesis, write_workdir

from unlearn_jax.report import write_report

SCREEN = 768  # pixels


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return report(write_workdir(tmp_path_factory.mktemp("demo"), budgets=(2, 8), samples=30))


def report(path):
    write_report(path)  # pictures without their lines take up as much room
    return path / "report.html"


def screens(driver) -> float:
    return driver.execute_script("return document.documentElement.scrollHeight") / SCREEN


def opened(driver) -> list[str]:
    return driver.execute_script("return [...document.querySelectorAll('details.fold[open]')]"
                                 ".map(d => d.querySelector('summary').textContent)")


def on_screen(driver, selector: str) -> bool:
    return driver.execute_script(
        "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return b.height > 0 && b.top >= 0 && b.bottom <= innerHeight", selector)


def test_the_page_opens_with_the_answer_in_view_and_all_else_folded(browser, demo):
    look(browser, demo, 1366, SCREEN)
    assert screens(browser) <= 5 and opened(browser) == []
    for part in (".facts", ".card .strong", ".card table", ".card .row svg:last-of-type"):
        assert on_screen(browser, part), part
    assert browser.execute_script("return document.querySelectorAll('.card .row svg').length") >= 2


def test_a_comparison_of_all_methods_is_short_as_it_opens(browser, tmp_path):
    methods = tuple("abcdefghijklmnop")
    look(browser, report(write_comparison(tmp_path, methods=methods, samples=10)), 1366, SCREEN)
    assert screens(browser) <= 8 and opened(browser)[0] == "Leaderboard"
    assert on_screen(browser, ".card .row svg")  # above the long table of verdicts


def test_the_page_of_a_study_is_short_and_small(browser, tmp_path):
    with undrawn.drawn_again(files=False):
        write_report(write_thesis(tmp_path, sets=("20-28",)))
    page = tmp_path / "report.html"
    look(browser, page, 1366, SCREEN)
    assert screens(browser) <= 12 and opened(browser) == ["The reference study"]
    assert page.stat().st_size <= 1e6  # with the study's five forget sets 2.2 MB


def test_a_link_unfolds_what_it_leads_to(browser, demo):
    look(browser, demo, 1366, SCREEN)
    browser.find_element("css selector", "nav a[href='#s1']").click()
    assert opened(browser) == ["Forget set 20-28"] and on_screen(browser, "#s1 summary")
    browser.find_element("css selector", "#s1 a.number").click()
    assert "Stages" in opened(browser) and on_screen(browser, "td:target")
    for anchor, title in (("#s1-0", "Forgetting against α"), ("#config-train", "Configuration")):
        browser.get("about:blank")
        browser.get(demo.resolve().as_uri() + anchor)
        assert title in opened(browser) and on_screen(browser, f"{anchor} summary, pre{anchor}")


def test_the_sections_stay_in_view(browser, demo):
    for width, height in ((1366, SCREEN), (390, 800)):
        look(browser, demo, width, height)
        browser.find_element("id", "fold").click()
        browser.execute_script("window.scrollTo(0, 5000)")
        assert browser.execute_script("return scrollY") > 2000
        top = browser.execute_script(
            "return document.querySelector('nav').getBoundingClientRect().top")
        assert top == pytest.approx(0, abs=1)


def test_a_title_of_a_column_shows_its_meaning(browser, demo):
    look(browser, demo, 1366, SCREEN)
    browser.execute_script("document.querySelector('.card th button').focus()")
    tip = browser.find_element("id", "tip").text
    entry = browser.execute_script(
        "return document.getElementById(document.querySelector('.card th button')"
        ".getAttribute('aria-describedby')).textContent")
    assert tip == entry == "the unlearned model and its budget"


def test_printing_unfolds_all_and_folds_it_again(browser, demo):
    look(browser, demo, 1366, SCREEN)
    browser.execute_script(
        "addEventListener('beforeprint', () => setTimeout(() => {"
        "window.seen = document.querySelectorAll('details.fold:not([open])').length; }, 0));"
        "window.dispatchEvent(new Event('beforeprint'))")
    assert len(opened(browser)) > 8
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert opened(browser) == []
    # without the script, the style prints what is folded
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    height = browser.execute_script("return document.querySelector('#glossary').offsetHeight")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert height > 500


@pytest.mark.parametrize("finds", [True, False])
def test_a_search_finds_what_is_folded(browser, demo, finds):
    """A browser that does not search in folded parts by itself gets all unfolded."""
    script = {"identifier": None}
    if not finds:
        script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {
            "source": "delete HTMLElement.prototype.onbeforematch"})
    look(browser, demo, 1366, SCREEN)
    browser.execute_script("document.dispatchEvent(new KeyboardEvent('keydown', "
                           "{key: 'f', ctrlKey: true}))")
    assert bool(opened(browser)) != finds
    if not finds:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
