"""Iterative resolution of one question (RFC 1034 section 5.3.3), starting at the closest known zone cut.

Each server is sent only the labels that it needs (QNAME minimisation, RFC 9156): the servers of ``com.`` are asked for
``example.com. A``, not for ``www.example.com. MX``.

The module does not open sockets, read a clock or sleep. `Resolution.step` returns the next query to send; the caller
(`resolver.server`) reports the result through `receive`, `unusable` or `fail`.
"""

import ipaddress
import random
from dataclasses import dataclass, field
from enum import StrEnum

from dnsmessage import ROOT, Message, Name, Record, rcode_to_text, rdtypes
from dnsmessage.message import NOERROR, NXDOMAIN, YXDOMAIN
from dnsmessage.options import ExtendedError
from resolver.cache import NO_NAME, Cache, Entry, Negative, Rank
from resolver.servers import Servers

#: Maximum number of referrals followed for one question. Root, TLD, zone and a few delegations below need four or five;
#: only a loop needs more than 16.
MAX_REFERRALS = 16
#: Maximum number of CNAMEs followed for one question (BIND and Unbound: 11 to 16).
MAX_ALIASES = 12
#: Maximum nesting depth of name server address lookups (CVE-2014-8500 was caused by the lack of such a limit).
MAX_DEPTH = 5
#: Maximum number of queries sent for one question, including nested lookups (NXNSAttack, CVE-2020-12662: one question
#: must not trigger many queries).
MAX_ASKS = 40
#: Maximum number of name servers per delegation whose missing addresses are looked up; it limits the queries that a
#: malicious referral can trigger.
MAX_SERVER_LOOKUPS = 5
#: Maximum number of queries that may time out per zone and question: two servers, three rounds.
MAX_TRIES = 6
#: Maximum number of minimised queries for one name, and how many of them add only one label (RFC 9156 section 2.3).
#: Later queries add several labels each, so a name of 127 labels takes ten queries, not 127.
MAX_MINIMISED, MINIMISE_ONE_LABEL = 10, 4
#: Maximum number of minimised queries below a zone cut in the lookup of a name server's address. Together with
#: `MAX_SERVER_LOOKUPS`, it limits a malicious referral to ten queries to the victim's servers (NXNSAttack).
MAX_MINIMISED_SERVER = 1
#: Number of time-outs per zone after which the whole name is sent, because some servers ignore minimised queries.
MINIMISED_TIMEOUTS = 3


