"""Command dispatch: a table of command functions, and the one place that maps exceptions to exit codes."""

import argparse
import os
import sys
from collections.abc import Callable

from experiments import BusyError, ParameterError
from firstbyte import (
    audit,
    completion,
    dns,
    doctor,
    encryption,
    experiment,
    join,
    lesson,
    lifecycle,
    link,
    new,
    pki,
    plan,
    reports,
    terminal,
    trace,
)
from planner.inputs import InputsError
from runtime import LabError
from runtime.choose import VARIABLE

Command = Callable[[argparse.Namespace], int]
COMMANDS: dict[str, Command] = {
    "up": lifecycle.up,
    "down": lifecycle.down,
    "status": lifecycle.status,
    "doctor": doctor.doctor,
    "logs": lifecycle.logs,
    "exec": lifecycle.exec_,
    **dict.fromkeys(("stop", "start", "kill", "pause", "unpause"), lifecycle.host_verb),
    "restart": lifecycle.restart,
    "join": join.join,
    "leave": join.leave,
    "link": link.link,
    "dns": dns.dns,
    "trace": trace.trace,
    "encryption": encryption.encryption,
    **dict.fromkeys(("run", "drill"), experiment.run),
    "lesson": lesson.lesson,
    "plan": plan.plan,
    "report": reports.report,
    "audit": audit.run,
    "traps": audit.traps,
    "pki": pki.pki,
    "new": new.new,
    "completion": completion.completion,
    "idle": lifecycle.idle,
}


def execute(args: argparse.Namespace) -> int:
    """Run the parsed command *args*; return its exit code, after printing any error to standard error."""
    if getattr(args, "runtime", None):
        os.environ[VARIABLE] = args.runtime  # inherited by processes that the command starts inside the lab
    try:
        return COMMANDS[args.command](args)
    except (LabError, ParameterError, InputsError, BusyError) as error:
        wrong = isinstance(error, ParameterError | InputsError)
        code = error.exit_code if isinstance(error, LabError) else 2 if wrong else 3
        message = f"{error}{terminal.meant(getattr(error, 'name', ''), getattr(error, 'known', ()))}"
        return terminal.complain(args.command, message, code, as_json=getattr(args, "json", False))
    except BrokenPipeError:  # the reader closed the pipe, as in `firstbyte … | head`
        sys.stderr.close()
        return 0
