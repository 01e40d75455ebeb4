"""``firstbyte pki rotate``: replace the issuing CA or the root step by step, while the lab is running.

A step is refused until all hosts are ready for it.  The steps themselves run on the ceremony host, the only host with
the root's private key (see `authority.rotation`).
"""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

from firstbyte import where
from runtime import Lab, LabDownError, LabError, RefusedError, UsageError

#: Arguments of the command on the ceremony host: the folders with keys and certificates.
FOLDERS = ("--root", "/srv/root", "--ca", "/srv/ca", "--trust", "/srv/trust", "--passphrase-dir", "/srv/passphrase")
#: Interval between requests to the hosts while they adopt a step, in seconds.
POLL = 0.5
#: Maximum number of concurrent requests to hosts; with Docker, each request starts a process.
ASKED_AT_ONCE = 8


class RotationError(LabError):
    """The rotation cannot continue now: another rotation is in progress, or a host lags."""

    exit_code = 1


class LaggingError(RotationError):
    """A host is not ready for the next step of a rotation, or did not adopt the last step in time."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A host's report about its certificates and trusted roots."""

    host: str
    #: Version of the trust bundle that the host uses; 0 if the host does not answer.
    trust_bundle: int
    #: Names of the issuers of all certificates that the host presents.
    issuers: tuple[str, ...]
    #: Reason why the host does not answer; empty if it does.
    silent: str = ""


def laggards(peers: list[Peer], bundle: int, issuer: str) -> dict[str, str]:
    """Return the hosts that are not ready for the next step, with the reason for each.

    Args:
        peers: the reports of all hosts.
        bundle: version of the trust bundle that every host must use.
        issuer: name of the issuing CA whose certificates every host must present.
    """
    reasons = {}
    for peer in peers:
        if peer.silent:
            reasons[peer.host] = peer.silent
        elif peer.trust_bundle < bundle:
            reasons[peer.host] = f"trusts bundle {peer.trust_bundle}, expected {bundle}"
        elif others := sorted({each for each in peer.issuers if each != issuer}):
            reasons[peer.host] = f"presents a certificate of {', '.join(others)}"
    return reasons


def rotate(args: argparse.Namespace) -> int:
    """Print the state of the rotation, or perform its next step if *args.what* is set (all steps if *args.all* is set).

    With *args.finish*, complete the rotation in progress, after another wait for hosts that lag behind the last step.

    Raises:
        LaggingError: a host is not ready for the step, or did not adopt it in time.
        RotationError: a rotation of the other kind is in progress.
        UsageError: *args.all* or *args.force* is set without *args.what*, or *args.finish* with any of them.
    """
    if args.finish and (args.what or args.all or args.force):
        raise UsageError("expected --finish alone: it completes the rotation in progress")
    if args.what is None and (args.all or args.force):
        raise UsageError(f"expected intermediate or root with {'--all' if args.all else '--force'}, got none")
    with where.outside("pki rotate") as lab:
        if args.what is None and not args.finish:
            return _show(lab, as_json=args.json)
        state, peers = _both(lab)
        kind = args.what or state["kind"]
        if not kind:
            return 0  # --finish without a rotation in progress
        if args.finish:
            _take_up(lab, state, state["step"], args.timeout)
        elif not args.force:
            next_step(state, kind)  # raises if a rotation of the other kind is in progress, before hosts are checked
            _require_ready(peers, state, kind)
        while True:
            step = next_step(state, kind)
            state = _ceremony(lab, kind, step)
            begin = time.monotonic()
            if not args.force:
                _take_up(lab, state, step, args.timeout)
            took = time.monotonic() - begin
            if args.json:
                print(json.dumps({**state, "performed": step, "took_s": round(took, 1)}), flush=True)
            else:
                print(f"{step}: trust bundle {state['bundle']}, {state['signs']} signs; {took:.1f} s", flush=True)
            if not (args.all or args.finish) or not state["kind"]:  # `_take_up` has waited until all hosts are ready
                return 0


def next_step(state: dict[str, Any], kind: str) -> str:
    """Return the next step of a rotation of *kind*; raise `RotationError` if one of the other kind is in progress."""
    if kind not in state["next"]:
        finish = "finish it first: `firstbyte pki rotate --finish`"
        raise RotationError(f"a rotation of the {state['kind']} is in progress, at {state['step']}; {finish}")
    return str(state["next"][kind])


def advice(late: dict[str, str], kind: str) -> str:
    """Return what the user can do about the hosts in *late*.

    Args:
        late: the hosts that have not adopted a step, with the reason for each.
        kind: kind of the rotation; empty if the step was the last one.
    """
    again = f"then repeat `firstbyte pki rotate {kind}`" if kind else "which completes the rotation"
    silent = [host for host, reason in late.items() if reason.startswith("does not answer")]
    behind = [host for host, reason in late.items() if reason.startswith("presents")]
    waiting = [host for host in late if host not in {*silent, *behind}]
    actions = [f"start {', '.join(silent)}"] if silent else []
    actions += [f"wait for {', '.join(waiting)} (`firstbyte pki rotate` shows the state)"] if waiting else []
    actions += [f"run `firstbyte pki renew {' '.join(behind)}`"] if behind else []
    return ", ".join([*actions, again])


