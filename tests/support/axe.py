"""axe-core, the accessibility checker, in the browser of a test.

AXE_CORE names the script `axe.min.js` of the npm package axe-core. Tests are skipped where it is not set: `.ci/run` sets it
wherever npm can install the package.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# axe cannot tell the background behind a shadow that is a gradient
_PLAIN = "const s = document.createElement('style'); s.textContent = '.scroll { background: none !important }';"
_RUN = """const done = arguments[0];
axe.run(document, { resultTypes: ['violations'] }).then((found) => done(found.violations.map(
  (one) => [one.id, ...one.nodes.map((node) => node.html.slice(0, 120))])), (error) => done([[String(error)]]))"""


def violations(browser: Any) -> list[list[str]]:
    """Rules that the page in the browser breaks, each with the elements that break it."""
    script = os.environ.get("AXE_CORE")
    if not script:
        pytest.skip("AXE_CORE does not name axe.min.js of the npm package axe-core")
    browser.set_script_timeout(120)
    browser.execute_script(f"{_PLAIN} document.head.append(s)")
    browser.execute_script(Path(script).read_text(encoding="utf-8"))
    found: list[list[str]] = browser.execute_async_script(_RUN)
    return found
