"""Tests for TSIG: comparison with dnspython and tsig-keygen, and every kind of invalid signature."""

import contextlib
import dataclasses
import struct
import subprocess
from pathlib import Path

import dns.message
import dns.name
import dns.rcode
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsmessage import Name, RemoteError, encode_query, rdtypes, tsig
from dnsmessage.keyfile import KeyFileError, load_keys, parse_keys
from dnsmessage.tsig import BADKEY, BADSIG, BADTIME, BADTRUNC, Key, Signer, TsigError, Verifier
from tests import judges

NOW = 1_800_000_000
KEY = Key(Name.from_text("Update.example."), Name.from_text("hmac-sha256."), b"secret of 32 bytes for the tests")
KEYS = {KEY.name: KEY}
SENT = encode_query(7, Name.from_text("www.example.com."), rdtypes.A)
RESPONSE = SENT[:2] + b"\x84\0" + SENT[4:]


def theirs(key: Key) -> dns.tsig.Key:
    return dns.tsig.Key(str(key.name), key.secret, str(key.algorithm))


def with_algorithm(text: str) -> Key:
    return dataclasses.replace(KEY, algorithm=Name.from_text(text))


@pytest.mark.parametrize("algorithm", sorted(map(str, tsig.ALGORITHMS)))
def test_dnspython_accepts_our_signature_and_we_accept_its_own(algorithm: str, monkeypatch) -> None:
    monkeypatch.setattr("time.time", lambda: float(NOW))
    key = with_algorithm(algorithm)
    ring = {dns.name.from_text(str(key.name)): theirs(key)}
    signed, mac = tsig.sign(SENT, key, NOW)
    query = dns.message.from_wire(signed, keyring=ring)
    assert query.had_tsig
    assert query.mac == mac
    response = dns.message.make_response(query)
    assert Verifier(key, mac).verify(response.to_wire(), NOW)[:2] == SENT[:2]

    asked = dns.message.make_query("www.example.com", "A")
    asked.use_tsig(theirs(key))
    checked = tsig.verify(asked.to_wire(), {key.name: key}, NOW)
    assert checked.key is key
    assert checked.mac == asked.mac
    reply = checked.wire[:2] + b"\x84\0" + checked.wire[4:]
    ours = Signer(key, checked.mac).sign(reply, NOW)
    assert dns.message.from_wire(ours, keyring=ring, request_mac=asked.mac).had_tsig


def test_a_stream_from_us_is_accepted_by_dnspython_and_by_our_verifier() -> None:
    _, mac = tsig.sign(SENT, KEY, NOW)
    signer, verifier = Signer(KEY, mac), Verifier(KEY, mac)
    context = None
    for number in range(5):
        wire = signer.sign(RESPONSE, NOW + number)
        assert verifier.verify(wire, NOW) == RESPONSE
        message = dns.message.from_wire(
            wire, keyring=False, request_mac=mac, tsig_ctx=context, multi=True, continue_on_error=True
        )
        assert message.tsig
        rdata, start = message.tsig[0], len(RESPONSE)
        context = dns.tsig.validate(wire, theirs(KEY), message.tsig.name, rdata, NOW, mac, start, context, multi=True)
    verifier.finish()


def stream_with_gaps(gaps: list[int]) -> tuple[bytes, list[bytes]]:
    """Return a request's MAC and a transfer that answers the request.

    The first message is signed. For each number in *gaps*, that many unsigned messages and one signed message follow.
    """
    _, mac = tsig.sign(SENT, KEY, NOW)
    signer, wires = Signer(KEY, mac), []
    wires.append(signer.sign(RESPONSE, NOW))
    for gap in gaps:
        plain = [RESPONSE] * gap
        wires += plain
        signed = tsig.Tsig(KEY.name, KEY.algorithm, NOW, 300, original_id=7)
        covered = tsig._prefixed(signer._mac) + b"".join(plain) + RESPONSE + signed.timers()
        wire, signer._mac = tsig._signed(RESPONSE, KEY, signed, covered)
        wires.append(wire)
    return mac, wires


