"""A headless chromium that opens a page, or the reason why there is none."""

import base64
import contextlib
import re
import shutil
import zlib
from collections.abc import Iterator

import pytest

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
REASON = f"not installed: {', '.join(MISSING)} (apt-get install chromium chromium-driver)"


@contextlib.contextmanager
def chromium() -> Iterator:
    """A Selenium driver; every request except for files fails.

    Skips the test if chromium or its driver is missing, or cannot start.
    """
    if MISSING:
        pytest.skip(REASON)
    from selenium import webdriver
    from selenium.common.exceptions import SessionNotCreatedException
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--disable-background-networking", "--disable-component-update",
                     "--no-first-run", "--disable-extensions"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    except SessionNotCreatedException as e:
        pytest.skip(f"chromium is installed but does not start here: {e.msg}")
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", {
            "offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
        yield driver
    finally:
        driver.quit()


def unpacked(page: str) -> str:
    """The text of a page, as its script makes it: pictures in place of what they are packed in."""
    return re.sub(r'(<div class="picture") data-packed="([^"]*)">.*?</div>', lambda m: (
        f"{m[1]}>{zlib.decompress(base64.b64decode(m[2])).decode()}</div>"), page)


def look(driver, page, width: int = 1280, height: int = 900, scheme: str = "light",
         touch: bool = False) -> None:
    """Opens a file in a window of that size, in pixels, light or dark, with a mouse or a finger."""
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch})
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    driver.get(page.resolve().as_uri())
    unpacked = driver.execute_async_script(
        "const done = arguments[0]; let n = 0; (function wait() {"
        "const left = document.querySelectorAll('[data-packed]').length;"
        "if (!left || n++ > 500) { done(!left); } else { setTimeout(wait, 10); } })();")
    assert unpacked, "the pictures of the page are not unpacked"