class Outcome(StrEnum):
    """Kind of result that one query to one server produced."""

    ANSWER = "answer"
    ALIAS = "alias"
    NXDOMAIN = "nxdomain"
    NODATA = "nodata"
    REFERRAL = "referral"
    #: The minimised name exists in this zone, so there is no zone cut; the next query contains more labels.
    NO_CUT = "no_cut"
    #: The server does not serve the zone, returned an error, or sent a malformed reply.
    LAME = "lame"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Ask:
    """Action: send a query for *qname* and *qtype* to *address*, then call `receive`, `unusable` or `fail`."""

    address: str
    #: Name of the server.
    server: Name
    #: The zone for which the server is queried.
    zone: Name
    qname: Name
    qtype: int
    #: Number of queries to this server that have timed out for this question; the time-out grows with this number.
    tries: int
    #: Whether `qname` is only an ancestor of the name to resolve.
    minimised: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """The result of a resolution: CNAMEs and an RRset, or a negative answer with its SOA."""

    rcode: int
    #: Entries of the answer section, in order: the CNAMEs, then the requested RRset.
    answer: tuple[Entry, ...]
    #: The negative answer at the end of the CNAME chain; None if an RRset was found.
    negative: Entry | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All cache entries that the result depends on."""
        return self.answer if self.negative is None else (*self.answer, self.negative)


@dataclass(frozen=True, slots=True)
class Failed:
    """The resolution failed; the client normally receives SERVFAIL."""

    #: Explanation for the client, with the failure of each server.
    reason: str
    code: ExtendedError = ExtendedError.NO_REACHABLE_AUTHORITY


@dataclass(slots=True)
class _Frame:
    """State of one lookup: of the client's question, or of the address of a name server that the question needs."""

    qname: Name
    qtype: int
    chain: list[Entry] = field(default_factory=list)
    zone: Name | None = None
    #: Addresses of the name servers of `zone`, keyed by server name; the list is empty if no address is known.
    servers: dict[Name, list[str]] = field(default_factory=dict)
    #: Number of time-outs, keyed by server address.
    tried: dict[str, int] = field(default_factory=dict)
    #: Server addresses, and names of servers without an address, that are not tried again, with the reason.
    useless: dict[str | Name, str] = field(default_factory=dict)
    referrals: int = 0
    #: Number of name server address lookups for the current delegation.
    lookups: int = 0
    #: Whether `zone` comes from the cache.
    cached_cut: bool = False
    #: The zones whose cached delegation was dropped because none of their servers was usable.
    dropped: set[Name] = field(default_factory=set)
    #: The result from the last reply, kept here because records with a TTL of 0 are not cached.
    result: Resolved | None = None
    #: Longest ancestor of the name that is known to exist in `zone`.
    shown: Name = ROOT
    #: Number of minimised queries sent.
    minimised: int = 0
    #: Number of minimised queries sent since the last zone cut.
    below_cut: int = 0
    #: Whether all further queries contain the whole name.
    whole: bool = False


