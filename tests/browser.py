"""A real Chromium without a window, for tests that need a browser.

The system's browser and driver are used; nothing is downloaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from .conftest import missing

SWITCHES = """
    --headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync
    --disable-dev-shm-usage
""".split()


@contextmanager
def chromium(
    profile: Path, *, width: int = 1280, height: int = 800, load: str = "normal"
) -> Iterator[Chrome]:
    """A browser with a profile of its own, and a window of that many CSS pixels.

    With ``load="none"`` no command waits for a page, as a user need not either.
    """
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        missing("Chromium")
    options = ChromeOptions()
    options.binary_location = binary
    options.page_load_strategy = load
    for switch in [*SWITCHES, f"--user-data-dir={profile}"]:
        options.add_argument(switch)
    browser = Chrome(options=options, service=Service(driver))
    try:
        resize(browser, width=width, height=height)
        yield browser
    finally:
        browser.quit()


def resize(browser: Chrome, *, width: int, height: int) -> None:
    """Give the page that many CSS pixels."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {**metrics, "mobile": width < 600}
    )


def paint(browser: Chrome, scheme: str) -> None:
    """Show the page as a browser does that prefers "light" or "dark"."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def text_of(browser: Chrome, selector: str) -> str:
    """What an element shows, "" where there is none.

    In one step: a page that is just being replaced has elements that are gone when they
    are asked.
    """
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    return str(browser.execute_script(script, selector))
