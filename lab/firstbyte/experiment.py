"""``firstbyte run`` and ``firstbyte drill``: conducted inside the lab; outside, a host of the service `lab` is started.

The exit code is the verdict: 0 pass or skipped · 1 fail (of a control: as it should be) · 4 invalid.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import reports
from drills import DRILLS
from experiments import (
    BusyError,
    Experiment,
    Order,
    Outcome,
    ParameterError,
    Repeats,
    Verdict,
    clean_up,
    conduct,
    parameters,
)
from firstbyte import verdicts, where
from firstbyte.verdicts import Done
from hostfiles.layout import RESULTS
from runtime import InsideLab, Lab, LabError
from scenarios import SCENARIOS

#: Where the command line copies results to, outside.
COPIED = Path("results")
#: Runs in a row at most.
MAX_TIMES = 100
Kind = type[Experiment[Any]]


def run(args: argparse.Namespace) -> int:
    """Run a scenario."""
    return _command(args, SCENARIOS)


def drill(args: argparse.Namespace) -> int:
    """Run a drill."""
    return _command(args, DRILLS)


def _command(args: argparse.Namespace, kinds: Sequence[Kind]) -> int:
    if args.list:
        print(
            json.dumps([verdicts.described(kind) for kind in kinds], indent=2) if args.json else verdicts.listing(kinds)
        )
        return 0
    if args.undo:
        return _undo(args.command) if InsideLab.is_here() else _outside(args, ["--undo"])
    try:
        chosen = _chosen(args, kinds)
        for kind in chosen:  # refuse before anything starts
            parameters.bind(kind.settings, quick=args.quick, given=args.set)
    except ParameterError as error:
        print(f"firstbyte {args.command}: error: {error}", file=sys.stderr)
        return 2
    if not InsideLab.is_here():
        return _outside(args, _words(args))
    return _inside(args, chosen)


def _chosen(args: argparse.Namespace, kinds: Sequence[Kind]) -> list[Kind]:
    if not 1 <= args.times <= MAX_TIMES:
        raise ParameterError(f"expected --times from 1 to {MAX_TIMES}, got {args.times}")
    names = [kind.name for kind in kinds]
    if args.name is None:
        raise ParameterError(f"expected a name of {', '.join(names)}; all; or --list")
    if args.name == "all":
        if args.set:
            raise ParameterError("expected --set with one experiment, not with all")
        return list(kinds)
    found = [kind for kind in kinds if kind.name == args.name]
    if not found:
        raise ParameterError(f"expected a name of {', '.join(names)}, or all; got {args.name!r}")
    return found


def _inside(args: argparse.Namespace, chosen: Sequence[Kind]) -> int:
    done: list[Done] = []
    codes: list[int] = []  # of each experiment
    try:
        for kind in chosen:
            if len(chosen) > 1:
                print(f"{kind.name}: {kind.claim}", file=sys.stderr, flush=True)
            made, stopped = _run(args, kind)
            done += made
            codes.append(_together(args, made) if args.times > 1 else made[0].verdict.exit_code)
            if stopped:
                break
    except BusyError as error:
        print(f"firstbyte {args.command}: error: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"firstbyte {args.command}: error: {RESULTS}: {error.strerror or error}", file=sys.stderr)
        return 4
    if len(chosen) > 1:
        _summary(args, done)
    if args.control and any(each.verdict is Verdict.PASS for each in done):
        return 0  # a defect: the worst that a control can do
    return next((code for code in ((4, 1) if args.control else (1, 4)) if code in codes), 0)


def _run(args: argparse.Namespace, kind: Kind) -> tuple[list[Done], bool]:
    """Run one experiment as often as was asked for, or until it can not go on; say whether somebody wants it all to end."""
    lab = InsideLab()
    order = Order(args.quick, args.control, args.seed, tuple(args.set))
    done: list[Done] = []
    for number in range(1, args.times + 1):
        if args.times > 1:
            print(f"{kind.name}: run {number} of {args.times}", file=sys.stderr, flush=True)
        outcome = asyncio.run(conduct(kind, order, lab, RESULTS, addresses=lab.addresses, progress=_progress()))
        with _unhurried() as told:
            done.append(_finish(args, outcome))
        if args.times > 1 and not args.json:
            verdicts.show_briefly(done[-1], number, args.times)
        if told or outcome.result.interrupted.startswith("interrupted"):
            return done, True
        if outcome.result.interrupted:
            break
    return done, False


@contextmanager
def _unhurried() -> Iterator[list[int]]:
    """Let a result be written to its end; give the signals that came meanwhile: then nothing new is begun."""
    told: list[int] = []
    before = {
        each: signal.signal(each, lambda number, _: told.append(number)) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield told
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _finish(args: argparse.Namespace, outcome: Outcome) -> Done:
    result = outcome.result
    folder: Path | None = None
    try:
        folder = reports.keep(outcome, RESULTS)
    except OSError as error:
        result.interrupted = f"the result could not be kept: {error.strerror or error}"
        print(f"firstbyte {args.command}: error: {RESULTS}: {result.interrupted}", file=sys.stderr)
    done = Done(outcome, folder)
    if args.times == 1:
        if args.json:
            print(json.dumps(result.as_json(), indent=2, default=str))
        else:
            verdicts.show(done)
    if args.control and result.verdict is Verdict.PASS:
        print(f"{result.name}: the control did not fail: this experiment proves nothing", file=sys.stderr)
    return done


def _together(args: argparse.Namespace, done: Sequence[Done]) -> int:
    """Say what repeats say together; return the exit code of that."""
    repeats = Repeats(tuple(each.outcome.result for each in done), args.times)
    page: Path | None = None
    try:
        page = reports.write_repeats(RESULTS, repeats, [each.outcome for each in done], [each.folder for each in done])
    except OSError as error:
        print(f"firstbyte {args.command}: error: no page: {error.strerror or error}", file=sys.stderr)
    if args.json:
        print(json.dumps(repeats.as_json(), indent=2, default=str))
    else:
        verdicts.show_repeats(repeats, page)
    return Verdict.INVALID.exit_code if page is None else repeats.exit_code()


def _summary(args: argparse.Namespace, done: Sequence[Done]) -> None:
    """Say how all of them ended, and write the page that somebody can sign."""
    flags = f"{' --quick' if args.quick else ''}{' --control' if args.control else ''}{f' --times {args.times}' if args.times > 1 else ''}"
    page: Path | None = None
    try:
        folders = [each.folder for each in done if each.folder is not None]
        page = reports.write_summary(RESULTS, f"firstbyte {args.command} all{flags}", folders)
    except OSError as error:
        print(f"firstbyte {args.command}: error: no summary: {error.strerror or error}", file=sys.stderr)
    if not args.json:
        verdicts.show_all(done, page)


def _words(args: argparse.Namespace) -> list[str]:
    words = [args.name, "--seed", str(args.seed), "--times", str(args.times)]
    words += [f"--{flag}" for flag in ("quick", "control", "json") if getattr(args, flag)]
    return words + [word for each in args.set for word in ("--set", each)]


def _outside(args: argparse.Namespace, words: Sequence[str]) -> int:
    with where.outside(args.command) as lab:
        lab.require_up()
        # Ctrl-C reaches that host too, which undoes what it injected and keeps what it has: wait for it.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            code = lab.run_lab([args.command, *words])
        finally:
            signal.signal(signal.SIGINT, before)
        if code not in {0, 1, 2, 3, 4}:
            print(f"firstbyte {args.command}: the run was killed: nothing of it is kept", file=sys.stderr)
            _undo_outside(lab, args.command)
            code = 4
        pages = set(COPIED.glob("*.html"))
        try:
            for folder in lab.fetch_results(COPIED):
                if (folder / "report.html").exists() and args.name in {"all", folder.parent.name}:
                    print(f"report: {folder / 'report.html'}", file=sys.stderr)
            for page in sorted(set(COPIED.glob("*.html")) - pages):
                if page.name != "index.html":
                    print(f"all of them on one page: {page}", file=sys.stderr)
        except (LabError, OSError) as error:
            print(f"firstbyte {args.command}: results stay in the lab: {error}", file=sys.stderr)
    return code


def _undo_outside(lab: Lab, command: str) -> None:
    """Take back what a run left that was killed; a lab that was taken down meanwhile must not be made anew for that."""
    try:
        lab.require_up()
    except LabError as error:
        print(f"firstbyte {command}: nothing is taken back: {error}", file=sys.stderr)
    else:
        lab.run_lab([command, "--undo"])


def _undo(command: str) -> int:
    """Take back what a run that was killed left in the lab."""
    try:
        failed = asyncio.run(clean_up(InsideLab(), RESULTS, lambda text: print(f"  {text}", file=sys.stderr)))
    except BusyError as error:
        print(f"firstbyte {command}: error: {error}", file=sys.stderr)
        return 3
    for text in failed:
        print(f"  the run was killed; could not be undone: {text}", file=sys.stderr)
    return 4 if failed else 0


def _progress() -> Callable[[str], None]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"  {time.monotonic() - began:5.1f} s  {text}", file=sys.stderr, flush=True)

    return say
