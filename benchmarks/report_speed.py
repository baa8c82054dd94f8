"""Time to build and to open the report of a large study.

    python benchmarks/report_speed.py --out FOLDER [--trials 2000]

A study of made-up trials of 50 epochs (`tests/support/synthetic.py`) is added to a SQLite storage, which takes minutes and
is done once in FOLDER; then report.html is built in a fresh process and opened in a headless Chromium, each five times.
Wall-clock and CPU-seconds are of the build from the opened storage to the written file, without Keras: there are no
weights to ask.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

ROUNDS = 5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--trials", type=int, default=2_000)
    options.add_argument("--build", action="store_true", help="once, in this process")
    asked = options.parse_args()
    if asked.build:
        build(asked.out, asked.trials)
        return
    make(asked.out, asked.trials)
    again = [sys.executable, __file__, "--out", str(asked.out), "--trials", str(asked.trials), "--build"]
    told = [subprocess.run(again, check=True, capture_output=True, text=True).stdout.split() for _ in range(ROUNDS)]
    wall, cpu = ([float(one[place]) for one in told] for place in (0, 1))
    print(f"built: {spread(wall)} s, {spread(cpu)} CPU-s, {(asked.out / 'report.html').stat().st_size / 1e6:.1f} MB")
    loaded, drawn = zip(*(opened(asked.out / "report.html") for _ in range(ROUNDS)), strict=True)
    print(f"opened: {spread(loaded)} s to the load event, {spread(drawn)} s until the first figure is drawn")


def make(folder: Path, trials: int) -> None:
    """Add the trials, where the folder does not hold them yet."""
    from tests.support.synthetic import fill, noise_images, synthetic_run

    if not (folder / "config.json").is_file():
        fill(synthetic_run(folder, search__trials=trials), noise_images(), trials)


def build(folder: Path, trials: int) -> None:
    """Build the page; prints seconds and CPU-seconds."""
    from tests.support.synthetic import synthetic_run

    run = synthetic_run(folder, search__trials=trials)
    started, spent = time.perf_counter(), time.process_time()
    from report.analysis.findings import gather
    from report.html.page import write_html
    from search.study.run import load

    write_html(gather(run, load(run)))
    print(f"{time.perf_counter() - started:.2f} {time.process_time() - spent:.2f}")


def opened(page: Path) -> tuple[float, float]:
    """(seconds to the load event, to the first figure) in a new Chromium."""
    from selenium import webdriver

    from tests.support.chromium import FLAGS

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("chromium is not installed")
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            browser.get("about:blank")
            browser.get(page.as_uri())
            loaded = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
            browser.execute_script("document.querySelector('.plot').scrollIntoView()")
            while not browser.execute_script("return document.querySelector('.plot .main-svg') !== null"):
                time.sleep(0.01)
            return loaded / 1_000, browser.execute_script("return performance.now()") / 1_000
        finally:
            browser.quit()


def spread(values: list[float] | tuple[float, ...]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
