"""The built site, served on this machine, and a real browser to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from site_checks import served
from tests_support import ROOT, browser_path, build_book


def build(preset: str) -> Path:
    build_book(preset)
    return ROOT / "_build" / ("site" if preset == "default" else f"site-{preset}")


@pytest.fixture(scope="session")
def site() -> Path:
    """Return the published site; what is stale is run first."""
    return build("default")


@pytest.fixture(scope="session")
def smoke_site() -> Path:
    """Return the site of the preset smoke."""
    return build("smoke")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Yield a headless Chromium or Chrome."""
    path = browser_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Yield the address of the published site."""
    with served(site) as url:
        yield url
