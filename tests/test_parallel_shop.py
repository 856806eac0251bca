"""The shop of the examples in a real browser: ten clicks at once are ten books."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

import wsgisession

from .conftest import missing
from .test_examples import EXAMPLES, eventually, free_port, needs

try:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    from .browser import chromium
except ImportError:
    missing("Selenium")


def test_ten_clicks_at_once_are_ten_books(tmp_path: Path) -> None:
    """By a script of the page, which sends them in parallel."""
    needs("flask_app")
    pytest.importorskip("sqlalchemy")
    port = free_port()
    package = Path(wsgisession.__file__).parent.parent
    environment = {**os.environ, "PORT": str(port), "PYTHONPATH": str(package)}
    environment["SESSION_URL"] = f"sqlite:///{tmp_path}/shop.db"
    server = subprocess.Popen(
        [sys.executable, EXAMPLES / "parallel_shop.py"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    place = f"http://127.0.0.1:{port}/"
    try:
        eventually(lambda: urlopen(place).read())
        with chromium(tmp_path / "profile", width=390) as browser:
            browser.get(place)
            browser.find_element(By.XPATH, "//button[.='Add a book']").click()
            wait = WebDriverWait(browser, 30, ignored_exceptions=[Exception])
            shown = By.ID, "count"
            wait.until(lambda b: b.find_element(*shown).text == "1")
            browser.find_element(By.ID, "ten").click()
            wait.until(lambda b: b.find_element(*shown).text == "11")
            if folder := os.environ.get("SCREENSHOTS"):
                browser.save_screenshot(f"{folder}/parallel_shop.png")
    finally:
        server.terminate()
        server.wait()
