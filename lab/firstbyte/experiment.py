"""``firstbyte run`` and ``firstbyte drill``: run experiments inside the lab.

Outside the lab, both commands start a host inside it that runs the same command.  The exit code is the verdict: 0 pass
or skipped, 1 fail (expected of a control), 4 invalid.
"""

import argparse
import asyncio
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import reports
from drills import DRILLS, TARGETED, evidence
from experiments import (
    Experiment,
    Mailbox,
    Order,
    Outcome,
    ParameterError,
    Repeats,
    Verdict,
    archive,
    clean_up,
    conduct,
    parameters,
)
from firstbyte import operator, own, terminal, verdicts, where
from firstbyte.verdicts import Done
from hostfiles import junit
from hostfiles.junit import Case, Suite
from hostfiles.layout import RESULTS
from runtime import InsideLab, Lab, LabError
from scenarios import SCENARIOS

#: Folder on this machine into which results are copied from the lab, relative to the current folder.
COPIED = Path("results")
Kind = type[Experiment[Any]]
KINDS: dict[str, Sequence[Kind]] = {"run": SCENARIOS, "drill": DRILLS}
#: Names of the built-in experiments, which a user's own experiment must not use.
TAKEN = frozenset(kind.name for kinds in KINDS.values() for kind in kinds)


class NotKeptError(LabError):
    """The results folder is not writable."""

    exit_code = Verdict.INVALID.exit_code


def run(args: argparse.Namespace) -> int:
    """Run scenarios or drills, depending on ``args.command``; return the exit code.

    Raises:
        ParameterError: the experiment does not exist or a parameter is invalid; nothing was started.
        BusyError: another experiment is running in this lab.
        LabError: the lab is not running, or the results cannot be written.
    """
    kinds = KINDS[args.command]
    if args.list:
        print(
            json.dumps([verdicts.described(kind) for kind in kinds], indent=2) if args.json else verdicts.listing(kinds)
        )
        return 0
    if args.undo:
        return _undo(args) if InsideLab.is_here() else _outside(args, ["--undo", *_operated(args.command == "drill")])
    source: bytes | None = None
    if args.name and own.is_file(args.name):
        mine = own.load(args.name, TAKEN)
        chosen, source = [mine.kind], mine.source
    else:
        chosen = _named(args.command, args.name)
        if args.target is not None:
            chosen = [_about_subject(args)]
    if len(chosen) > 1 and args.set:
        raise ParameterError("expected --set with one experiment, not with all")
    for kind in chosen:  # reject invalid parameters before any experiment starts
        parameters.bind(kind.settings, quick=args.quick, given=args.set)
    if args.target is not None and len(chosen) > 1:
        raise ParameterError("expected --target with one experiment, not with all")
    if args.junit and not Path(args.junit).resolve().parent.is_dir():
        raise ParameterError(f"--junit: expected a file in a folder that exists, got {args.junit}")
    if InsideLab.is_here():
        return _inside(args, chosen, source)
    words = [*_words(args, "-" if source else args.name), *_operated(any(kind.operated for kind in chosen))]
    return _outside(args, words, [kind.name for kind in chosen], source)


def _named(verb: str, name: str | None) -> list[Kind]:
    """Return the experiment called *name*, or all of them for ``all``."""
    kinds = KINDS[verb]
    if name == "all":
        return list(kinds)
    if found := [kind for kind in kinds if kind.name == name]:
        return found
    names = [kind.name for kind in kinds]
    if name is None:
        raise ParameterError(f"expected a name ({', '.join(names)}), all, a file, or --list")
    other, what = ("drill", "drill") if verb == "run" else ("run", "scenario")
    if any(kind.name == name for kind in KINDS[other]):
        raise ParameterError(f"{name} is a {what}: firstbyte {other} {name}")
    raise ParameterError(f"expected one of {', '.join(names)}, or all; got {name!r}", name, names)


def _about_subject(args: argparse.Namespace) -> Kind:
    """Return the variant of the named drill for a subject, and add the subject to the parameters in *args*."""
    known = TARGETED if args.command == "drill" else {}
    if args.name not in known:
        raise ParameterError(
            f"--target: expected one of the drills {', '.join(TARGETED)}; "
            f"{args.command} {args.name} is about the lab's own hosts"
        )
    if not InsideLab.is_here():
        with where.outside(args.command) as lab:
            lab.require_up()
            found = [each for each in lab.subjects() if args.target in {each.host, each.name}]
        if not found:
            raise ParameterError(f"--target: {args.target} has not joined the lab: `firstbyte join --name …`")
        args.target = str(found[0])
    args.set.append(f"target={args.target}")
    return known[args.name]


