"""Tests of the page in Chromium, with a real console and scripted hosts; browser console errors fail the test."""

import time

import pytest

from tests.console.browser import Page
from tests.console.lab import ScriptedLab, certificate, console, links, trace

#: JavaScript expression that is true if the page does not scroll horizontally.
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
WELL = "document.querySelector('#verdict').innerText.includes('All 19 hosts are healthy')"
#: Minimum contrast ratio of text (WCAG 2.2, 1.4.3, level AA).
CONTRAST = 4.5
#: JavaScript expression for the visible texts whose contrast to the nearest opaque background is below `CONTRAST`.
POOR_CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);\
 return canvas.getImageData(0, 0, 1, 1).data; };
  const part = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (node) => { for (; node; node = node.parentElement) {\
 const found = rgb(getComputedStyle(node).backgroundColor); if (found[3] === 255) return found; }\
 return rgb("canvas"); };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest("script, noscript, .sr")) continue;
    const ink = node instanceof SVGElement ? getComputedStyle(node).fill : getComputedStyle(node).color;
    const [a, b] = [light(rgb(ink)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < WANTED)\
 poor.push(`${node.textContent.trim().slice(0, 30)} ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return poor;
})()""".replace("WANTED", str(CONTRAST))


def break_much(lab: ScriptedLab) -> None:
    """Cause one problem of each kind that the page can show."""
    now = time.time()
    lab["edge"].answers["/admin/certificate"] = certificate(
        now, left=-30, last_error="ca.example.com: refused", failures=4
    )
    lab["news"].answers["/admin/certificate"] = certificate(now, names=("news.example.com",), left=700)
    lab["resolver"].health.set("hints", ok=False, detail="no root server answers")
    lab["edge"].faults.declare("upstream_delay", "Forward this many milliseconds late", ms=1000.0)
    lab["edge"].faults.switch_on("upstream_delay", {})
    changed = {"rtt_ms": 80.0, "loss": 0.01, "rate_bps": 10_000_000, "corrupt_swap16": 0.05, "changed": True}
    lab["wan"].answers["/admin/links"] = {"links": links(list(lab.declared.regions), access__near=changed)}
    for host in lab.hosts.values():
        host.sockets.set(12345, state="tw")


async def test_the_page_shows_everything(lab: ScriptedLab, page: Page) -> None:
    async with console(lab) as running:
        await page.look(1400)
        await page.open(running.url)
        await page.until(WELL)
        await running.show_trace(trace())
        await page.until("document.querySelectorAll('#trace .fall').length === 2")
        assert await page.evaluate("document.querySelectorAll('.host.ok').length") == 19
        assert await page.evaluate("document.querySelectorAll('#map .label').length") >= 9
        assert "40 min left" in await page.text("#certificates")
        assert "edge → catalog-1" in await page.text("#pools")
        assert "31 entries · 9 hits and 26 misses" in await page.text("#cache")
        assert (await page.text("#trace")).startswith("Of 192 ms to the first byte")
        assert "Cold 192 ms to the first byte predicted 172 ms" in await page.text("#trace")
        assert "Warm 63.7 ms to the first byte predicted 60.0 ms" in await page.text("#trace")
        assert await page.evaluate("[...document.querySelectorAll('nav a')].map((a) => a.href)") == [
            "http://127.0.0.1:8089/",
            f"{running.url}/results/",
        ]


async def test_changes_arrive_without_a_reload(lab: ScriptedLab, page: Page) -> None:
    async with console(lab) as running:
        await page.open(running.url)
        await page.until(WELL)
        await page.evaluate("window.unchanged = true")
        lab.hits.inc(30)
        await page.until("document.querySelector('#cache .big')?.innerText.startsWith('100 %')")
        lab["client"].sockets.set(4321, state="tw")
        await page.until("document.querySelector('#sockets').innerText.includes('4,321')")
        assert await page.evaluate("window.unchanged") is True


async def test_a_host_that_goes_down_is_an_alarm_until_it_is_back(lab: ScriptedLab, page: Page) -> None:
    async with console(lab) as running:
        await page.open(running.url)
        await page.until(WELL)
        await lab["news"].stop()
        await page.until("document.querySelector('.host.down')")
        assert await page.text(".host.down .name") == "news is down"
        assert "news has been down since" in await page.text("#alarms")
        assert "connection refused — https://www.example.com/news" in await page.text("#alarms")
        assert await page.text("#verdict") == "✕ 18 of 19 hosts are healthy."
        assert await page.evaluate("document.title") == "✕ firstbyte"
        await lab["news"].start()
        await page.until(WELL)
        assert await page.text("#alarms") == ""
        assert "news is back after" in await page.text("#events")


async def test_while_the_router_is_down_the_page_says_that_it_cannot_see_the_others(
    lab: ScriptedLab, page: Page
) -> None:
    async with console(lab) as running:
        await page.open(running.url)
        await page.until(WELL)
        for name, host in lab.hosts.items():
            if name != "console":
                await host.stop()
        await page.until("document.querySelectorAll('.host.unseen').length === 17")
        assert await page.text("#verdict") == "✕ The router is down: 17 of 19 hosts cannot be seen."
        assert await page.evaluate("document.querySelectorAll('#alarms .alarm').length") == 1
        assert "The router is down" in await page.text("#links")


async def test_expired_overdue_failing_and_faulty_look_different(lab: ScriptedLab, page: Page) -> None:
    break_much(lab)
    async with console(lab) as running:
        await page.look(1400)
        await page.open(running.url)
        await page.until("document.querySelectorAll('#alarms .alarm').length >= 3")
        await page.until("document.querySelector('#faults').innerText.includes('hit 0 times')")
        alarms = await page.text("#alarms")
        assert "the certificate of edge expired at" in alarms
        assert "the certificate of news has been due for renewal since" in alarms
        assert "resolver has been failing its health checks since" in alarms
        assert "edge: upstream_delay — forward this many milliseconds late" in await page.text("#faults")
        assert "✕ expired" in await page.text("#certificates .cert.bad")
        assert "! 12 min left" in await page.text("#certificates .cert.warn")
        assert (
            await page.text("#links tr.changed")
            == "access → near changed 5 % with words swapped 80 ms 1 % 10 Mbit/s 0 0"
        )
        labels = await page.evaluate("[...document.querySelectorAll('.label.changed')].map((it) => it.textContent)")
        assert labels == ["← 80 ms", "← 1 % lost", "← 10 Mbit/s", "→ 20 ms"]


@pytest.mark.parametrize("broken", [False, True], ids=["healthy", "broken"])
@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1400])
async def test_nothing_scrolls_sideways(lab: ScriptedLab, page: Page, width: int, broken: bool) -> None:
    if broken:
        break_much(lab)
    async with console(lab) as running:
        await page.look(width, phone=width < 500)
        await page.open(running.url)
        await page.until("document.querySelector('.live.on')")
        await running.show_trace(
            trace("https://www.example.com/a/long/path/that/does/not/break/anywhere/at/all?" + "x" * 80)
        )
        await page.until("document.querySelector('#trace .fall')")
        assert await page.evaluate(FITS), await page.evaluate("document.documentElement.scrollWidth")
        spilling = await page.evaluate("""[...document.querySelectorAll(".region .host")].filter((host) =>
            host.getBoundingClientRect().right > host.closest(".region").getBoundingClientRect().right + 1).length""")
        assert spilling == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_every_text_has_enough_contrast(lab: ScriptedLab, page: Page, dark: bool) -> None:
    break_much(lab)
    await lab["catalog-1"].stop()
    async with console(lab) as running:
        await page.look(1400, dark=dark)
        await page.open(running.url)
        await running.show_trace(trace())
        await page.until(
            "document.querySelector('#trace .fall') && document.querySelector('.host.down, .host.waiting')"
        )
        assert await page.evaluate(POOR_CONTRAST) == []
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(16, 21, 27)" if dark else "rgb(245, 246, 248)")


async def test_the_page_reconnects_to_a_restarted_console(lab: ScriptedLab, page: Page) -> None:
    async with console(lab) as running:
        await page.open(running.url)
        await page.until(WELL)
        assert await running.stop() == 0
        await page.until("document.body.classList.contains('lost')")
        assert "The console has not answered since" in await page.text("#verdict")
    async with console(lab, port=running.ports["http"]):
        await page.until(f"{WELL} && !document.body.classList.contains('lost')")


async def test_answers_of_hosts_are_shown_as_text_never_as_markup(lab: ScriptedLab, page: Page) -> None:
    evil = "<img src=x onerror=alert(1)>"
    lab["resolver"].health.set(evil, ok=False, detail=evil)
    lab["edge"].answers["/admin/certificate"] = certificate(time.time(), names=(evil,), last_error=evil)
    async with console(lab) as running:
        await page.open(running.url)
        await page.until("document.querySelectorAll('#alarms .alarm').length >= 2")
        await running.show_trace({**trace(), "summary": evil, "url": evil})
        await page.until("document.querySelector('#trace .sentence')")
        assert await page.evaluate("document.querySelectorAll('main img').length") == 0
        assert evil in await page.text("#alarms")


async def test_the_page_loads_only_its_own_files(lab: ScriptedLab, page: Page) -> None:
    async with console(lab) as running:
        await page.open(running.url)
        await page.until(WELL)
        loaded = await page.evaluate("performance.getEntriesByType('resource').map((it) => new URL(it.name).origin)")
        assert set(loaded) == {running.url}