class Resolution:
    """The resolution of one question.

    Args:
        qname: the name to resolve.
        qtype: the record type, as a number.
        cache: the source of known records; everything learned is stored in it.
        hints: root servers' addresses, keyed by name.
        servers: statistics of name servers; responsive servers are queried first, in order of round-trip time.
        rng: breaks ties between servers that were never queried.
        minimise: whether each server is sent only the labels that it needs (QNAME minimisation).
        ipv6: whether servers are also queried at the IPv6 addresses in glue.
    """

    def __init__(
        self,
        qname: Name,
        qtype: int,
        cache: Cache,
        hints: dict[Name, str],
        servers: Servers | None = None,
        rng: random.Random | None = None,
        *,
        minimise: bool = True,
        ipv6: bool = False,
    ) -> None:
        self.qname, self.qtype = qname, qtype
        self.asks = 0
        self._cache, self._hints = cache, hints
        self._servers = servers if servers is not None else Servers()
        self._rng = rng or random.Random(0)
        self._minimise = minimise
        self._address_types = (rdtypes.A, rdtypes.AAAA) if ipv6 else (rdtypes.A,)
        self._frames = [_Frame(qname, qtype)]

    def __repr__(self) -> str:
        frame = self._frames[-1]
        question = f"{self.qname} {rdtypes.to_text(self.qtype)}"
        return f"<Resolution {question} at={frame.zone or '?'} depth={len(self._frames)} asks={self.asks}>"

    def step(self, now: float) -> Ask | Resolved | Failed:
        """Return the next query to send (`Ask`) or the final result (`Resolved` or `Failed`)."""
        while True:
            frame = self._frames[-1]
            known = frame.result or self._from_cache(frame, now)
            if known is not None:
                if len(self._frames) == 1:
                    return known
                self._finish_server(known)
                continue
            if len(frame.chain) > MAX_ALIASES:
                return Failed(f"more than {MAX_ALIASES} aliases from {self.qname}", ExtendedError.OTHER)
            if frame.zone is None:
                self._closest_cut(frame, now)
            if frame.referrals > MAX_REFERRALS:
                return Failed(f"more than {MAX_REFERRALS} referrals for {frame.qname}", ExtendedError.OTHER)
            if self.asks >= MAX_ASKS:
                return Failed(f"more than {MAX_ASKS} queries for {self.qname}", ExtendedError.OTHER)
            shown = self._minimised(frame, now)
            address = self._choose(frame, now)
            if address is not None:
                self.asks += 1
                server = next(name for name, addresses in frame.servers.items() if address in addresses)
                zone, tries = frame.zone or ROOT, frame.tried.get(address, 0)
                if shown is None:
                    return Ask(address, server, zone, frame.qname, frame.qtype, tries)
                return Ask(address, server, zone, shown, rdtypes.A, tries, minimised=True)
            if self._descend(frame, now) or self._drop_cached_cut(frame):
                continue
            if len(self._frames) == 1:
                return Failed(f"no server of {frame.zone} gave an answer for {frame.qname}{_complaints(frame)}")
            self._finish_server(None)

    def receive(self, message: Message, ask: Ask, now: float) -> Outcome:
        """Process the reply to *ask*: cache its records, update the resolution, and return the kind of reply."""
        frame = self._frames[-1]
        # Accept only records inside the zone that was queried (RFC 5452 section 6, RFC 2181 section 5.4.1).
        answer = [r for r in message.answer if r.name.is_below(ask.zone)]
        authority = [r for r in message.authority if r.name.is_below(ask.zone)]
        additional = [r for r in message.additional if r.name.is_below(ask.zone)]
        rank = Rank.AUTHORITATIVE if message.authoritative else Rank.ANSWER
        if ask.minimised:
            return self._receive_minimised(ask, message, (answer, authority, additional), rank, now)
        if message.rcode not in {NOERROR, NXDOMAIN, YXDOMAIN}:
            return self.unusable(ask, rcode_to_text(message.rcode))
        followed = self._follow(frame, answer, rank, now)
        if followed is Outcome.ANSWER:
            return followed
        if followed and not frame.qname.is_below(ask.zone):
            return followed  # this server has no authority over the CNAME's target, so ignore its denial
        soa = next((r for r in authority if r.rdtype == rdtypes.SOA and frame.qname.is_below(r.name)), None)
        if (
            message.rcode == NXDOMAIN
            or (soa is not None and not followed)
            or (soa is not None and message.authoritative)
        ):
            return self._deny(frame, message.rcode, soa, now)
        if followed:
            return followed
        if self._refer(frame, frame.qname, authority, additional, now):
            return Outcome.REFERRAL
        if message.authoritative and not answer:
            return self._deny(frame, NOERROR, None, now)
        return self.unusable(ask, "neither an answer nor a referral")

    def unusable(self, ask: Ask, reason: str) -> Outcome:
        """Record an unusable reply: after a minimised query, send the whole name; otherwise stop using the server."""
        frame = self._frames[-1]
        if ask.minimised:
            frame.whole = True
        else:
            frame.useless[ask.address] = reason
        return Outcome.LAME

    def fail(self, ask: Ask) -> None:
        """Record that *ask* timed out or could not be sent."""
        frame = self._frames[-1]
        frame.tried[ask.address] = frame.tried.get(ask.address, 0) + 1
        if sum(frame.tried.values()) >= MINIMISED_TIMEOUTS:
            frame.whole = True

    # --- cache lookups ----------------------------------------------------------------------------------------------

    def _from_cache(self, frame: _Frame, now: float) -> Resolved | None:
        """Return the result if the cache holds it, following cached CNAMEs; None if a server must be queried."""
        seen = {alias.records[0].name for alias in frame.chain}
        while len(frame.chain) <= MAX_ALIASES:
            entry = self._cache.get(frame.qname, frame.qtype, now) or self._cache.get(frame.qname, NO_NAME, now)
            if entry is not None:
                return _resolved(frame, entry)
            alias = self._cache.get(frame.qname, rdtypes.CNAME, now) if frame.qtype != rdtypes.CNAME else None
            if alias is None or alias.negative is not None:
                return None
            record = alias.records[0]
            if record.name in seen:
                return Resolved(NOERROR, tuple(frame.chain))
            seen.add(record.name)
            frame.chain.append(alias)
            self._restart(frame, Name(record.rdata))
        return None

    def _restart(self, frame: _Frame, qname: Name) -> None:
        frame.qname, frame.zone = qname, None
        frame.shown, frame.minimised, frame.below_cut, frame.whole = ROOT, 0, 0, False
        frame.servers, frame.tried, frame.useless, frame.lookups = {}, {}, {}, 0

    def _closest_cut(self, frame: _Frame, now: float) -> None:
        """Start at the deepest zone whose cached name servers are usable, or at the root."""
        zone = frame.qname
        if frame.qtype == rdtypes.DS:
            zone = zone.parent()  # DS records belong to the parent zone (RFC 4035 section 3.1.4.1)
        while zone != ROOT:
            entry = self._cache.get(zone, rdtypes.NS, now, Rank.REFERRAL) if zone not in frame.dropped else None
            if entry is not None and entry.records:
                names = [Name(record.rdata) for record in entry.records]
                if any(self._addresses(name, now) for name in names) or not all(n.is_below(zone) for n in names):
                    frame.zone, frame.servers = zone, {name: self._addresses(name, now) for name in names}
                    frame.cached_cut = True
                    return
            zone = zone.parent()
        frame.zone, frame.servers = ROOT, {name: [address] for name, address in self._hints.items()}
        frame.cached_cut = False

    def _drop_cached_cut(self, frame: _Frame) -> bool:
        """Drop a cached delegation without usable servers so that the parent zone is queried; at most once per zone."""
        zone = frame.zone
        if not frame.cached_cut or zone is None or zone in frame.dropped:
            return False
        self._cache.discard(zone, rdtypes.NS)
        frame.dropped.add(zone)
        self._restart(frame, frame.qname)
        return True

    def _addresses(self, name: Name, now: float) -> list[str]:
        entries = (self._cache.get(name, rdtype, now, Rank.GLUE) for rdtype in self._address_types)
        found = [_address(record) for entry in entries if entry is not None for record in entry.records]
        return found or ([self._hints[name]] if name in self._hints else [])

    # --- QNAME minimisation -----------------------------------------------------------------------------------------

    def _minimised(self, frame: _Frame, now: float) -> Name | None:
        """Return the ancestor of the name to send next (RFC 9156 section 2.3); None to send the whole name."""
        zone = frame.zone or ROOT
        while self._minimise and not frame.whole:
            shown = frame.shown if frame.shown.is_below(zone) else zone
            labels = frame.qname.labels
            left = len(labels) - len(shown.labels)
            step = 1
            if frame.minimised >= MINIMISE_ONE_LABEL:
                step = max(1, left // max(1, MAX_MINIMISED - frame.minimised))
            limit = MAX_MINIMISED if len(self._frames) == 1 else MAX_MINIMISED_SERVER
            if step >= left or frame.minimised >= MAX_MINIMISED or frame.below_cut >= limit:
                return None
            name = Name.from_labels(labels[left - step :])
            if name.labels[0].startswith(b"_"):
                return None  # names such as _tcp are rarely zone cuts
            known = self._cache.get(name, rdtypes.A, now) or self._cache.get(name, rdtypes.CNAME, now)
            if known is None:
                return name
            frame.shown = name  # cached, so this name is not a zone cut
        return None

    def _receive_minimised(
        self,
        ask: Ask,
        message: Message,
        sections: tuple[list[Record], list[Record], list[Record]],
        rank: Rank,
        now: float,
    ) -> Outcome:
        """Process the reply to a minimised query: a referral, or evidence that the name is not a zone cut.

        After an error, the same servers are sent the whole name. This includes NXDOMAIN, because some servers wrongly
        send it for empty non-terminals (RFC 8020). In the lookup of a name server's address, NXDOMAIN is final (see
        `MAX_MINIMISED_SERVER`).
        """
        frame, (answer, authority, additional) = self._frames[-1], sections
        frame.minimised += 1
        soa = next((r for r in authority if r.rdtype == rdtypes.SOA and ask.qname.is_below(r.name)), None)
        if message.rcode == NXDOMAIN:
            if len(self._frames) > 1:
                return self._deny(frame, NXDOMAIN, soa, now)
            frame.whole = True
            return Outcome.NXDOMAIN
        if message.rcode != NOERROR:
            return self.unusable(ask, rcode_to_text(message.rcode))
        if self._refer(frame, ask.qname, authority, additional, now):
            return Outcome.REFERRAL
        found = [r for r in answer if r.name == ask.qname and r.rdtype == rdtypes.A]
        alias = [r for r in answer if r.name == ask.qname and r.rdtype == rdtypes.CNAME][:1]
        if found or alias:
            self._cache.put(found or alias, rank, now)
        elif soa is not None and not answer:
            self._cache.put_negative(ask.qname, rdtypes.A, Negative(NOERROR, soa), _negative_ttl(soa), now)
        else:
            frame.whole = True  # the reply contains a DNAME, or no records
        frame.shown, frame.below_cut = ask.qname, frame.below_cut + 1
        return Outcome.NO_CUT

    # --- server selection -------------------------------------------------------------------------------------------

    def _choose(self, frame: _Frame, now: float) -> str | None:
        """Return the address to query: fewest time-outs first, then by server statistics; None if all have failed."""
        addresses = [a for group in frame.servers.values() for a in group if a not in frame.useless]
        if not addresses or sum(frame.tried.values()) >= MAX_TRIES:
            return None
        return min(addresses, key=lambda a: (frame.tried.get(a, 0), self._servers.rank(a, now, self._rng)))

    def _descend(self, frame: _Frame, now: float) -> bool:
        """Start the lookup of a name server's missing address; return False if there is no server left to look up."""
        if len(self._frames) > MAX_DEPTH or frame.lookups >= MAX_SERVER_LOOKUPS:
            return False
        busy = {each.qname for each in self._frames}
        for name, addresses in frame.servers.items():
            if not addresses and name not in frame.useless and name not in busy:
                known = self._addresses(name, now)
                if known:
                    frame.servers[name] = known
                    return True
                frame.lookups += 1
                self._frames.append(_Frame(name, rdtypes.A))
                return True
        return False

    def _finish_server(self, found: Resolved | None) -> None:
        """Finish a name server address lookup and pass the addresses to the lookup that needs them."""
        done = self._frames.pop()
        name = done.chain[0].records[0].name if done.chain else done.qname
        frame = self._frames[-1]
        entries = found.answer if found is not None else ()
        addresses = [_address(r) for entry in entries for r in entry.records if r.rdtype == rdtypes.A]
        if addresses:
            frame.servers[name] = addresses
        else:
            frame.useless[name] = "no address"

    # --- reply processing -------------------------------------------------------------------------------------------

    def _follow(self, frame: _Frame, answer: list[Record], rank: Rank, now: float) -> Outcome | None:
        """Process the requested RRset, or a CNAME and the records at its target; return None if there is neither."""
        outcome = None
        for _ in range(MAX_ALIASES):
            found = tuple(r for r in answer if r.name == frame.qname and r.rdtype == frame.qtype)
            if found:
                frame.result = _resolved(frame, self._cache.put(found, rank, now))
                return Outcome.ANSWER
            alias = next((r for r in answer if r.name == frame.qname and r.rdtype == rdtypes.CNAME), None)
            if alias is None:
                alias = self._synthesise(frame, answer, rank, now)
            if alias is None:
                return outcome
            frame.chain.append(self._cache.put([alias], rank, now))
            zone, servers = frame.zone, frame.servers
            self._restart(frame, Name(alias.rdata))
            if zone is not None and frame.qname.is_below(zone):  # the servers of this zone may also have the target
                frame.zone, frame.servers = zone, servers
            outcome = Outcome.ALIAS
        return outcome

    def _synthesise(self, frame: _Frame, answer: list[Record], rank: Rank, now: float) -> Record | None:
        """Cache a DNAME above the name and return the CNAME derived from it (RFC 6672 section 3.3)."""
        for each in answer:
            if each.rdtype == rdtypes.DNAME and frame.qname.is_below(each.name) and frame.qname != each.name:
                self._cache.put([each], rank, now)
                wire = frame.qname.wire[: len(frame.qname.wire) - len(each.name.wire)] + each.rdata
                if len(wire) <= 255:
                    return Record(frame.qname, rdtypes.CNAME, each.ttl, wire)
        return None

    def _deny(self, frame: _Frame, rcode: int, soa: Record | None, now: float) -> Outcome:
        # Without an SOA record the TTL is 0, and the cache does not store the answer (RFC 2308 section 5).
        ttl = _negative_ttl(soa) if soa is not None else 0
        rdtype = NO_NAME if rcode == NXDOMAIN else frame.qtype
        entry = self._cache.put_negative(frame.qname, rdtype, Negative(rcode, soa), ttl, now)
        frame.result = _resolved(frame, entry)
        return Outcome.NXDOMAIN if rcode == NXDOMAIN else Outcome.NODATA

    def _refer(self, frame: _Frame, asked: Name, authority: list[Record], additional: list[Record], now: float) -> bool:
        """Process a referral to a zone closer to the name *asked*; return False if the reply is not a referral."""
        zone = frame.zone or ROOT
        cuts = {
            r.name
            for r in authority
            if r.rdtype == rdtypes.NS
            and asked.is_below(r.name)
            and r.name != zone
            and r.name.is_below(zone)
            and not (frame.qtype == rdtypes.DS and r.name == frame.qname)
        }
        if not cuts:
            return False
        cut = max(cuts, key=lambda name: len(name.wire))
        records = [r for r in authority if r.rdtype == rdtypes.NS and r.name == cut]
        self._cache.put(records, Rank.REFERRAL, now)
        names = [Name(r.rdata) for r in records]
        glue: dict[tuple[Name, int], list[Record]] = {(n, rdtype): [] for rdtype in self._address_types for n in names}
        for record in additional:
            if (record.name, record.rdtype) in glue:
                glue[record.name, record.rdtype].append(record)
        frame.zone, frame.cached_cut, frame.servers = cut, False, {name: [] for name in names}
        for (name, _), group in glue.items():
            if group:
                self._cache.put(group, Rank.GLUE, now)
                frame.servers[name] += map(_address, group)
        for name, addresses in frame.servers.items():
            frame.servers[name] = addresses or self._addresses(name, now)
        frame.tried, frame.useless, frame.lookups = {}, {}, 0
        frame.whole, frame.below_cut = False, 0
        frame.referrals += 1
        return True


def _resolved(frame: _Frame, last: Entry) -> Resolved:
    """Return the result: the CNAMEs followed and the entry at the end of the chain."""
    if last.negative is not None:
        return Resolved(last.negative.rcode, tuple(frame.chain), last)
    return Resolved(NOERROR, (*frame.chain, last))


def _complaints(frame: _Frame) -> str:
    """Return the failure of each server, as text."""
    said = [f"{who}: {reason}" for who, reason in frame.useless.items()]
    said += [f"{address}: no reply" for address in frame.tried if address not in frame.useless]
    return f" ({', '.join(said)})" if said else ""


def _negative_ttl(soa: Record) -> int:
    """Return the lifetime of a negative answer in seconds (RFC 2308 section 5)."""
    return min(soa.ttl, int.from_bytes(soa.rdata[-4:], "big"))


def _address(record: Record) -> str:
    return str(ipaddress.ip_address(record.rdata))
