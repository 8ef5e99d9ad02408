"""The playground in the real JupyterLab, driven in a headless Chromium as a reader would use it."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import nst_utils as nst

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = (ROOT / "notebooks" / "12_playground.ipynb").read_text(encoding="utf-8")
SCREENSHOT = os.environ.get("NST_SCREENSHOT")  # where to put a picture of the panel, at the notebook's own size
TOKEN = "playground"
PATIENCE = 300_000  # milliseconds for any one thing, on a machine that is busy with others
SMALL = {"SIZE = 256": "SIZE = 256" if SCREENSHOT else "SIZE = 96", "STEPS = 60": "STEPS = 14", "MOVE_AT = 30": "MOVE_AT = 3"}
FLAGS = ("--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
         "--disable-sync").split()
SETTINGS = {  # cells outside of the window exist as well, and no news from the network
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab with a copy of the playground, with folders and a port of its own; yields its address."""
    notebook = NOTEBOOK
    for own, small in SMALL.items():
        assert own in notebook
        notebook = notebook.replace(own, small)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "playground.ipynb").write_text(notebook, encoding="utf-8")
    for name, values in SETTINGS.items():
        path = tmp_path / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    folders = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "RUNTIME", "DATA")}
    environment = os.environ | folders | {
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        "IPYTHONDIR": str(tmp_path / "ipython"), "NST_FIGURES": str(tmp_path / "figures"),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "notebooks")))}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"ServerApp.ip": "127.0.0.1", "ServerApp.port": port, "ServerApp.port_retries": 0, "IdentityProvider.token": TOKEN,
               "ServerApp.root_dir": tmp_path / "work", "ServerApp.allow_root": True}
    with (tmp_path / "log.txt").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", "--no-browser",
                                   *(f"--{name}={value}" for name, value in options.items())],
                                  cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", server, tmp_path / "log.txt")
            yield f"http://127.0.0.1:{port}/lab/tree/playground.ipynb?token={TOKEN}"
        finally:
            server.terminate()
            server.wait(60)


def wait_for(address, server, log):
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def page(tmp_path):
    """A page of a headless Chromium; how it looked in the end is kept as page.png in the test's folder."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not chromium:
        pytest.skip("no Chromium is installed, so that the panel can't be tried in a browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000}, device_scale_factor=1.25)
        page.set_default_timeout(PATIENCE)
        yield page
        page.screenshot(path=tmp_path / "page.png")
        browser.close()


def run_all(page):
    """Run all cells by the menu and wait for the last one's number."""
    page.get_by_text(re.compile(r"\| Idle$")).wait_for()  # the status bar; before that, the menu asks which kernel to take
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    count = NOTEBOOK.count('"cell_type": "code"')
    page.locator(".jp-InputPrompt", has_text=f"[{count}]:").wait_for(state="attached")


def run_again(page, source):
    """Run the cell with this (text or pattern) in its source once more, wait for its number and return it."""
    cell = page.locator(".jp-CodeCell", has_text=source)
    prompt = cell.locator(".jp-InputPrompt")
    before = prompt.inner_text()
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    until(page, lambda: prompt.inner_text() != before and re.search(r"\d", prompt.inner_text()))
    return cell


def picture(panel):
    """The live image as numbers: pixels, not its address, which changes with every message."""
    return panel.locator("img.widget-image").first.evaluate("""async image => {
        for (let trial = 0; trial < 50; trial++) {  // the next message may swap the picture while this one is being decoded
            try { await image.decode(); break; } catch { await new Promise(resolve => setTimeout(resolve, 100)); }
        }
        const canvas = Object.assign(document.createElement("canvas"), {width: 32, height: 32});
        const brush = canvas.getContext("2d");
        brush.drawImage(image, 0, 0, 32, 32);
        return Array.from(brush.getImageData(0, 0, 32, 32).data);
    }""")


def until(page, condition):
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        page.wait_for_timeout(50)


def steps(panel):
    return int(re.search(r"(\d+) of \d+ steps", panel.inner_text()).group(1))


def test_a_reader_steers_the_playground(page, lab, tmp_path):
    page.goto(lab)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    run_all(page)
    panel = page.locator(".jp-OutputArea-output", has=page.get_by_role("button", name="Start", exact=True)).last
    button = lambda name: panel.get_by_role("button", name=name, exact=True)  # noqa: E731
    status = lambda text: panel.get_by_text(re.compile(f"^{text},")).wait_for()  # noqa: E731
    status("ready")
    before = picture(panel)

    button("Start").click()
    until(page, lambda: steps(panel) > 5 and picture(panel) != before)

    slider = panel.locator(".widget-hslider", has_text="style weight")
    slider.get_by_role("slider").focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    until(page, lambda: float(slider.locator(".widget-readout").inner_text()) > 20)
    moved_to, count = float(slider.locator(".widget-readout").inner_text()), steps(panel)
    until(page, lambda: steps(panel) > count + 5)

    button("Pause").click()
    status("paused")
    until(page, button("Resume").is_enabled)
    page.wait_for_timeout(500)  # the step under way may still be shown
    rest, count = picture(panel), steps(panel)
    page.wait_for_timeout(1500)
    assert picture(panel) == rest and steps(panel) == count

    button("Resume").click()
    until(page, lambda: steps(panel) > count + (60 if SCREENSHOT else 3) and picture(panel) != rest)

    if SCREENSHOT:
        panel.screenshot(path=SCREENSHOT)
    button("Save figure").click()
    panel.get_by_text("Saved as").wait_for()
    caption = (tmp_path / "figures" / "steered_1.txt").read_text()
    assert f"style {moved_to:.3g}," in caption and nst.load_image(tmp_path / "figures" / "steered_1_picture.png").std() > 0.05

    mixer = page.locator(".jp-OutputArea-output", has=page.get_by_text("keep the photograph's colours")).last
    before = picture(mixer)
    mixer.locator(".widget-hslider", has_text="alpha").get_by_role("slider").focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    until(page, lambda: picture(mixer) != before)

    button("Restart").click()
    status("running")
    run_again(page, re.compile(r"panel = .*steer\("))  # which ends the worker of the panel that was there before
    status("ready")
    moves = run_again(page, "for k in range(50)")
    assert moves.get_by_text("1 worker, style weight 281.8, error: None").count() == 1
    for trouble in ("Error displaying widget", "Traceback (most recent call last)", "Widget not found"):
        assert page.get_by_text(trouble).count() == 0, trouble
    assert page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
