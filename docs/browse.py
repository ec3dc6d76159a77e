"""Checks the built site, and looks at it in Chromium: `python docs/browse.py SITE SHOTS`.

Every link within the site has to lead somewhere, and nothing may come from another host. Where there is a browser,
every page is opened at the width of a phone and of a desktop, and its picture goes to the folder SHOTS; a page that
asks another host for anything, prints an error, misses a file or is wider than the window fails.
"""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag
from urllib.request import urlopen

from websockets.asyncio.client import ClientConnection, connect

WIDTHS = (390, 1280)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Links(HTMLParser):
    """What a page links to and loads, and the names that others can link to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links, self.loads, self.names = set[str](), set[str](), set[str]()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("id", "name"):
                self.names.add(value)
            elif value and name == "href" and tag == "a":
                self.links.add(value)
            elif value and name in ("href", "src"):
                self.loads.add(value)


def broken_links(site: Path) -> Iterator[str]:
    """What leads nowhere, and what pages and style sheets load from another host."""
    pages = {path: Links(path) for path in site.rglob("*.html")}
    for path, page in sorted(pages.items()):
        name = path.relative_to(site).as_posix()
        yield from (f"{name} loads {link}" for link in sorted(page.loads) if _is_foreign(link))
        for link in sorted(page.links | page.loads):
            if _is_foreign(link) or link.startswith(("data:", "mailto:")):
                continue
            file, anchor = urldefrag(unquote(link))
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].names):
                yield f"{name} links to {link}, which is not there"
    for path in sorted(site.rglob("*.css")):
        if found := re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^'\")]+", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site).as_posix()} loads {found[0]}"


def _is_foreign(link: str) -> bool:
    return link.startswith(("http://", "https://", "//"))


class Page:
    """A page of the browser, by its debugging protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.numbers, self.events = socket, count(1), list[dict[str, Any]]()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a method returns; events on the way are kept."""
        number = next(self.numbers)
        await self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        return await self._receive(lambda message: message.get("id") == number)

    async def wait_for(self, event: str) -> None:
        """Waits for an event that has not come yet."""
        if not any(message.get("method") == event for message in self.events):
            await self._receive(lambda message: message.get("method") == event)

    async def _receive(self, wanted: Any) -> dict[str, Any]:
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.recv(), 60))
            self.events.append(message)
            if wanted(message):
                return message.get("result", {})


async def look(page: Page, address: str, width: int, shot: Path) -> list[str]:
    """Opens an address, draws it, and returns what is wrong."""
    page.events.clear()
    await page.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
    )
    await page.call("Page.navigate", url=address)
    await page.wait_for("Page.loadEventFired")
    # Pictures below the window are loaded when they are seen.
    script = "new Promise(done => setTimeout(() => done([document.documentElement.scrollWidth, innerWidth]), 150))"
    value = (await page.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True))["result"]
    wide, inner = value["value"]
    drawn = await page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
    shot.write_bytes(base64.b64decode(drawn["data"]))
    wrong = [f"is {wide} pixels wide"] if wide > inner else []
    host = address.split("/")[2]
    for event in page.events:
        details = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                url = details["request"]["url"]
                if not url.startswith(("data:", "blob:", f"http://{host}/")):
                    wrong.append(f"asks for {url}")
            case "Network.responseReceived" if details["response"]["status"] >= 400:
                wrong.append(f"lacks {details['response']['url']}")
            case "Runtime.exceptionThrown":
                wrong.append(f"throws {details['exceptionDetails']['text']}")
            case "Runtime.consoleAPICalled" if details["type"] == "error":
                wrong.append(f"prints {details['args']}")
            case "Log.entryAdded" if details["entry"]["level"] == "error":
                wrong.append(f"logs {details['entry']['text']}")
    return wrong


async def look_at_all(port: int, address: str, pages: list[str], shots: Path) -> list[str]:
    """Opens all pages at all widths; returns what is wrong."""
    with urlopen(f"http://127.0.0.1:{port}/json") as answer:
        target = next(one for one in json.load(answer) if one["type"] == "page")["webSocketDebuggerUrl"]
    wrong = []
    async with connect(target, max_size=None) as socket:
        page = Page(socket)
        for domain in ("Page", "Network", "Runtime", "Log"):
            await page.call(f"{domain}.enable")
        for name in pages:
            for width in WIDTHS:
                shot = shots / f"{name.removesuffix('.html').replace('/', '-')}-{width}.png"
                wrong += [f"{name} at {width}: {what}" for what in await look(page, f"{address}/{name}", width, shot)]
    return wrong


def main(site: Path, shots: Path) -> int:
    """Checks the links of the site and opens its pages; returns the exit status."""
    site = site.resolve()
    if broken := list(broken_links(site)):
        print("\n".join(broken))
        return 1
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is installed: the site is not looked at", file=sys.stderr)
        return 0
    shots.mkdir(parents=True, exist_ok=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    pages = [name for name in names if not name.startswith("_modules")]
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "DevTools listening" in line)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            port = int(line.split(":")[2].split("/")[0])
            wrong = asyncio.run(look_at_all(port, f"http://127.0.0.1:{server.server_port}", pages, shots))
        finally:
            process.terminate()
            process.wait()
    print("\n".join(wrong) or f"{len(pages)} pages looked at")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
