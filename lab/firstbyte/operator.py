"""Runs the commands of an experiment that needs an operator, on this machine (see `experiments.operator`)."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from experiments.operator import ASKED, FOLDER, REPLIED, TAKEN, is_allowed
from hostfiles.layout import RESULTS
from runtime import Lab

#: Host on which the files of the exchange are read and written: it mounts the results folder and is always running.
HOST = "wan"
#: Shell script that waits up to 5 s for a command and prints it; exit code 3 means that there is none.
WAIT = (
    f'i=0; while [ ! -e "$0/{ASKED}" ]; do i=$((i+1)); [ $i -le 25 ] || exit 3; sleep 0.2; done; '
    f'mv "$0/{ASKED}" "$0/{TAKEN}" && cat "$0/{TAKEN}"'
)
#: Shell script that writes a reply atomically.
REPLY = f'printf %s "$1" > "$0/.{REPLIED}" && mv "$0/.{REPLIED}" "$0/{REPLIED}"'


@contextmanager
def serving(lab: Lab) -> Iterator[None]:
    """Run the experiment's commands in *lab* during the ``with`` block; at its end, let a running command finish."""
    ended, busy = threading.Event(), threading.Lock()

    def serve() -> None:
        folder = str(RESULTS / FOLDER)
        while not ended.is_set():
            with suppress(Exception):  # for example, the lab is gone: the experiment then reports a missing reply
                code, out, _ = lab.capture(HOST, ["sh", "-c", WAIT, folder])
                if code:
                    ended.wait(0.2)  # the folder may not exist yet
                    continue
                with busy:
                    asked = json.loads(out)
                    reply = {"number": asked["number"], **_perform(lab.runtime, list(asked["words"]))}
                    lab.capture(HOST, ["sh", "-c", REPLY, folder, json.dumps(reply)])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        with busy:
            pass


def _perform(runtime: str, words: list[str]) -> dict[str, object]:
    """Run ``firstbyte`` with *words*; return the exit code and the output."""
    if not is_allowed(words):
        return {"code": 2, "out": "", "err": f"expected an operator command, got {' '.join(words)!r}"}
    command = [sys.executable, "-m", "firstbyte", "--runtime", runtime, *words]
    # The command runs in its own session, so Ctrl-C does not reach it, and a step that has begun is completed.
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, start_new_session=True
    )
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}
