"""Every page in a real browser: drawn, clicked through, no error on its console. Screenshots are kept."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flow_core.interfaces.sinks import RunInfo
from flow_monitor import MonitoringHub
from flow_monitor.testing.made import make_database
from flow_monitor.testing.synthetic import SyntheticRun

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
SCRIPT = "tests-integration/services/chromium.sh install"
HOSTILE = "<script>alert(1)</script> \u00fcn\u00efc\u00f6d\u00e9 \u2603"
HOSTILE_ID = "a/../b?<script>alert('id')</script>#\u2603"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1400,1000",
    "--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync",
    "--disable-default-apps", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
)  # fmt: skip
DRAWN = """return [...document.querySelectorAll('.plot[data-figure]')].every(
    p => p.drawn || p.querySelector('.loading') && !p.textContent.includes('Loading'))"""


def need(condition: bool, what: str) -> None:
    if not condition and os.environ.get("FLOW_REQUIRE_SERVICES") == "1":
        pytest.fail(what)
    if not condition:
        pytest.skip(what)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runinfo")
    return make_database(
        directory,
        SyntheticRun(run_id="small", tasks=40, samples=10, fail_rate=0.3, name="small.py"),
        SyntheticRun(run_id="dead", tasks=40, ended=False, seed=2, name="killed.py"),
        SyntheticRun(run_id="large", tasks=10_000, width=400, nodes=8, samples=3, seed=5, name="large.py"),
        SyntheticRun(run_id=HOSTILE_ID, tasks=30, seed=3, name=HOSTILE, app_prefix="<b>&'\""),
    )


def serve(database: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "flow_viz.cli", str(database), "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"Open (http://\S+)", line):
            return process, found[1].rstrip("/")
    raise AssertionError("flow-visualize did not start")


@pytest.fixture(scope="module")
def server(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, address = serve(runs, "--no-token")
    with process:
        yield address
        process.terminate()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    need(binary is not None and driver is not None, f"Chromium is not installed: run {SCRIPT}")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ModuleNotFoundError:
        need(False, "selenium is not installed: pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.set_page_load_timeout(40)
    yield browser
    browser.quit()


class Browser:
    """Opens pages of one server and looks at what they became."""

    def __init__(self, driver: Any, server: str, shots: Path) -> None:
        self.driver = driver
        self.server = server
        self._shots = shots

    def open(self, path: str) -> None:
        self.driver.get(self.server + path)
        self.wait(lambda: self.driver.execute_script(DRAWN))

    def wait(self, what: Callable[[], object]) -> None:
        """Wait until something is so; an element that the page replaced while it was read is looked for again."""
        end = time.monotonic() + 40
        while not self._is_so(what):
            assert time.monotonic() < end, f"waited too long on {self.driver.current_url}"
            time.sleep(0.05)

    @staticmethod
    def _is_so(what: Callable[[], object]) -> bool:
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

        try:
            return bool(what())
        except (StaleElementReferenceException, NoSuchElementException):
            return False

    def text(self) -> str:
        return str(self.driver.find_element("tag name", "main").text)

    def shot(self, name: str) -> None:
        self.driver.save_screenshot(str(self._shots / f"{name}.png"))

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def plots(self) -> int:
        return int(self.driver.execute_script("return document.querySelectorAll('.plot .main-svg').length"))


@pytest.fixture
def browser(chromium: Any, server: str, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    shots = Path(os.environ.get("FLOW_SCREENSHOTS") or tmp_path_factory.getbasetemp() / "screenshots")
    shots.mkdir(parents=True, exist_ok=True)
    made = Browser(chromium, server, shots)
    made.errors()
    return made


PAGES = {
    "summary": "", "graph": "graph", "graph-state": "graph?color=state", "graph-stages": "graph?level=stages",
    "graph-apps": "graph?level=apps", "tasks": "tasks", "task": "task/4", "timeline": "timeline",
    "resources": "resources", "resources-app": "resources?by=app", "blocks": "blocks",
}  # fmt: skip


@pytest.mark.parametrize("run", ["small", "dead", "large"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_drawn_without_an_error(browser: Browser, run: str, page: str) -> None:
    browser.open(f"/workflow/{run}/{PAGES[page]}")
    browser.shot(f"{run}-{page}")
    assert browser.errors() == []
    assert "Cannot be drawn" not in browser.text()
    if page.startswith(("graph", "timeline", "summary")):
        assert browser.plots() > 0


@pytest.mark.parametrize("page", PAGES)
def test_hostile_names_run_no_script(browser: Browser, page: str) -> None:
    browser.open("/")
    links = browser.driver.find_elements("css selector", "td.name a")
    address = next(a.get_attribute("href") for a in links if "alert(1)" in a.text)
    browser.driver.get(address + PAGES[page])
    browser.wait(lambda: browser.driver.execute_script(DRAWN))
    browser.shot(f"hostile-{page}")
    assert HOSTILE in browser.driver.find_element("tag name", "h1").text
    assert browser.errors() == []  # an alert would also have failed the calls before


MARKUP = (
    '"><img src=x onerror="window.xss=1"><svg onload=window.xss=1></svg>\'><a href="javascript:window.xss=1">a</a>'
    "</script><script>window.xss=1</script>{{7*7}}${7*7}<style>*{display:none}</style>&lt;b onclick=xss&gt;"
)
LIVE = """return [window.xss, document.querySelectorAll('img[src="x"], svg[onload], main style, [onerror], [onclick], '
    + 'a[href^="javascript"], main script').length, document.querySelectorAll('main a[href*="//"]').length]"""
KEPT = {"run_id", "version_num", "executors", "grouping"}
STATES = {"task_status", "status", "ended_how", "task_kind", "task_status_name", "task_try_verdict"}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a stranger's database, in which every text is markup; of the second run the states, too."""
    database = make_database(
        tmp_path_factory.mktemp("marked"),
        SyntheticRun(run_id="words", tasks=40, samples=10, fail_rate=0.3),
        SyntheticRun(run_id="states", tasks=40, samples=10, fail_rate=0.3, seed=2),
    )
    with sqlite3.connect(database) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = list(connection.execute(f'PRAGMA table_info("{table}")'))
            key = "run_id" if any(column[1] == "run_id" for column in columns) else "run_key"
            for _, name, kind, _, _, unique in columns:
                if kind != "TEXT" or name in KEPT:
                    continue
                value = f'? || "{name}"' if unique else "?"  # several rows may not be the same
                which = f" WHERE {key} = (SELECT {key} FROM workflow WHERE run_id = 'states')" if name in STATES else ""
                connection.execute(f'UPDATE "{table}" SET "{name}" = {value}{which}', (MARKUP,))
    connection.close()
    process, address = serve(database, "--no-token")
    with process:
        yield address
        process.terminate()