def verify_all(verifier: Verifier, wires: list[bytes]) -> None:
    for wire in wires:
        verifier.verify(wire, NOW)


def test_up_to_99_unsigned_messages_between_two_signed_ones_are_accepted() -> None:
    mac, wires = stream_with_gaps([99, 0, 5])
    verifier = Verifier(KEY, mac)
    verify_all(verifier, wires)
    verifier.finish()
    mac, wires = stream_with_gaps([100])
    verifier = Verifier(KEY, mac)
    with pytest.raises(TsigError, match="expected a response signed"):
        verify_all(verifier, wires)


def test_a_stream_that_ends_unsigned_or_whose_unsigned_part_was_changed_fails() -> None:
    mac, wires = stream_with_gaps([3])
    verifier = Verifier(KEY, mac)
    verify_all(verifier, wires[:-1])
    with pytest.raises(TsigError, match="last message"):
        verifier.finish()
    verifier = Verifier(KEY, mac)
    wires[2] = wires[2][:-1] + b"\1"
    with pytest.raises(TsigError, match="is wrong"):
        verify_all(verifier, wires)


SHORT = dataclasses.replace(KEY, mac_size=16)


@pytest.mark.parametrize(
    ("signing", "checking", "at", "error"),
    [
        pytest.param(KEY, dataclasses.replace(KEY, secret=b"another"), NOW, BADSIG, id="wrong-secret"),
        pytest.param(dataclasses.replace(KEY, name=Name.from_text("other.")), KEY, NOW, BADKEY, id="unknown-key"),
        pytest.param(with_algorithm("hmac-sha512."), KEY, NOW, BADKEY, id="another-algorithm"),
        pytest.param(KEY, KEY, NOW + 3600, BADTIME, id="clock-an-hour-ahead"),
        pytest.param(KEY, KEY, NOW - 3600, BADTIME, id="clock-an-hour-behind"),
        pytest.param(SHORT, KEY, NOW, BADTRUNC, id="truncated-mac"),
    ],
)
def test_a_request_that_fails_gets_the_response_that_dnspython_reads(signing, checking, at, error) -> None:
    wire, mac = tsig.sign(SENT, signing, NOW)
    with pytest.raises(TsigError) as raised:
        tsig.verify(wire, {checking.name: checking}, at)
    assert raised.value.error == error
    response = tsig.refusal(wire, raised.value, at)
    message = dns.message.from_wire(response, keyring=False, continue_on_error=True)
    assert message.rcode() == dns.rcode.NOTAUTH
    assert message.question[0].name.to_text() == "www.example.com."
    assert message.tsig
    record = message.tsig[0]
    assert int(record.error) == error
    assert bool(record.mac) == (error in {BADTIME, BADTRUNC})
    if error == BADTIME:
        assert record.other == struct.pack("!HI", 0, at)
        assert record.time_signed == NOW
    with pytest.raises(TsigError, match=f"the server reports {tsig.ERRORS[error]}"):
        Verifier(signing if error != BADTRUNC else SHORT, mac).verify(response, NOW)


def test_a_key_with_short_macs_signs_and_accepts_them() -> None:
    wire, mac = tsig.sign(SENT, SHORT, NOW)
    assert len(mac) == 16
    assert tsig.verify(wire, {SHORT.name: SHORT}, NOW + 300).key == SHORT
    assert tsig.verify(tsig.sign(SENT, KEY, NOW)[0], {SHORT.name: SHORT}, NOW).key == SHORT


def test_an_unsigned_request_has_no_key() -> None:
    assert tsig.verify(SENT, KEYS, NOW) == tsig.Verified(SENT)


