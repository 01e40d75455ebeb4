"""Tests for reading zone transfers: whole zones, changes, and every kind of malformed stream."""

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsmessage import Name
from nameserver import inbound, parse
from nameserver.inbound import Changes, Inbound, TransferError, UpToDate, Whole, encode_transfer_query
from nameserver.zone import Zone

APEX = Name.from_text("example.")
OURS = "$TTL 60\n@ IN SOA ns hm 5 60 30 600 10\n@ IN NS ns\nns IN A 192.0.2.1\nold IN A 192.0.2.2\n"


def soa(serial: int) -> str:
    return f"example. 60 IN SOA ns.example. hm.example. {serial} 60 30 600 10"


NS, HOST, OLD = "example. 60 IN NS ns.example.", "ns.example. 60 IN A 192.0.2.1", "old.example. 60 IN A 192.0.2.2"
NEW, MORE = "new.example. 60 IN A 192.0.2.3", "more.example. 60 IN MX 10 new.example."


def message(*records: str, rcode: str = "NOERROR", ident: int = 7, question: str = "") -> bytes:
    """Return one message of an answer, encoded by dnspython with compressed names."""
    made = dns.message.Message(id=ident)
    made.flags = dns.flags.QR | dns.flags.AA
    made.set_rcode(dns.rcode.from_text(rcode))
    if question:
        made.question.append(dns.rrset.from_text(question, 0, "IN", "AXFR"))
    for each in records:
        name, ttl, rdclass, rdtype, rdata = each.split(" ", 4)
        made.answer.append(dns.rrset.from_text(name, int(ttl), rdclass, rdtype, rdata))
    return made.to_wire(max_size=65_535)


def reading(have: str = OURS) -> Inbound:
    zone = parse("example.", have)
    return Inbound(encode_transfer_query(7, APEX, zone.soa.rdata[0]), APEX, zone.serial)


def result(*messages: bytes, reader: Inbound | None = None) -> Zone | int:
    """Feed *messages*; return the new zone, or the primary's serial number if our zone is up to date."""
    reader = reader or reading()
    done = [reader.feed(each) for each in messages]
    assert done == [False] * (len(messages) - 1) + [True]
    match reader.result:
        case UpToDate(serial):
            return serial
        case Whole(builder):
            return builder.zone()
        case Changes(changes):
            zone = parse("example.", OURS)
            for change in changes:
                zone = zone.apply(change)
            return zone
    raise AssertionError(reader)


WHOLE = (soa(7), NS, HOST, NEW, MORE, soa(7))
ONE_CHANGE = (soa(6), soa(5), OLD, soa(6), NEW, soa(6))
TWO_CHANGES = (soa(7), soa(5), OLD, soa(6), NEW, soa(6), soa(7), MORE, soa(7))


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        pytest.param(WHOLE, {"ns", "new", "more"}, id="whole-zone"),
        pytest.param(ONE_CHANGE, {"ns", "new"}, id="one-change"),
        pytest.param(TWO_CHANGES, {"ns", "new", "more"}, id="two-changes"),
        pytest.param((soa(6), soa(5), soa(6), soa(6)), {"ns", "old"}, id="only-the-serial-changes"),
    ],
)
def test_a_stream_gives_the_same_zone_in_one_message_or_many(records: tuple[str, ...], expected: set[str]) -> None:
    for messages in ([message(*records)], [message(each) for each in records]):
        zone = result(*messages)
        assert isinstance(zone, Zone)
        assert {str(rrset.name).partition(".")[0] for rrset in zone} == expected | {"example"}
        assert zone.serial == int(records[0].split()[6])


@pytest.mark.parametrize("serial", [5, 4, 5 + 2**31 + 1])
def test_a_single_soa_that_is_not_newer_means_up_to_date(serial: int) -> None:
    assert result(message(soa(serial))) == serial


def test_a_serial_that_wraps_is_newer() -> None:
    have = OURS.replace(" 5 60", f" {2**32 - 1} 60")
    reader = reading(have)
    assert not reader.feed(message(soa(1)))
    assert isinstance(result(message(NS, HOST, soa(1)), reader=reader), Zone)


def test_an_axfr_query_accepts_no_changes() -> None:
    reader = Inbound(encode_transfer_query(7, APEX, None), APEX, None)
    with pytest.raises(TransferError, match="expected serial 6 again, got 5"):
        reader.feed(message(*ONE_CHANGE))


MALFORMED = [
    pytest.param([message(rcode="REFUSED")], "expected NOERROR, got REFUSED", id="refused"),
    pytest.param([message(soa(7), ident=8)], "expected a reply to this query", id="another-id"),
    pytest.param([message(soa(7), question="other.")], "expected a reply to this question", id="another-question"),
    pytest.param([message(NS)], "expected SOA as the first record, got NS at example.", id="no-soa"),
    pytest.param([message(soa(7), "a.test. 60 IN A 192.0.2.1")], "expected data of example., got A at a.test.",
                 id="another-zone"),
    pytest.param([message(soa(7), NS, "a." + soa(7))], "expected SOA at example. only", id="soa-below"),
    pytest.param([message(soa(7), NS, soa(8))], "expected serial 7 again, got 8", id="changed-meanwhile"),
    pytest.param([message(*WHOLE, NEW)], "expected nothing after the last SOA, got A at new.example.", id="trailing"),
    pytest.param([message(soa(7), soa(4), OLD)], "expected changes from serial 5, got them from 4", id="wrong-base"),
    pytest.param([message(soa(9), soa(5), OLD, soa(6), NEW, soa(7))], "expected a change from serial 6, got one from 7",
                 id="gap"),
    pytest.param([message(soa(7))[:-4]], "message 1: a record is cut short", id="cut-short"),
    pytest.param([b"\0\7\x80\0\0\0\xff\xff\0\0\0\0"], "message 1: a message of the transfer is cut short", id="counts"),
    pytest.param([b"\0\7"], "message 1: expected a reply to this query", id="two-bytes"),
    pytest.param([message(soa(7), NS), *[message()] * 101], "messages without a record", id="endless"),
    pytest.param([message(soa(7), "a.example. 60 CH TXT text")], "expected records of class IN, got class 3",
                 id="chaos"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "error"), MALFORMED)
def test_a_malformed_stream_is_an_error_that_says_why(messages: list[bytes], error: str) -> None:
    reader = reading()
    for each in messages[:-1]:
        assert not reader.feed(each)
    with pytest.raises(TransferError) as raised:
        reader.feed(messages[-1])
    assert error in str(raised.value)
    assert reader.result is None or "nothing after" in error


@pytest.mark.parametrize(("limit", "value"), [("MAX_RECORDS", 3), ("MAX_BYTES", 100)])
def test_a_transfer_is_bounded(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(inbound, limit, value)
    with pytest.raises(TransferError, match=f"expected at most {value}"):
        result(message(*WHOLE))


@given(st.data())
def test_any_damage_to_a_stream_is_either_harmless_or_a_transfer_error(data: st.DataObject) -> None:
    wire = bytearray(message(*data.draw(st.sampled_from([WHOLE, ONE_CHANGE, TWO_CHANGES]))))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    reader = reading()
    try:
        reader.feed(bytes(wire[: data.draw(st.integers(0, len(wire)))]))
    except TransferError:
        assert not isinstance(reader.result, UpToDate)
