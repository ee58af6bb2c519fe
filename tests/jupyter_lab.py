"""JupyterLab for tests: a server of one's own on a folder, and a notebook of it opened and run in a real browser."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmkit.paths import REPOSITORY

WIDTHS = (1440, 900)  # pixels, of a page
DONE = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(p => /\\[\\d+\\]/.test(p.innerText))"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """JupyterLab serving `folder`, with settings and workspaces of its own; yields its address."""
    own = folder / ".jupyter"
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "JUPYTER_CONFIG_DIR": str(own / "config"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
    }
    options = {"ServerApp.root_dir": folder, "ServerApp.port": 0, "IdentityProvider.token": ""}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    quiet = own / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with (own / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield _address(server, own)
    finally:
        server.terminate()  # it ends its kernels, too
        server.wait(20)


def run_all(page, address: str, notebook: str, seconds: float = 120) -> None:
    """Open a notebook of the served folder in a page, alone on the screen, run all its cells, and wait for the last."""
    page.goto(f"{address}lab/tree/{notebook}?reset")
    page.get_by_text("| Idle").wait_for(timeout=seconds * 1000)  # before, it would ask for a kernel
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(DONE, timeout=seconds * 1000)
    wrong = page.locator(
        ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']"
    ).all_inner_texts()
    assert not wrong, "\n".join(wrong)


def _address(server: subprocess.Popen, own: Path) -> str:
    """Where the server answers, as it has written it down."""
    for _ in range(300):
        for file in (own / "runtime").glob("jpserver-*.json"):
            try:
                return json.loads(file.read_text())["url"]
            except ValueError:  # half written
                pass
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab does not start: {(own / 'log').read_text()[-2000:]}")
