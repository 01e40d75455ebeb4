"""Iterative resolution of one question (RFC 1034 section 5.3.3), from the closest known zone cut down.

Nothing here opens a socket, reads a clock or sleeps.  `Resolution.step` says what to ask next; whoever drives it
(`resolver.server`) reports what came back by `receive` or `fail`.
"""

import random
from dataclasses import dataclass, field

from resolver.cache import Cache, Entry, Negative, Rank
from resolver.message import NOERROR, NXDOMAIN, Message, Record, is_below, parent, to_text
from resolver.servers import Servers

#: Referrals followed for one question.  Root, TLD, zone and a few delegations below need four or five; a loop more.
MAX_REFERRALS = 16
#: CNAMEs followed for one question (BIND and Unbound: 11 to 16).
MAX_ALIASES = 12
#: Name servers' addresses looked up inside lookups of name servers' addresses (CVE-2014-8500 was without a limit).
MAX_DEPTH = 5
#: Queries sent for one question, all told (NXNSAttack, CVE-2020-12662: one question must not cause many).
MAX_ASKS = 40
#: Queries for one zone and one question that may go unanswered: two servers, three rounds.
MAX_TRIES = 6


@dataclass(frozen=True, slots=True)
class Ask:
    """Send ``qname qtype`` to *address*; then call `receive()` or `fail()`."""

    address: str
    #: Name of that server, and the zone that it is asked as a server of.
    server: str
    zone: str
    qname: str
    qtype: str
    #: How often this server was asked in vain for this question: time-outs grow with it.
    tries: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """The answer: CNAMEs and records, or a refusal with the SOA that backs it."""

    rcode: int
    answer: tuple[Record, ...]
    authority: tuple[Record, ...] = ()
    #: Until when, on the caller's clock, it may be given again as it is: then a TTL has counted down, or ended.
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no answer to be had now (SERVFAIL)."""

    reason: str


@dataclass(slots=True)
class _Frame:
    """One name being looked up: the question itself, or the address of a name server on the way."""

    qname: str
    qtype: str
    chain: list[Entry] = field(default_factory=list)
    zone: str = ""
    #: Servers of `zone`: name to addresses; empty where the address is not known.
    servers: dict[str, list[str]] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    useless: set[str] = field(default_factory=set)
    referrals: int = 0
    #: What a reply said, also where its TTL does not let the cache keep it.
    result: Resolved | None = None


class Resolution:
    """One question, being resolved.

    Args:
        qname: absolute lower-case name.
        qtype: type mnemonic.
        cache: what is known; gets everything that is learned.
        hints: root servers' names and addresses.
        servers: what is known of servers asked before; one that answers goes first, and of these the quickest.
        rng: breaks ties between servers that were never asked.
    """

    def __init__(
        self,
        qname: str,
        qtype: str,
        cache: Cache,
        hints: dict[str, str],
        servers: Servers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.qname, self.qtype = qname, qtype
        self.asks = 0
        self._cache, self._hints = cache, hints
        self._servers = servers if servers is not None else Servers()
        self._rng = rng or random.Random(0)
        self._frames = [_Frame(qname, qtype)]

    def __repr__(self) -> str:
        frame = self._frames[-1]
        return (
            f"<Resolution {self.qname} {self.qtype} at={frame.zone or '?'} depth={len(self._frames)} asks={self.asks}>"
        )

    def step(self, now: float) -> Ask | Resolved | Failed:
        """Return what to do next."""
        while True:
            frame = self._frames[-1]
            known = frame.result or self._from_cache(frame, now)
            if known is not None:
                if len(self._frames) == 1:
                    return known
                self._finish_server(known)
                continue
            if len(frame.chain) > MAX_ALIASES:
                return Failed(f"more than {MAX_ALIASES} aliases from {self.qname}")
            if not frame.zone:
                self._closest_cut(frame, now)
            if frame.referrals > MAX_REFERRALS:
                return Failed(f"more than {MAX_REFERRALS} referrals for {frame.qname}")
            if self.asks >= MAX_ASKS:
                return Failed(f"more than {MAX_ASKS} queries for {self.qname}")
            address = self._choose(frame, now)
            if address is not None:
                self.asks += 1
                server = next(name for name, addresses in frame.servers.items() if address in addresses)
                return Ask(address, server, frame.zone, frame.qname, frame.qtype, frame.tried.get(address, 0))
            if not self._descend(frame, now):
                if len(self._frames) == 1:
                    return Failed(f"no server of {frame.zone} gave an answer for {frame.qname}")
                self._finish_server(None)

    def receive(self, message: Message, ask: Ask, now: float) -> str:
        """Take the reply to *ask*; return what it was: answer, alias, nxdomain, nodata, referral or lame."""
        frame = self._frames[-1]
        # Only what the asked zone can speak for is believed (RFC 5452 section 6, RFC 2181 section 5.4.1).
        answer = [r for r in message.answer if is_below(r.name, ask.zone)]
        authority = [r for r in message.authority if is_below(r.name, ask.zone)]
        additional = [r for r in message.additional if is_below(r.name, ask.zone)]
        if message.rcode not in {NOERROR, NXDOMAIN}:
            return self._lame(frame, ask)
        rank = Rank.AUTHORITATIVE if message.authoritative else Rank.ANSWER
        followed = self._follow(frame, answer, rank, now)
        if followed == "answer":
            return followed
        if followed and not is_below(frame.qname, ask.zone):
            return followed  # where the alias leads, this server has nothing to say: no NXDOMAIN of another's name
        soa = next((r for r in authority if r.rtype == "SOA" and is_below(frame.qname, r.name)), None)
        if (
            message.rcode == NXDOMAIN
            or (soa is not None and not followed)
            or (soa is not None and message.authoritative)
        ):
            return self._refuse(frame, message.rcode, soa, ask, now)
        if followed:
            return followed
        if self._refer(frame, authority, additional, now):
            return "referral"
        if message.authoritative and not answer:
            return self._refuse(frame, NOERROR, None, ask, now)
        return self._lame(frame, ask)

    def fail(self, ask: Ask) -> None:
        """*ask* got no usable reply in time."""
        frame = self._frames[-1]
        frame.tried[ask.address] = frame.tried.get(ask.address, 0) + 1

    # --- below ------------------------------------------------------------------------------------------------------

    def _from_cache(self, frame: _Frame, now: float) -> Resolved | None:
        """Follow what is known: an answer, a refusal, or aliases as far as they lead."""
        seen = {alias.records[0].name for alias in frame.chain}
        while len(frame.chain) <= MAX_ALIASES:
            entry = self._cache.get(frame.qname, frame.qtype, now)
            if entry is not None and entry.negative is None:
                return _resolved(frame, now, entry)
            if entry is not None and entry.negative is not None:
                return _refused(frame, now, entry, entry.negative)
            gone = self._cache.get(frame.qname, "", now)  # NXDOMAIN denies every type (RFC 8020)
            if gone is not None and gone.negative is not None:
                return _refused(frame, now, gone, gone.negative)
            alias = self._cache.get(frame.qname, "CNAME", now) if frame.qtype != "CNAME" else None
            if alias is None or alias.negative is not None:
                return None
            record = alias.records[0]
            if record.name in seen:
                return _resolved(frame, now)
            seen.add(record.name)
            frame.chain.append(alias)
            self._restart(frame, _target(record))
        return None

    def _restart(self, frame: _Frame, qname: str) -> None:
        frame.qname, frame.zone = qname, ""
        frame.servers, frame.tried, frame.useless = {}, {}, set()

    def _closest_cut(self, frame: _Frame, now: float) -> None:
        """Begin at the deepest zone whose servers are known and can be reached."""
        zone = frame.qname
        while zone != ".":
            entry = self._cache.get(zone, "NS", now, Rank.REFERRAL)
            if entry is not None and entry.records:
                names = [_target(record) for record in entry.records]
                if any(self._addresses(name, now) for name in names) or not all(is_below(n, zone) for n in names):
                    frame.zone, frame.servers = zone, {name: self._addresses(name, now) for name in names}
                    return
            zone = parent(zone)
        frame.zone, frame.servers = ".", {name: [address] for name, address in self._hints.items()}

    def _addresses(self, name: str, now: float) -> list[str]:
        entry = self._cache.get(name, "A", now, Rank.GLUE)
        if entry is not None and entry.records:
            return [record.text for record in entry.records]
        return [self._hints[name]] if name in self._hints else []

    def _choose(self, frame: _Frame, now: float) -> str | None:
        """Return the address to ask: fewest failures first, then by experience; None when all are used up."""
        addresses = [a for group in frame.servers.values() for a in group if a not in frame.useless]
        if not addresses or sum(frame.tried.values()) >= MAX_TRIES:
            return None
        return min(addresses, key=lambda a: (frame.tried.get(a, 0), self._servers.rank(a, now, self._rng)))

    def _descend(self, frame: _Frame, now: float) -> bool:
        """Look up the address of a name server that came without one; return False when none is left."""
        if len(self._frames) > MAX_DEPTH:
            return False
        busy = {each.qname for each in self._frames}
        for name, addresses in frame.servers.items():
            if not addresses and name not in frame.useless and name not in busy:
                known = self._addresses(name, now)
                if known:
                    frame.servers[name] = known
                    return True
                self._frames.append(_Frame(name, "A"))
                return True
        return False

    def _finish_server(self, found: Resolved | None) -> None:
        """End the look-up of a name server's address and hand it to the frame that needs it."""
        done = self._frames.pop()
        name = done.chain[0].records[0].name if done.chain else done.qname
        frame = self._frames[-1]
        addresses = [r.text for r in found.answer if r.rtype == "A"] if found is not None else []
        if addresses:
            frame.servers[name] = addresses
        else:
            frame.useless.add(name)

    def _follow(self, frame: _Frame, answer: list[Record], rank: Rank, now: float) -> str:
        """Take records of the name asked for, or an alias and what it leads to; return answer, alias or nothing."""
        outcome = ""
        for _ in range(MAX_ALIASES):
            found = tuple(r for r in answer if r.name == frame.qname and r.rtype == frame.qtype)
            if found:
                frame.result = _resolved(frame, now, self._cache.put(found, rank, now))
                return "answer"
            alias = next((r for r in answer if r.name == frame.qname and r.rtype == "CNAME"), None)
            if alias is None:
                return outcome
            frame.chain.append(self._cache.put([alias], rank, now))
            zone, servers = frame.zone, frame.servers
            self._restart(frame, _target(alias))
            if is_below(frame.qname, zone):  # the same servers may know
                frame.zone, frame.servers = zone, servers
            outcome = "alias"
        return outcome

    def _refuse(self, frame: _Frame, rcode: int, soa: Record | None, ask: Ask, now: float) -> str:
        if soa is not None and not is_below(soa.name, ask.zone):
            soa = None
        ttl = min(soa.ttl, int(soa.rdata.times[4])) if soa is not None else 0
        negative = Negative(rcode, soa)
        # Without a SOA the TTL is 0: the cache keeps nothing (RFC 2308 section 5).
        rtype = "" if rcode == NXDOMAIN else frame.qtype
        entry = self._cache.put_negative(frame.qname, rtype, negative, ttl, now)
        frame.result = _refused(frame, now, entry, negative)
        return "nxdomain" if rcode == NXDOMAIN else "nodata"

    def _refer(self, frame: _Frame, authority: list[Record], additional: list[Record], now: float) -> bool:
        """Take a referral to a zone that is closer to the name; nothing else helps."""
        cuts = {
            r.name
            for r in authority
            if r.rtype == "NS"
            and is_below(frame.qname, r.name)
            and r.name != frame.zone
            and is_below(r.name, frame.zone)
        }
        if not cuts:
            return False
        cut = max(cuts, key=len)
        records = [r for r in authority if r.rtype == "NS" and r.name == cut]
        self._cache.put(records, Rank.REFERRAL, now)
        names = [_target(r) for r in records]
        glue: dict[str, list[Record]] = {name: [] for name in names}
        for record in additional:
            if record.rtype == "A" and record.name in glue:
                glue[record.name].append(record)
        for group in glue.values():
            if group:
                self._cache.put(group, Rank.GLUE, now)
        frame.zone = cut
        frame.servers = {name: [r.text for r in glue[name]] or self._addresses(name, now) for name in names}
        frame.tried, frame.useless = {}, set()
        frame.referrals += 1
        return True

    def _lame(self, frame: _Frame, ask: Ask) -> str:
        """The server is none for this zone, or says that it failed: not asked again for this question."""
        frame.useless.add(ask.address)
        return "lame"


def _resolved(frame: _Frame, now: float, *last: Entry) -> Resolved:
    """Return the aliases followed and the RRset at their end, with the TTLs that are left: the search took time."""
    entries = (*frame.chain, *last)
    answer = tuple(record for entry in entries for record in entry.at(now))
    return Resolved(NOERROR, answer, until=min(entry.until(now) for entry in entries))


def _refused(frame: _Frame, now: float, entry: Entry, negative: Negative) -> Resolved:
    """Return the aliases followed and the SOA that denies what they lead to."""
    soa = negative.soa
    authority = () if soa is None else (Record(soa.name, "SOA", entry.left(now), soa.rdata),)
    aliases = tuple(record for alias in frame.chain for record in alias.at(now))
    until = min(each.until(now) for each in (*frame.chain, entry))
    return Resolved(negative.rcode, aliases, authority, until)


def _target(record: Record) -> str:
    name = to_text(record.rdata.label)
    return name if name is not None else "."  # `parse_reply` lets no such record through
