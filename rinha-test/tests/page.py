#!/usr/bin/env python3
"""Drives the monitor's page in a headless Chromium.

    page.py CHROMIUM                    does what it is told on its standard input, a line of JSON each,
                                        and answers each with one (tests/page.rs)
    page.py CHROMIUM pictures URL DIR   takes pictures of the page at URL
"""

import json
import pathlib
import sys
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

# After this long a step gives up. No step depends on how much sooner a thing happens.
PATIENCE_S = 60
PAUSE_MS = 20
HEIGHT = 900
# Three hours behind UTC: moments that people choose are in their own time.
TIME_ZONE = "America/Sao_Paulo"
WIDTHS = (390, 1440)
SCHEMES = ("light", "dark")

FIGURES = """() => Object.fromEntries(
    [...document.querySelectorAll('[data-fact][data-value]')].map(
        (node) => [node.dataset.fact, node.dataset.value]))"""

FOCUSABLE = """() => [...document.querySelectorAll('a[href], button, input, select, [tabindex="0"]')]
    .filter((node) => node.checkVisibility())
    .map((node) => node.id || node.textContent)"""

FOCUSED = """() => {
    const node = document.activeElement;
    if (node === document.body) return null;
    const { outlineStyle, outlineWidth } = getComputedStyle(node);
    const isSeen = outlineStyle !== 'none' && parseFloat(outlineWidth) > 0;
    return { name: node.id || node.textContent, isSeen };
}"""

# What is wider than the window, if anything is.
TOO_WIDE = """() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    return [...document.querySelectorAll('body *')]
        .filter((node) => node.getBoundingClientRect().right > width + 1)
        .map((node) => node.id || node.tagName);
}"""

FOUND = """() => {
    const found = document.getElementById('found');
    if (!found.children.length) return null;
    return {
        text: found.textContent,
        steps: [...found.querySelectorAll('.life > li')].map((step) => step.className),
    };
}"""


class Driver:
    """One page in one browser."""

    def __init__(self, browser):
        size = {"width": WIDTHS[-1], "height": HEIGHT}
        self.context = browser.new_context(viewport=size, timezone_id=TIME_ZONE)
        self.page = self.context.new_page()
        self.others = []
        self.page.set_default_timeout(1000 * PATIENCE_S)
        self.complaints = []
        self.requests = []
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def hear(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def open(self, url):
        """Opens the page, and leaves a mark by which a reload would be noticed."""
        self.page.goto(url)
        self.page.evaluate("window.mark = 1")

    def until(self, expression):
        """Waits until this is so, and gives it.

        What the driver's library has for that evaluates a text within the page, which the page forbids.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not (value := self.page.evaluate(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain for {expression}")
            self.page.wait_for_timeout(PAUSE_MS)
        return value

    def crowd(self, count):
        """Opens the page in more tabs, each of which then hears of every second."""
        for _ in range(count):
            page = self.context.new_page()
            page.goto(self.page.url)
            page.locator("#health.good").wait_for()
            self.others.append(page)
        self.page.bring_to_front()

    def disperse(self):
        """Closes those tabs."""
        while self.others:
            self.others.pop().close()

    def value(self, expression):
        return self.page.evaluate(expression)

    def figures(self):
        return self.page.evaluate(FIGURES)

    def wear(self, width, scheme):
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        self.page.emulate_media(color_scheme=scheme)
        # Until the picture of the flow is drawn to this width.
        self.until(
            "() => { const flow = document.getElementById('flow');"
            " return Math.abs(flow.clientWidth - flow.viewBox.baseVal.width) < 1; }"
        )

    def look(self, width, scheme, picture):
        """What is wrong with the page at this width and in these colours."""
        self.wear(width, scheme)
        if picture:
            self.page.screenshot(path=picture, full_page=True)
        violations = Axe().run(self.page).response["violations"]
        return {
            "tooWide": self.page.evaluate(TOO_WIDE),
            "findings": [
                f"{found['impact']}: {found['id']}: {node['target']}: {node['failureSummary']}"
                for found in violations
                for node in found["nodes"]
            ],
            "grave": sum(found["impact"] in ("serious", "critical") for found in violations),
        }

    def keyboard(self):
        """What can be used, what the tab key reaches, and where its focus cannot be seen."""
        self.page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
        focusable = self.page.evaluate(FOCUSABLE)
        reached, unseen = [], []
        for _ in range(len(focusable) + 2):
            self.page.keyboard.press("Tab")
            focused = self.page.evaluate(FOCUSED)
            if focused:
                reached.append(focused["name"])
                if not focused["isSeen"]:
                    unseen.append(focused["name"])
        return {"missed": [name for name in focusable if name not in reached], "unseen": unseen}

    def find(self, id):
        """Looks a payment up, by the keyboard."""
        self.page.evaluate("() => document.getElementById('found').replaceChildren()")
        self.page.focus("#id")
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(id)
        self.page.keyboard.press("Enter")
        return self.until(FOUND)

    def choose(self, range, start, end):
        """Sums up what was sent within this range, or between moments of the browser's clock."""
        self.page.select_option("#range", range)
        if range == "chosen":
            self.page.fill("#from", start)
            self.page.fill("#to", end)
        self.page.get_by_role("button", name="Sum up").focus()
        self.page.keyboard.press("Enter")

    def heard(self):
        """What the page complained of since this was asked before, and all that it asked for."""
        complaints, self.complaints = self.complaints, []
        return {"complaints": complaints, "requests": sorted(set(self.requests))}


def drive(driver):
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        print(json.dumps(getattr(driver, name)(**command)), flush=True)


def take_pictures(driver, url, folder):
    driver.open(url)
    driver.until("document.querySelector('[data-fact=\"range.requests\"][data-value]')")
    # So that the curves have something to show.
    driver.page.wait_for_timeout(8_000)
    for scheme in SCHEMES:
        for width in WIDTHS:
            driver.wear(width, scheme)
            driver.page.screenshot(path=folder / f"{width}-{scheme}.png", full_page=True)
    print(json.dumps(driver.heard()))


def main():
    chromium, *rest = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        driver = Driver(browser)
        if not rest:
            drive(driver)
        else:
            _, url, folder = rest
            folder = pathlib.Path(folder)
            folder.mkdir(parents=True, exist_ok=True)
            take_pictures(driver, url, folder)
        browser.close()


main()
