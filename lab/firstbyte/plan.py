"""``firstbyte plan``: print the models' predictions for the user's input; ``--verify`` checks the models in the lab."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from firstbyte import terminal
from planner.calibration import Calibration, CalibrationError, load_or_calibrate
from planner.inputs import INPUTS
from planner.plan import Plan, verify_command
from planner.plan import plan as make
from planner.quantities import duration
from planner.rows import TOPICS
from planner.settings import render_settings
from runtime import LabError, UsageError

#: Descriptions of the exit codes of experiments.
VERDICTS = {0: "pass", 1: "fail", 2: "wrong command line", 3: "the lab is not up", 4: "invalid"}


class NotStoredError(LabError):
    """The calibration file cannot be written."""

    exit_code = 1


def plan(args: argparse.Namespace) -> int:
    """Print a plan; with ``--verify``, run the experiments that check its models and return the worst exit code.

    Raises:
        InputsError: an input is invalid, or two inputs contradict each other.
        NotStoredError: the calibration file cannot be written.
    """
    given = {each.name: text for each in INPUTS if (text := getattr(args, each.name)) is not None}
    try:
        calibration, new = load_or_calibrate(anew=args.calibrate)
    except CalibrationError as error:
        raise NotStoredError(str(error)) from None
    made = make(given, calibration, tls=args.tls, key=args.key, pool=args.pool)
    if args.settings:
        sys.stdout.write(render_settings(made, args.settings))
        return 0
    simulated = _simulated(made, args.picture) if args.simulate or args.picture else None
    if not args.json:
        _show(made, calibration, new=new)
        if simulated is not None:
            simulated[1]()
    verified = _verify() if args.verify else {}
    if args.json:
        costs: dict[str, Any] = json.loads(calibration.to_json())
        checks = {command: VERDICTS.get(code, f"exit code {code}") for command, code in verified.items()}
        found = {"simulated": simulated[0]} if simulated else {}
        print(json.dumps({**made.as_json(), "costs": costs, **found, "verified": checks}, indent=2))
    elif verified:
        _show_verified(verified)
    codes = set(verified.values())
    return next((code for code in (3, 2, 1, 4) if code in codes), 0)


def _simulated(made: Plan, picture: Path | None) -> tuple[dict[str, Any], Callable[[], None]]:
    """Simulate the plan's clients; return the result as JSON, and a function that prints it."""
    try:
        from firstbyte import simulate  # noqa: PLC0415 - numpy is optional, and its import takes 0.1 s
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise UsageError("--simulate needs numpy: pip install 'firstbyte[plan]'") from None
    found = simulate.simulate(made)
    if picture is not None:
        simulate.draw(found, picture)
    return found.as_json(), partial(simulate.show, found)


def _show(made: Plan, calibration: Calibration, *, new: bool) -> None:
    console = terminal.console()
    for topic in TOPICS:
        console.print(f"[bold]{topic.name}[/]")
        table = terminal.table("", "value", "formula")
        for each in made.rows:
            if each.topic is topic:
                table.add_row(escape(each.row.what), each.text(), escape(each.row.formula))
        console.print(table)
        console.print(f"{escape(topic.symbols)}", style="dim")
        console.print(f"assumes: {topic.assumes}", style="dim")
        console.print(f"check it: {verify_command(topic)}\n", style="dim", soft_wrap=True)
    costs = calibration.costs(made.choices["tls"], made.choices["key"])
    full, resumed = costs["full"], costs["resumed"]
    when = "now" if new else f"at {calibration.measured}"
    console.print(
        f"measured {when} on {calibration.machine}: a full handshake takes the server {duration(full.low)} to "
        f"{duration(full.high)} of CPU time, a resumed one {duration(resumed.low)} to {duration(resumed.high)}",
        style="dim",
    )


def _verify() -> dict[str, int]:
    """Run the experiment of each topic once; return the exit codes, keyed by command."""
    codes: dict[str, int] = {}
    for words in dict.fromkeys(topic.verify for topic in TOPICS):
        command = [*words, "--quick"]
        print(f"firstbyte {' '.join(command)}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, "-m", "firstbyte", *command], check=False, stdout=sys.stderr)
        codes[f"firstbyte {' '.join(command)}"] = done.returncode
        if done.returncode == LabError.exit_code:  # without a lab, all other experiments fail, too
            break
    return codes


def _show_verified(codes: dict[str, int]) -> None:
    table = terminal.table("topic", "checked by", "verdict")
    for topic in TOPICS:
        command = verify_command(topic)
        if command in codes:
            table.add_row(topic.name, command, VERDICTS.get(codes[command], f"exit code {codes[command]}"))
    terminal.console().print(table)
