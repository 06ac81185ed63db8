"""The built site, served on this machine, and a real browser to look at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from site_checks import served
from tests_support import ROOT, build_book

from genamp_lib.book.paper import BROWSERS


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
    """Yield a headless Chromium or Chrome; skip, or fail where one is required, without it."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        message = "NO BROWSER: the site was not tested; install chromium or google-chrome"
        if os.environ.get("GENAMP_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
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
