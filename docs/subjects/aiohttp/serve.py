"""An aiohttp application that reloads its certificate (`tlsreload`) whenever certbot has renewed it."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from tlsreload import CertificateFiles, ReloadingContext

DATA = Path(os.environ.get("DATA", "/srv/subject"))
NAME = os.environ["SUBJECT_NAME"]
#: Seconds between two runs of `certbot renew`, and between two checks of the certificate files.
EVERY, LOOK = float(os.environ.get("EVERY", "5")), 0.5


async def certbot(*words: str) -> None:
    """Run certbot; raise `RuntimeError` if it fails."""
    folders = [f"--{kind}-dir={DATA / kind}" for kind in ("config", "work", "logs")]
    with (DATA / "certbot.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec("certbot", *words, *folders, stdout=log, stderr=log)
        if await process.wait():
            raise RuntimeError(f"certbot failed: {(DATA / 'certbot.log').read_text()[-200:]}")


async def main() -> None:
    """Obtain the first certificate with http-01, serve with it, and run `certbot renew` periodically."""
    web_root = DATA / "www"
    (web_root / ".well-known/acme-challenge").mkdir(parents=True, exist_ok=True)
    challenges = web.Application()
    challenges.router.add_static("/.well-known/", web_root / ".well-known")
    runner = web.AppRunner(challenges)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 80).start()
    order = ("certonly", "--non-interactive", "--agree-tos", "--register-unsafely-without-email", "--domain", NAME)
    await certbot(*order, "--server", os.environ["ACME_DIRECTORY"], "--webroot", "--webroot-path", str(web_root))

    live = DATA / "config/live" / NAME
    certificates = ReloadingContext([CertificateFiles(live / "fullchain.pem", live / "privkey.pem")])
    application = web.Application()
    application.router.add_get("/", greet)
    application.cleanup_ctx.append(lambda _: watching(certificates))
    serving = web.AppRunner(application)
    await serving.setup()
    await web.TCPSite(serving, "0.0.0.0", 443, ssl_context=certificates.context).start()
    while True:
        await asyncio.sleep(EVERY)  # interval between runs, as a systemd timer for certbot would set it
        await certbot("renew", "--no-random-sleep-on-renew")


async def greet(_: web.Request) -> web.Response:
    """Answer every request with one line."""
    return web.Response(text="served by aiohttp\n")


async def watching(certificates: ReloadingContext) -> AsyncIterator[None]:
    """Load renewed files while the application runs."""
    task = asyncio.create_task(certificates.watch(LOOK))
    yield
    task.cancel()


asyncio.run(main())