def _inside(args: argparse.Namespace, chosen: Sequence[Kind], source: bytes | None) -> int:
    done: list[Done] = []
    codes: list[int] = []  # one exit code per experiment
    try:
        for kind in chosen:
            if len(chosen) > 1:
                print(f"{kind.name}: {kind.claim}", file=sys.stderr, flush=True)
            made, stopped = _repeat(args, kind)
            done += made
            codes.append(_together(args, made) if args.times > 1 else made[0].verdict.exit_code)
            if stopped:
                break
    except OSError as error:
        raise NotKeptError(f"{RESULTS}: {error.strerror or error}") from None
    if source is not None:
        for folder in (each.folder for each in done if each.folder is not None):
            with suppress(OSError):  # the copy of the source is optional, so a full disk is no error
                (folder / "experiment.py").write_bytes(source)
    if len(chosen) > 1:
        _summary(args, done)
    _junit(args, RESULTS, [each.folder for each in done if each.folder is not None])
    if args.control and any(each.verdict is Verdict.PASS for each in done):
        return 0  # worst outcome with --control: a control passed, so its check does not work
    return next((code for code in ((4, 1) if args.control else (1, 4)) if code in codes), 0)


def _repeat(args: argparse.Namespace, kind: Kind) -> tuple[list[Done], bool]:
    """Run one experiment ``args.times`` times, stopping early if it cannot continue.

    Returns:
        The completed runs, and whether the user interrupted the series.
    """
    lab = InsideLab()
    if args.target is not None:
        name = args.target.rpartition(":")[0]
        lab.addresses[name.partition(".")[0]] = socket.gethostbyname(name)
    order = Order(args.quick, args.control, args.seed, tuple(args.set))
    done: list[Done] = []
    for number in range(1, args.times + 1):
        if args.times > 1:
            print(f"{kind.name}: run {number} of {args.times}", file=sys.stderr, flush=True)
        mailbox = Mailbox(RESULTS) if args.operated else None
        outcome = asyncio.run(
            conduct(kind, order, lab, RESULTS, addresses=lab.addresses, progress=_progress(), operator=mailbox)
        )
        with _deferred_signals() as received:
            done.append(_finish(args, outcome))
        if args.times > 1 and not args.json:
            verdicts.show_briefly(done[-1], number, args.times)
        if received or outcome.result.interrupted.startswith("interrupted"):
            return done, True
        if outcome.result.interrupted:
            break
    return done, False


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Delay SIGINT and SIGTERM until a result is completely written.

    Yields:
        The list of signals received in the meantime; if it is not empty, no further run starts.
    """
    received: list[int] = []
    before = {
        each: signal.signal(each, lambda number, _: received.append(number)) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _finish(args: argparse.Namespace, outcome: Outcome) -> Done:
    """Save the result of one run and print it."""
    result = outcome.result
    folder: Path | None = None
    try:
        folder = reports.keep(outcome, RESULTS)
        if outcome.kind in DRILLS:
            evidence.write(folder, RESULTS)
    except OSError as error:
        result.interrupted = f"the result could not be kept: {error.strerror or error}"
        _warn(args, f"{RESULTS}: {result.interrupted}")
    except evidence.EvidenceError as error:
        _warn(args, f"no evidence: {error}")
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
    """Evaluate the repeated runs of one experiment as a series; return the exit code."""
    repeats = Repeats(tuple(each.outcome.result for each in done), args.times)
    page: Path | None = None
    try:
        page = reports.write_repeats(RESULTS, repeats, [each.outcome for each in done], [each.folder for each in done])
    except OSError as error:
        _warn(args, f"no page: {error.strerror or error}")
    if args.json:
        print(json.dumps(repeats.as_json(), indent=2, default=str))
    else:
        verdicts.show_repeats(repeats, page)
    return Verdict.INVALID.exit_code if page is None else repeats.exit_code()


def _summary(args: argparse.Namespace, done: Sequence[Done]) -> None:
    """Print the verdict of each experiment and write a summary page."""
    flags = (
        f"{' --quick' if args.quick else ''}{' --control' if args.control else ''}"
        f"{f' --times {args.times}' if args.times > 1 else ''}"
    )
    page: Path | None = None
    try:
        folders = [each.folder for each in done if each.folder is not None]
        page = reports.write_summary(RESULTS, f"firstbyte {args.command} all{flags}", folders)
    except OSError as error:
        _warn(args, f"no summary: {error.strerror or error}")
    if not args.json:
        verdicts.show_all(done, page)


def _words(args: argparse.Namespace, name: str) -> list[str]:
    """Return the command line that runs *args* inside the lab."""
    words = [name, "--seed", str(args.seed), "--times", str(args.times)]
    words += [f"--{flag}" for flag in ("quick", "control", "json") if getattr(args, flag)]
    if args.target is not None:
        return [*words, "--target", args.target, *(w for each in args.set[:-1] for w in ("--set", each))]
    return words + [word for each in args.set for word in ("--set", each)]


def _operated(needed: bool) -> list[str]:
    """Return the command-line flag by which an experiment in the lab knows that this process runs operator commands.

    Returns an empty list if the experiment needs no operator commands.
    """
    return ["--operated"] if needed else []


def _operator(lab: Lab, *, needed: bool) -> AbstractContextManager[None]:
    """Return a context manager that runs operator commands of the experiment in *lab*, if any are needed."""
    return operator.serving(lab) if needed else nullcontext()


def _outside(
    args: argparse.Namespace, words: Sequence[str], names: Sequence[str] = (), source: bytes | None = None
) -> int:
    """Run `firstbyte` with *words* inside the lab, and copy the results of the experiments *names* to this machine."""
    command = [args.command, *words, *(["--ascii"] if args.ascii or terminal.is_ascii() else [])]
    with where.outside(args.command) as lab, tempfile.TemporaryFile() as file:
        lab.require_up()
        if source is not None:
            file.write(source)
            file.seek(0)
        # The process inside the lab also receives Ctrl-C; wait while it undoes its injections and saves its results.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            with _operator(lab, needed="--operated" in words):
                code = lab.run_lab(command, stdin=None if source is None else file)
        finally:
            signal.signal(signal.SIGINT, before)
        if code not in {0, 1, 2, 3, 4}:
            print(f"firstbyte {args.command}: the run was killed: nothing of it is kept", file=sys.stderr)
            _undo_outside(lab, args.command)
            code = 4
        pages = set(COPIED.glob("*.html"))
        try:
            copied = lab.fetch_results(COPIED)
            _junit(args, COPIED, [folder for folder in copied if folder.parent.name in names])
            for folder in copied:
                if (folder / "report.html").exists() and folder.parent.name in names:
                    print(f"report: {folder / 'report.html'}", file=sys.stderr)
            for page in sorted(set(COPIED.glob("*.html")) - pages):
                if page.name != "index.html":
                    print(f"all of them on one page: {page}", file=sys.stderr)
        except (LabError, OSError) as error:
            print(f"firstbyte {args.command}: results stay in the lab: {error}", file=sys.stderr)
    return code


def _junit(args: argparse.Namespace, results: Path, folders: Sequence[Path]) -> None:
    """Write a JUnit XML file of the runs in *folders*, which are below *results*, if the user asked for one."""
    if not args.junit or args.undo:
        return
    chosen = {folder.resolve() for folder in folders}
    kept = sorted((run for run in archive.runs(results) if run.folder.resolve() in chosen), key=lambda run: run.time)
    nothing = Suite(args.name, [Case("run", "error", "no result was kept")], 0.0)
    try:
        junit.write(Path(args.junit), [reports.suite(run) for run in kept] or [nothing])
    except OSError as error:
        _warn(args, f"--junit {args.junit}: {error.strerror or error}")


def _undo_outside(lab: Lab, command: str) -> None:
    """Undo the injections of a killed run.

    Does nothing if the lab is down, because Compose would create its networks and volumes again.
    """
    try:
        lab.require_up()
    except LabError as error:
        print(f"firstbyte {command}: nothing to undo: {error}", file=sys.stderr)
    else:
        with _operator(lab, needed=command == "drill"):
            lab.run_lab([command, "--undo", *_operated(command == "drill")])


def _undo(args: argparse.Namespace) -> int:
    """Undo the injections that a killed run left active in the lab; return the exit code."""
    mailbox = Mailbox(RESULTS) if args.operated else None
    failed = asyncio.run(clean_up(InsideLab(), RESULTS, lambda text: print(f"  {text}", file=sys.stderr), mailbox))
    for text in failed:
        print(f"  the run was killed; could not be undone: {text}", file=sys.stderr)
    return 4 if failed else 0


def _warn(args: argparse.Namespace, message: str) -> None:
    """Print an error after which the command continues."""
    terminal.complain(args.command, message, 4, as_json=args.json)


def _progress() -> Callable[[str], None]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"  {time.monotonic() - began:5.1f} s  {text}", file=sys.stderr, flush=True)

    return say
