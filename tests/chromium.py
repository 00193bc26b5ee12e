"""Headless Chromium that reaches nobody, for tests that look at pages."""

from __future__ import annotations

import contextlib
import json
import os
import shutil

import pytest

NEEDED = os.environ.get("STNET_BROWSER_TESTS") == "required"


@contextlib.contextmanager
def chromium(*reachable):
    """A driver of Chromium for which no server but these exists. Skips the test where there is none."""
    driver = shutil.which("chromedriver")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from selenium import webdriver
    except ImportError:
        driver = None
    if not driver or not program:
        assert not NEEDED, "chromium, chromedriver or selenium is missing"
        pytest.skip("chromium, chromedriver (Debian: chromium-driver) and selenium are needed to look at pages")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    rules = ", ".join(["MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in reachable)])
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"host-resolver-rules={rules}"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def asked(browser):
    """Addresses of all requests since it was called last."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def found(browser, selector):
    """Elements of the page."""
    return browser.find_elements("css selector", selector)


def visible(browser, selector):
    """Elements that are seen."""
    return [element for element in found(browser, selector) if element.is_displayed()]


def texts(browser, selector):
    """Texts of elements that are seen."""
    return [element.text for element in visible(browser, selector)]


def wait(browser, condition):
    """Wait until the condition, without arguments, holds; its value."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: condition())
