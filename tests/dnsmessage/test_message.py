"""Tests for the message codec: comparison with dnspython, and malformed messages."""

import struct
import time

import dns.edns
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsmessage import (
    MismatchError,
    Name,
    RemoteError,
    Writer,
    decode_query,
    decode_reply,
    encode_query,
    error_response,
    rdtypes,
)

QNAME = Name.from_text("www.example.com.")
SENT = encode_query(7, QNAME, rdtypes.A)
POINTER = b"\xc0\x0c"


def reply(records: list[bytes], flags: int = 0x8400, counts: tuple[int, int, int] | None = None) -> bytes:
    an, ns, ar = counts or (len(records), 0, 0)
    return struct.pack("!6H", 7, flags, 1, an, ns, ar) + SENT[12:-11] + b"".join(records)


def record(owner: bytes, rdtype: int, rdata: bytes, ttl: int = 60) -> bytes:
    return owner + struct.pack("!HHIH", rdtype, 1, ttl, len(rdata)) + rdata


LABEL = st.binary(min_size=1, max_size=12)
NAMES = st.lists(LABEL, max_size=4).map(lambda labels: dns.name.Name([*labels, b"example", b"com", b""]))
RDATA = st.one_of(
    st.ip_addresses(v=4).map(lambda a: ("A", str(a))),
    NAMES.map(lambda n: ("NS", n.to_text())),
    NAMES.map(lambda n: ("MX", f"7 {n.to_text()}")),
    NAMES.map(lambda n: ("SRV", f"1 2 3 {n.to_text()}")),
    NAMES.map(lambda n: ("SOA", f"{n.to_text()} hm.example.com. 1 2 3 4 5")),
    st.binary(max_size=30).map(lambda b: ("TYPE65280", f"\\# {len(b)} {b.hex()}")),
)


@given(st.lists(st.tuples(NAMES, RDATA, st.integers(0, 2**31 - 1)), max_size=8))
def test_what_dnspython_encodes_reads_the_same_and_back(entries) -> None:
    made = dns.message.make_response(dns.message.from_wire(SENT))
    expected = []
    for owner, (mnemonic, text), ttl in entries:
        made.answer.append(rrset := dns.rrset.from_text(owner, ttl, "IN", mnemonic, text))
        expected.append((owner.to_wire(), int(rrset.rdtype), ttl, rrset[0].to_wire()))
    message = decode_reply(SENT, made.to_wire())
    assert [(r.name.wire, r.rdtype, r.ttl, r.rdata) for r in message.answer] == expected
    writer = Writer(SENT[12:-11], QNAME)
    for each in message.answer:
        writer.record(each.name, each.rdtype, each.ttl, each.rdata)
    again = struct.pack("!6H", 7, 0x8000, 1, len(message.answer), 0, 0) + SENT[12:-11] + bytes(writer.body)
    assert decode_reply(SENT, again).answer == message.answer
    theirs = dns.message.from_wire(again, one_rr_per_rrset=True)
    assert [(r.name.to_wire(), int(r.rdtype), r.ttl, r[0].to_wire()) for r in theirs.answer] == expected


@given(NAMES, st.sampled_from([1, 15, 65280]), st.booleans())
def test_a_query_reads_back(name: dns.name.Name, qtype: int, edns: bool) -> None:
    made = dns.message.make_query(
        name, dns.rdatatype.RdataType.make(qtype), use_edns=0 if edns else -1, want_dnssec=edns, id=9
    )
    query = decode_query(made.to_wire())
    assert (query.qname.labels, query.qtype, query.qclass) == (name.labels[:-1], qtype, 1)
    assert (query.edns is not None and query.edns.dnssec_ok) == edns
    sent = dns.message.from_wire(encode_query(9, query.qname, qtype, recursive=True, edns=edns))
    assert (sent.id, sent.question[0].name, sent.question[0].rdtype, sent.edns) == (9, name, qtype, 0 if edns else -1)


@given(st.binary(max_size=120), st.integers(0, 90))
def test_any_bytes_are_a_message_or_a_remote_error(noise: bytes, at: int) -> None:
    wire = bytearray(reply([record(POINTER, 15, b"\0\1\4mail" + POINTER), record(POINTER, 6, POINTER * 2 + bytes(20))]))
    wire[12 + at : 12 + at + len(noise)] = noise
    for received in (bytes(wire), reply([noise], counts=(at, 1, 1)), noise):
        try:
            decode_reply(SENT, received)
        except RemoteError:
            continue


@given(st.binary(min_size=12, max_size=120))
def test_any_bytes_are_a_query_or_get_an_error_that_reads_back(data: bytes) -> None:
    wire = data[:2] + bytes([data[2] & 0x7F]) + data[3:]
    try:
        decode_query(wire)
        rcode = 2
    except RemoteError as error:
        rcode = error.rcode
    answer = error_response(wire, rcode)
    assert (answer[:2], answer[2] & 0x80, answer[3] & 0xF) == (wire[:2], 0x80, rcode)