@pytest.mark.parametrize("run", ["words", "states"])
def test_no_text_of_a_database_becomes_a_part_of_a_page(
    chromium: Any, marked: str, run: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shots = Path(os.environ.get("FLOW_SCREENSHOTS") or tmp_path_factory.getbasetemp())
    browser = Browser(chromium, marked, shots)
    browser.errors()
    seen = 0
    for page in ("/", *(f"/workflow/{run}/{part}" for part in [*PAGES.values(), *(f"task/{n}" for n in range(8))])):
        browser.open(page)
        browser.shot(f"marked-{run}-{page.replace('/', '-').replace('?', '-')}")
        assert chromium.execute_script(LIVE) == [None, 0, 0], page
        assert browser.errors() == [], page
        text = browser.text()
        assert "49" not in re.findall(r"(?<![\d.])49(?=\$|<)", text), page
        seen += "onerror" in text
    assert seen > 5  # the words are there, as words


def test_the_printed_address_lets_a_browser_in_and_its_token_goes_into_a_cookie(chromium: Any, runs: Path) -> None:
    process, address = serve(runs)
    with process:
        bare = address.partition("?")[0]
        browser = Browser(chromium, bare.rstrip("/"), runs.parent)
        chromium.get(bare)
        assert "token" in chromium.find_element("tag name", "body").text.lower()
        chromium.get(address)
        browser.wait(lambda: "small.py" in browser.text())
        assert "token" not in chromium.current_url
        browser.open("/workflow/small/")
        assert "small.py" in browser.text()
        process.terminate()


def test_clicking_from_the_list_to_a_task_and_back(browser: Browser) -> None:
    browser.open("/")
    browser.shot("workflows")
    browser.driver.find_element("partial link text", "small.py").click()
    assert "Tasks by state" in browser.text()
    for title in ("Graph", "Timeline", "Resources", "Blocks and nodes", "Tasks"):
        browser.driver.find_element("link text", title).click()
        browser.wait(lambda: browser.driver.execute_script(DRAWN))
    browser.driver.find_element("link text", "Run time").click()
    browser.driver.find_element("css selector", "tbody a").click()
    assert "Tries" in browser.text()
    browser.driver.find_element("link text", "Workflows").click()
    assert "4 runs" in browser.text()
    assert browser.errors() == []


def test_a_click_on_a_node_of_the_graph_opens_its_task(browser: Browser) -> None:
    from selenium.webdriver import ActionChains

    browser.open("/workflow/small/graph")
    points = browser.driver.find_elements("css selector", ".scatterlayer .point")
    ActionChains(browser.driver).move_to_element(points[0]).click().perform()
    browser.wait(lambda: "/task/" in browser.driver.current_url)


def test_light_and_dark_are_switched_and_remembered(browser: Browser) -> None:
    browser.open("/workflow/small/")
    theme = "return document.documentElement.dataset.theme"
    before = browser.driver.execute_script(theme)
    browser.driver.find_element("id", "theme").click()
    browser.open("/workflow/small/timeline")
    browser.shot("dark")
    assert browser.driver.execute_script(theme) != before
    browser.driver.find_element("id", "theme").click()
    assert browser.errors() == []


def test_the_large_graph_is_collapsed(browser: Browser) -> None:
    browser.open("/workflow/large/graph")
    count = "return document.querySelector('.plot').data.reduce((n, t) => n + (t.customdata || []).length, 0)"
    assert 0 < browser.driver.execute_script(count) <= 300


def test_pages_are_used_by_keyboard(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open("/")
    body = browser.driver.switch_to.active_element
    body.send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to content"
    for _ in range(40):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        active = browser.driver.switch_to.active_element
        if "/workflow/" in str(active.get_attribute("href")):
            active.send_keys(Keys.ENTER)
            break
    browser.wait(lambda: "/workflow/" in browser.driver.current_url)


def test_a_page_follows_a_run_that_goes_on(chromium: Any, tmp_path: Path) -> None:
    run = SyntheticRun(tasks=60, run_id="live", began_ns=time.time_ns() - 60 * 10**9, samples=4)
    events = list(run.events())
    run_dir = tmp_path / "runinfo" / "000"
    run_dir.mkdir(parents=True)
    hub = MonitoringHub()
    hub.start(RunInfo("live", 1, run_dir, "x", 1))
    process, address = serve(tmp_path / "runinfo" / "monitoring.db", "--no-token")
    browser = Browser(chromium, address, tmp_path)
    try:
        hub.emit(events[:60])
        browser.driver.get(f"{address}/")
        browser.wait(lambda: "running" in browser.text())  # the page of a missing database looks again by itself
        browser.open("/workflow/live/")
        first = browser.driver.find_element("css selector", ".stat strong").text
        hub.emit(events[60:])
        browser.wait(lambda: browser.driver.find_element("css selector", ".stat strong").text != first)
        hub.close(30)
        browser.wait(lambda: "running" not in browser.driver.find_element("id", "head").text)
    finally:
        hub.close(30)
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("content", [None, b"", b"no database"])
def test_without_a_database_there_is_a_clear_page(chromium: Any, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "m.db"
    if content is not None:
        path.write_bytes(content)
    process, address = serve(path, "--no-token")
    try:
        chromium.get(address + "/")
        text = chromium.find_element("tag name", "main").text
        assert "m.db" in text
        assert "Traceback" not in text
    finally:
        process.terminate()
        process.communicate(timeout=20)