def test_a_forwarder_may_change_the_id_in_both_directions() -> None:
    wire, mac = tsig.sign(SENT, KEY, NOW)
    forwarded = b"\xff\xff" + wire[2:]
    checked = tsig.verify(forwarded, KEYS, NOW)
    assert checked.wire == b"\xff\xff" + SENT[2:], "the answer goes to the forwarder, with its ID"
    answer = Signer(KEY, checked.mac).sign(b"\xff\xff" + RESPONSE[2:], NOW)
    assert Verifier(KEY, mac).verify(wire[:2] + answer[2:], NOW) == RESPONSE
    with pytest.raises(TsigError) as raised:
        tsig.verify(forwarded, KEYS, NOW + 3600)
    late = tsig.refusal(forwarded, raised.value, NOW + 3600)
    with pytest.raises(TsigError, match="the server reports BADTIME"):
        Verifier(KEY, mac).verify(wire[:2] + late[2:], NOW)


@given(st.integers(0, 200), st.integers(0, 255), st.booleans())
def test_no_changed_byte_passes_and_only_remote_errors_are_raised(at: int, value: int, cut: bool) -> None:
    wire, _ = tsig.sign(SENT, KEY, NOW)
    at %= len(wire)
    changed = wire[:at] if cut else wire[:at] + bytes([value]) + wire[at + 1 :]
    try:
        checked = tsig.verify(changed, KEYS, NOW)
    except RemoteError:
        return
    # Not covered by the signature: the ID, the case of names in the TSIG record, and counts that hide the record.
    assert checked.key is None or checked.wire[2:] == SENT[2:]


@given(st.binary(max_size=300))
def test_any_bytes_split_or_raise_a_remote_error(wire: bytes) -> None:
    with contextlib.suppress(RemoteError):
        tsig.split(wire)


def test_a_file_from_tsig_keygen_is_read(tmp_path: Path) -> None:
    command = judges.command("tsig-keygen", "-a", "hmac-sha512", "a.key.example")
    path = tmp_path / "key"
    with path.open("wb") as file:
        subprocess.run(command, stdout=file, check=True)
    ((name, key),) = load_keys(path).items()
    assert (str(name), key.full, len(key.secret)) == ("a.key.example.", 64, 64)


def test_comments_and_several_keys_are_read() -> None:
    keys = parse_keys(
        '# one\nkey "a" { algorithm hmac-md5; secret "c2VjcmV0"; };\n'
        "/* two */ key b. {\n\tsecret c2VjcmV0; // bits\n\talgorithm HMAC-SHA256-128;\n};\n".replace("HMAC", "hmac")
    )
    assert [(str(key.name), str(key.algorithm), key.mac_size) for key in keys.values()] == [
        ("a.", "hmac-md5.sig-alg.reg.int.", 0), ("b.", "hmac-sha256.", 16)
    ]  # fmt: skip
    assert "c2VjcmV0" not in repr(keys)
    assert "secret" not in repr(keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected key"),
        ('key "a" { algorithm hmac-sha256; };', "expected one algorithm and one secret in key a"),
        ('key "a" { algorithm hmac-sha3; secret "c2VjcmV0"; };', "expected an algorithm of hmac-md5, hmac-sha1"),
        ('key "a" { algorithm hmac-sha256-64; secret "c2VjcmV0"; };', "at least half"),
        ('key "a" { algorithm hmac-sha256; secret "c2V"; };', "in key a"),
        ('key "a" { algorithm hmac-sha256; secret "c2VjcmV0"; };\nzone "b" {};', "<text>:2: expected key"),
    ],
    ids=["empty", "no-secret", "unknown-algorithm", "too-short-macs", "not-base64", "another-statement"],
)
def test_a_bad_key_file_is_refused_without_showing_a_secret(text: str, message: str) -> None:
    with pytest.raises(KeyFileError) as error:
        parse_keys(text)
    assert message in str(error.value)
    assert "c2V" not in str(error.value)