@pytest.mark.parametrize(
    ("received", "error"),
    [
        pytest.param(b"\0\x08" + reply([])[2:], MismatchError, id="other-id"),
        pytest.param(reply([]).replace(b"\x03www", b"\x03xww"), MismatchError, id="other-name"),
        pytest.param(reply([])[:-3] + b"\x1c\0\1", MismatchError, id="other-type"),
        pytest.param(reply([record(b"\xc0\xff", 1, bytes(4))]), RemoteError, id="pointer-forwards"),
        pytest.param(reply([record(b"\xc0\x22", 1, bytes(4))]), RemoteError, id="pointer-to-itself"),
        pytest.param(reply([record(b"\xc0\x02", 1, bytes(4))]), RemoteError, id="pointer-into-the-header"),
        pytest.param(reply([record(POINTER, 28, bytes(4))]), RemoteError, id="aaaa-of-4-bytes"),
        pytest.param(reply([record(POINTER, 2, POINTER + b"x")]), RemoteError, id="ns-with-a-rest"),
        pytest.param(reply([record(POINTER, 6, POINTER * 2 + b"x")]), RemoteError, id="soa-without-numbers"),
        pytest.param(reply([], counts=(1, 0, 0)), RemoteError, id="record-missing"),
        pytest.param(
            reply([record(b"\x3f" + b"x" * 63 + POINTER, 1, bytes(4))] * 1
                  + [record((b"\x3f" + b"x" * 63) * 4 + b"\0", 1, bytes(4))]),
            RemoteError, id="long-name",
        ),
    ],
)  # fmt: skip
def test_replies_that_are_refused(received: bytes, error: type[RemoteError]) -> None:
    with pytest.raises(error) as raised:
        decode_reply(SENT, received)
    assert type(raised.value) is error


def test_opaque_rdata_is_kept_as_it_came() -> None:
    message = decode_reply(SENT, reply([record(POINTER, 257, b"\0\5issue\xff\xfe"), record(POINTER, 65280, b"")]))
    assert [r.rdata for r in message.answer] == [b"\0\5issue\xff\xfe", b""]


@pytest.mark.parametrize("rdtype", [18, 21, 36, 39, 30, 7], ids=["AFSDB", "RT", "KX", "DNAME", "NXT", "MB"])
def test_names_in_copied_rdata_are_decompressed(rdtype: int) -> None:
    prefix = b"\0\1" if rdtype in {18, 21, 36} else b""
    message = decode_reply(SENT, reply([record(POINTER, rdtype, prefix + POINTER)]))
    assert message.answer[0].rdata == prefix + QNAME.wire


def test_an_error_of_twelve_bytes_is_the_servers_reply() -> None:
    assert decode_reply(SENT, b"\0\7\x80\x01" + bytes(8)).rcode == 1


def test_ttls_beyond_31_bits_are_0() -> None:
    assert decode_reply(SENT, reply([record(POINTER, 1, bytes(4), 1 << 31)])).answer[0].ttl == 0


def test_a_chain_of_pointers_is_refused_and_costs_milliseconds() -> None:
    start = 12 + len(SENT[12:-11]) + 12
    chain = b"\0"
    for _ in range(900):
        chain += struct.pack("!H", 0xC000 | (start if len(chain) == 1 else start + len(chain) - 2))
    end = struct.pack("!H", 0xC000 | (start + len(chain) - 2))
    wire = reply([record(POINTER, 65280, chain)] + [record(end, 1, b"\1\2\3\4")] * 3900)
    began = time.process_time()
    with pytest.raises(RemoteError):
        decode_reply(SENT, wire)
    assert time.process_time() - began < 0.1


def test_a_full_message_decodes_in_linear_time() -> None:
    def cost(count: int) -> float:
        wire = reply([record(POINTER, 1, bytes(4))] * count)
        times = []
        for _ in range(5):
            began = time.process_time()
            assert len(decode_reply(SENT, wire).answer) == count
            times.append(time.process_time() - began)
        return min(times)

    assert cost(4000) < 40 * cost(400)
    with pytest.raises(RemoteError, match="expected at most 4096 records"):
        decode_reply(SENT, reply([record(POINTER, 1, b"")] * 4097))


def test_labels_split_over_many_pointers_are_read_once_each() -> None:
    """Each owner name consists of one label and a pointer to the previous owner name."""
    records, at = [], 12 + len(SENT[12:-11])
    before = POINTER
    for _ in range(100):
        records.append(record(b"\1x" + before, 1, bytes(4)))
        before = struct.pack("!H", 0xC000 | at)
        at += len(records[-1])
    message = decode_reply(SENT, reply(records))
    assert len(message.answer[-1].name.labels) == 103


def test_names_beyond_16_kib_are_written_without_a_pointer_to_them() -> None:
    writer = Writer(SENT[12:-11], QNAME)
    for i in range(2000):
        writer.record(
            QNAME, rdtypes.MX, 60, struct.pack("!H", i) + Name.from_text(f"host-{i}.b{i // 2}.example.com.").wire
        )
    wire = struct.pack("!6H", 7, 0x8000, 1, 2000, 0, 0) + SENT[12:-11] + bytes(writer.body)
    (rrset,) = dns.message.from_wire(wire).answer
    assert {each.exchange.to_text() for each in rrset} == {f"host-{i}.b{i // 2}.example.com." for i in range(2000)}


def test_ixfr_may_carry_its_soa() -> None:
    wire = struct.pack("!6H", 5, 0, 1, 0, 1, 0) + QNAME.wire + struct.pack("!HH", 251, 1)
    assert decode_query(wire + record(POINTER, 6, b"\0\0" + bytes(20))).qtype == rdtypes.IXFR
    with pytest.raises(RemoteError):
        decode_query(wire[:-4] + struct.pack("!HH", 1, 1) + record(POINTER, 6, b"\0\0" + bytes(20)))


def test_an_opcode_that_is_not_known_is_answered_with_edns() -> None:
    wire = bytearray(SENT)
    wire[2] |= 0x78
    with pytest.raises(RemoteError) as error:
        decode_query(bytes(wire))
    answer = dns.message.from_wire(error_response(bytes(wire), error.value.rcode))
    assert (answer.rcode(), answer.edns) == (4, 0)