def _state(lab: Lab) -> dict[str, Any]:
    return _ceremony(lab)


def _ceremony(lab: Lab, *step: str) -> dict[str, Any]:
    """Perform a step on the ceremony host, if one is given; return the state of the rotation."""
    code, out, err = lab.run_once("ceremony", ["rotate", *FOLDERS, *step])
    if code:
        raise LabError((err or out).decode(errors="replace").strip().removeprefix("authority: error: "))
    state: dict[str, Any] = json.loads(out.splitlines()[-1])
    return state


def _issuer(lab: Lab) -> str:
    name: str = lab.call("ca", "GET", "/admin/certificates")["issuer"]
    return name


def _peers(lab: Lab) -> list[Peer]:
    """Ask all hosts concurrently for their certificates and trusted roots; hosts without certificates are omitted."""
    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        found = threads.map(_peer, repeat(lab), (host.name for host in lab.topology.always))
        return [each for each in found if each is not None]


def _peer(lab: Lab, host: str) -> Peer | None:
    """Ask *host* for its certificates and trusted roots; return None if it does not renew any certificates."""
    try:
        report = lab.call(host, "GET", "/admin/certificate", timeout=5.0)
        others = [lab.call(host, "GET", f"/admin/certificate/{name}") for name in report["additional"]]
    except RefusedError:
        return None
    except LabDownError as error:
        return Peer(host, 0, (), f"does not answer: {error}")
    return Peer(host, report["trust_bundle"], tuple(each.get("issuer", "none yet") for each in (report, *others)))


def _both(lab: Lab) -> tuple[dict[str, Any], list[Peer]]:
    """Return the state of the rotation and the reports of all hosts, requested at the same time."""
    with ThreadPoolExecutor(1) as thread:
        peers, state = thread.submit(_peers, lab), _state(lab)
        return state, peers.result()


def _require_ready(peers: list[Peer], state: dict[str, Any], kind: str) -> None:
    """Raise `LaggingError` if one of *peers* has not adopted the last step."""
    if late := laggards(peers, state["bundle"], state["signs"]):
        raise LaggingError(f"the next step is refused: {_named(late)}; {advice(late, kind)}")


def _take_up(lab: Lab, state: dict[str, Any], step: str, patience: float) -> None:
    """Make all hosts adopt *step*, and wait until they have done so."""
    deadline = time.monotonic() + patience
    while True:
        peers, issuer = _peers(lab), state["signs"]
        late = laggards(peers, state["bundle"], issuer)
        if (signing := _issuer(lab)) != issuer:
            late["ca"] = f"signs with {signing}"
        if not late:
            return
        if time.monotonic() > deadline:
            todo = advice(late, state["kind"])
            raise LaggingError(f"{step} was performed, but not taken up in {patience:g} s: {_named(late)}; {todo}")
        if "ca" not in late:
            lagging = [peer for peer in peers if peer.host in late and not peer.silent]
            with ThreadPoolExecutor() as threads:
                list(threads.map(_hurry, repeat(lab), lagging, repeat(issuer)))
        time.sleep(POLL)  # wait before the next poll; no event signals that a host has adopted a step


def _hurry(lab: Lab, peer: Peer, issuer: str) -> None:
    """Make a host immediately load the trust bundle and renew every certificate not issued by *issuer*."""
    try:
        report = lab.call(peer.host, "GET", "/admin/certificate")
        for path, own in zip(("", *(f"/{name}" for name in report["additional"])), peer.issuers, strict=True):
            lab.call(peer.host, "POST", f"/admin/trust{path}")
            if own != issuer:
                lab.call(peer.host, "POST", f"/admin/renew{path}", timeout=30.0)
    except (RefusedError, LabDownError):  # if the host still lags, the next round reports it
        return


def _show(lab: Lab, *, as_json: bool) -> int:
    state, peers = _both(lab)
    late = laggards(peers, state["bundle"], state["signs"])
    if as_json:
        hosts = [{**asdict(peer), "lags": late.get(peer.host, "")} for peer in peers]
        print(json.dumps({**state, "hosts": hosts}, indent=2))
        return 0
    doing = f"replacing the {state['kind']}, {state['step']} is done" if state["kind"] else "no rotation in progress"
    print(f"{doing}; trust bundle {state['bundle']}; {state['signs']} signs")
    for kind, step in state["next"].items():
        print(f"next: {step} (firstbyte pki rotate {kind})")
    for peer in peers:
        print(f"  {peer.host:12} {late.get(peer.host) or f'ready: bundle {peer.trust_bundle}'}")
    return 0


def _named(late: dict[str, str]) -> str:
    return "; ".join(f"{host} {reason}" for host, reason in late.items())
