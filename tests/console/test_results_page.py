"""Tests of reports in Chromium, served by the console: images and icons load, and no request is blocked."""

import asyncio

import reports
from experiments import Order, conduct
from tests.console.browser import Page
from tests.console.lab import ScriptedLab, console
from tests.experiments.lab import MemoryLab
from tests.experiments.test_conduct import Some

#: JavaScript expression for the width of each image in pixels, 0 if it failed to load.  Because images load lazily, it
#: scrolls to each image first.
WIDTHS = """Promise.all([...document.images].map(async (image) => {
  image.loading = 'eager';
  await image.decode().catch(() => {});
  return image.naturalWidth;
}))"""


async def test_the_index_of_runs_shows_its_thumbnails_and_reports_load_nothing_that_is_blocked(
    lab: ScriptedLab, page: Page
) -> None:
    results = lab.folder / "results"
    outcome = await conduct(Some, Order(), MemoryLab(), results, addresses={})
    folder = await asyncio.to_thread(reports.keep, outcome, results)
    async with console(lab) as running:
        await page.open(f"{running.url}/results/")
        assert (await page.text("h1"), await page.evaluate(WIDTHS)) == ("Runs", [960])
        await page.open(f"{running.url}/results/some/{folder.name}/report.html")
        assert (await page.text("h1")).startswith("some")
        await page.open(f"{running.url}/results/some/{folder.name}/")
        assert "report.html" in await page.text("ul")


async def test_no_script_of_a_report_runs(lab: ScriptedLab, page: Page) -> None:
    folder = lab.folder / "results" / "some" / "20261128T100000Z"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(
        "<title>before</title><script>document.title = 'ran'</script>", encoding="utf-8"
    )
    async with console(lab) as running:
        await page.open(f"{running.url}/results/some/20261128T100000Z/report.html")
        assert await page.evaluate("document.title") == "before"
    assert page.complaints
    page.complaints.clear()
