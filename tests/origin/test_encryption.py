"""Tests for encryption at rest (notes) and end to end (letters): stored bytes, and detection of tampering."""

import asyncio
import contextlib
import http.client
import json
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from origin import correspondent, notes
from origin.correspondent import CorrespondentError, Server, publish, receive, send, views
from origin.keyring import Keyring, KeyringError, Sealed, TamperedError
from origin.sealing import SUITE, SealError, fingerprint, open_, seal, trusted
from tests.acme_server.conftest import site
from tests.origin.conftest import Client
from tests.origin.processes import Process, running

SECRET = "nobody but us may read this"
PLAIN = {"content_type": "text/plain"}


# --- the keyring ------------------------------------------------------------------------------------------------------


def ring(path: Path | None = None) -> Keyring:
    made = Keyring(path)
    made.create()
    return made


RING = ring()


@given(st.binary(), st.text(min_size=1).filter(lambda text: text.isprintable()), st.text(min_size=1), st.data())
def test_a_ciphertext_opens_only_unchanged_and_under_its_own_identity(text, identity, other, data) -> None:
    sealed = RING.seal(text, identity)
    assert RING.open(sealed, identity) == text
    assert len(sealed.data) == len(text) + 16
    at = data.draw(st.integers(0, len(sealed.data) - 1))
    flipped = bytearray(sealed.data)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    wrong = [
        (Sealed(sealed.key_id, sealed.nonce, bytes(flipped)), identity),
        (Sealed(sealed.key_id, sealed.nonce[::-1] + b"x", sealed.data), identity),
        (Sealed("0" * 16, sealed.nonce, sealed.data), identity),
        (Sealed(sealed.key_id, b"", sealed.data), identity),
        (Sealed(sealed.key_id, sealed.nonce, sealed.data[:-1]), identity),
        *([(sealed, other)] if other != identity else []),
    ]
    for each, name in wrong:
        with pytest.raises(TamperedError):
            RING.open(each, name)


def test_the_same_text_never_encrypts_to_the_same_bytes() -> None:
    assert len({RING.seal(b"x", "a").data for _ in range(1000)}) == 1000


def test_the_file_is_private_and_survives_rotation(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first = ring(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    old = first.seal(b"old", "a")
    second = Keyring(path)
    second.rotate()
    assert second.open(old, "a") == b"old"
    with pytest.raises(TamperedError, match="there is no key"):
        first.open(second.seal(b"new", "a"), "a")
    first.refresh()
    assert first.current == second.current
    assert first.retire({old.key_id}) == []
    assert first.retire(set()) == [old.key_id]
    with pytest.raises(TamperedError):
        Keyring(path).open(old, "a")


@pytest.mark.parametrize(
    "content",
    [
        "", "{}", "[]", '{"current": "a", "keys": {}}', '{"current": "a", "keys": {"a": "AAAA"}}', "\udcff",
        json.dumps({"current": "0" * 16, "keys": {"0" * 16: "A" * 43 + "="}}),
    ],
)  # fmt: skip
def test_a_bad_key_file_is_refused_and_changes_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    known = ring(path)
    sealed = known.seal(b"x", "a")
    path.unlink()
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(KeyringError, match="expected keys of 32 bytes"):
        Keyring(path)
    with pytest.raises(KeyringError):
        known.refresh()
    assert known.open(sealed, "a") == b"x"


# --- notes ------------------------------------------------------------------------------------------------------------


async def test_the_database_holds_an_item_in_clear_and_a_note_encrypted(ask: Client) -> None:
    assert (await ask("PUT", "/items/a", {"name": "a", "text": SECRET + " item"})).status == 201
    put = await ask("PUT", "/notes/a", (SECRET + " note").encode(), **PLAIN)
    assert put.status == 201
    got = await ask("GET", "/notes/a")
    assert (got.body.decode(), got.fields["etag"]) == (SECRET + " note", put.fields["etag"])
    dump = await ask.database.dump()
    assert f"{SECRET} item".encode() in dump
    assert f"{SECRET} note".encode() not in dump
    stored = await ask.database.read(lambda db: notes.load(db, "a"))
    assert stored is not None
    assert stored.data in dump
    raw_keys = json.loads(Path(str(ask.notes.keyring.path)).read_text())["keys"].values()
    assert not any(key.encode() in dump for key in raw_keys)


async def test_rows_that_are_swapped_or_copied_in_the_database_are_noticed(ask: Client) -> None:
    for name in ("mine", "yours"):
        await ask("PUT", f"/notes/{name}", name.encode(), **PLAIN)
    await ask.database.write(
        lambda db: db.executescript(
            "CREATE TEMP TABLE t AS SELECT * FROM note;"
            "UPDATE note SET (key_id, nonce, sealed) = (SELECT key_id, nonce, sealed FROM t WHERE t.id != note.id);"
            "INSERT INTO note SELECT 'copy', key_id, nonce, sealed FROM t WHERE id = 'mine';"
            "BEGIN"
        )
    )
    for name in ("mine", "yours", "copy"):
        answer = await ask("GET", f"/notes/{name}")
        assert (answer.status, b"mine" in answer.body and b"yours" in answer.body) == (500, False)
        assert "cannot be trusted" in answer.json["detail"]
    assert (await ask("PUT", "/notes/mine", b"again", **PLAIN)).status == 204
    assert (await ask("GET", "/notes/mine")).body == b"again"


async def test_notes_have_preconditions_ranges_and_a_limit(ask: Client) -> None:
    tag = (await ask("PUT", "/notes/a", b"0123456789", if_none_match="*", **PLAIN)).fields["etag"]
    assert (await ask("PUT", "/notes/a", b"x", if_none_match="*", **PLAIN)).status == 412
    assert (await ask("GET", "/notes/a", if_none_match=tag)).status == 304
    assert (await ask("GET", "/notes/a", range="bytes=2-3")).body == b"23"
    assert (await ask("PUT", "/notes/a", bytes(65_537), **PLAIN)).status == 413
    assert (await ask("PUT", "/notes/a%20b", b"x", **PLAIN)).status == 400
    assert (await ask("DELETE", "/notes/a", if_match='"x"')).status == 412
    assert (await ask("DELETE", "/notes/a", if_match=tag)).status == 204
    assert (await ask("DELETE", "/notes/a")).status == 404
    assert (await ask("GET", "/notes/a")).status == 404


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    with running(tmp_path, "one") as one, running(tmp_path, "two") as two:
        yield one, two


def test_the_tap_shows_what_the_origin_receives_in_clear_and_what_not(pair) -> None:
    one, _ = pair
    server = Server(f"http://127.0.0.1:{one.port}", None)
    put_note(one, "before", SECRET)
    one.call("POST", "/admin/tap", {"seconds": 30})
    put_note(one, "during", SECRET)
    _, sealed, _ = send(server, "bob", publish(server, "bob", BOB), SECRET.encode())
    link = http.client.HTTPConnection("127.0.0.1", one.port, timeout=5)
    link.request("PUT", "/notes/chunked", iter([b"in two", b" chunks"]), encode_chunked=True)
    assert link.getresponse().status == 201
    link.close()
    report = one.call("DELETE", "/admin/tap")
    put_note(one, "after", SECRET)
    taken = {each["where"].split("/")[-1]: bytes.fromhex(each["hex"]) for each in report["records"]}
    assert taken.pop("key") == BOB.public_key().public_bytes_raw()
    assert taken.pop("during") == SECRET.encode()
    assert taken.pop("chunked") == b"in two chunks"
    assert list(taken.values()) == [sealed]
    assert one.call("GET", "/admin/tap")["records"] == report["records"]


def put_note(origin: Process, name: str, text: str) -> None:
    Server(f"http://127.0.0.1:{origin.port}", None).ask("PUT", f"/notes/{name}", text.encode(), "text/plain")


def get_note(origin: Process, name: str) -> str:
    return Server(f"http://127.0.0.1:{origin.port}", None).ask("GET", f"/notes/{name}").body.decode()


def test_a_rotation_reencrypts_every_note_and_the_other_process_follows(pair, tmp_path: Path) -> None:
    one, two = pair
    for number in range(20):
        put_note((one, two)[number % 2], f"n{number}", f"text {number}")
    before = {number: one.call("GET", f"/admin/notes/n{number}") for number in range(20)}
    assert len({each["key_id"] for each in before.values()}) == 1, "both processes created one key"
    rotated = two.call("POST", "/admin/keys/rotate")
    assert (rotated["notes"], rotated["retired"]) == (20, [before[0]["key_id"]])
    assert one.call("GET", "/admin/keys") == {"current": rotated["current"], "keys": [rotated["current"]]}
    for number in range(20):
        assert get_note(one, f"n{number}") == f"text {number}"
        after = one.call("GET", f"/admin/notes/n{number}")
        assert after["key_id"] == rotated["current"]
        assert after["sealed"] != before[number]["sealed"]
    put_note(one, "later", "x")
    assert get_note(two, "later") == "x"
    assert one.call("GET", "/admin/notes/later")["key_id"] == rotated["current"]


def test_notes_written_while_keys_rotate_stay_readable(pair) -> None:
    one, two = pair
    for number in range(12):
        put_note(one, f"n{number}", "a")
        two.call("POST", "/admin/keys/rotate")
        put_note(one, f"m{number}", "b")
    assert {get_note(two, f"n{number}") for number in range(12)} == {"a"}
    assert {get_note(two, f"m{number}") for number in range(12)} == {"b"}


# --- letters ----------------------------------------------------------------------------------------------------------

#: Test vector of RFC 9180 appendix A.1.1 for our cipher suite: base mode, sequence number 0.
RFC_PRIVATE = "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"
RFC_ENC = "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
RFC_CT = "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"


def test_the_test_vector_of_rfc_9180_opens() -> None:
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(RFC_PRIVATE))
    # The vector has associated data, which the library's public one-shot API does not accept.
    text = openssl.hpke._decrypt_with_aad(
        SUITE, bytes.fromhex(RFC_ENC + RFC_CT), private, b"Ode on a Grecian Urn", b"Count-0"
    )
    assert text == b"Beauty is truth, truth beauty"


BOB = X25519PrivateKey.generate()


@given(st.binary(max_size=100), st.data())
def test_a_letter_opens_only_unchanged_for_its_recipient_in_its_mailbox(text: bytes, data: st.DataObject) -> None:
    sealed = seal(text, BOB.public_key(), "bob", "1")
    assert open_(sealed, BOB, "bob", "1") == text
    assert text not in sealed or len(text) < 4
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + bytes([sealed[at] ^ (1 << data.draw(st.integers(0, 6)))]) + sealed[at + 1 :]
    for wrong, private, mailbox, letter in (
        (changed, BOB, "bob", "1"),
        (sealed[: data.draw(st.integers(0, len(sealed) - 1))], BOB, "bob", "1"),
        (sealed, X25519PrivateKey.generate(), "bob", "1"),
        (sealed, BOB, "eve", "1"),
        (sealed, BOB, "bob", "2"),
    ):
        with pytest.raises(SealError):
            open_(wrong, private, mailbox, letter)


def test_a_key_is_trusted_by_its_fingerprint_only() -> None:
    public = BOB.public_key().public_bytes_raw()
    assert trusted(public, fingerprint(public).upper()).public_bytes_raw() == public
    for wrong in (bytes(32), public[:-1], public + b"x"):
        with pytest.raises(SealError):
            trusted(wrong, fingerprint(public))


async def test_a_letter_reaches_its_recipient_and_no_server_holds_its_text(ask: Client) -> None:
    server = Server(ask.base, None)

    def talk() -> tuple[str, bytes, dict[str, bytes]]:
        known = publish(server, "bob", BOB)
        letter, sealed, _ = send(server, "bob", known, SECRET.encode())
        return letter, sealed, receive(server, "bob", BOB)

    letter, sealed, letters = await asyncio.to_thread(talk)
    assert letters == {letter: SECRET.encode()}
    dump = await ask.database.dump()
    assert sealed in dump
    assert SECRET.encode() not in dump
    assert BOB.private_bytes_raw() not in dump


async def test_a_server_that_publishes_its_own_key_gets_no_letter() -> None:
    asked: list[str] = []

    async def lies(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.Response(body=X25519PrivateKey.generate().public_key().public_bytes_raw())

    application = web.Application()
    application.router.add_route("*", "/{any:.*}", lies)
    async with site(application) as port:
        known = fingerprint(BOB.public_key().public_bytes_raw())
        with pytest.raises(SealError, match="expected a key with the fingerprint"):
            await asyncio.to_thread(send, Server(f"http://127.0.0.1:{port}", None), "bob", known, b"hello")
    assert asked == ["GET"]


async def test_keys_and_letters_are_written_once(ask: Client) -> None:
    octets = {"content_type": "application/octet-stream"}
    assert (await ask("PUT", "/mailbox/bob/key", bytes(31), **octets)).status == 422
    assert (await ask("PUT", "/mailbox/bob/letters/1", b"x", **octets)).status == 404
    assert [(await ask("PUT", "/mailbox/bob/key", bytes(32), **octets)).status for _ in range(2)] == [201, 204]
    assert (await ask("PUT", "/mailbox/bob/key", b"x" * 32, **octets)).status == 409
    assert (await ask("GET", "/mailbox/bob/key")).body == bytes(32)
    assert [(await ask("PUT", "/mailbox/bob/letters/1", b"x", **octets)).status for _ in range(2)] == [201, 204]
    assert (await ask("PUT", "/mailbox/bob/letters/1", b"y", **octets)).status == 409
    assert (await ask("PUT", "/mailbox/bob/letters/2", bytes(65_537), **octets)).status == 413
    assert (await ask("GET", "/mailbox/bob/letters")).json == {"letters": ["1"]}
    assert (await ask("DELETE", "/mailbox/bob/letters/1")).status == 204
    assert (await ask("GET", "/mailbox/bob/letters/1")).status == 404
    assert (await ask("GET", "/mailbox/none/key")).status == 404
    assert (await ask("GET", "/mailbox/a%00b/key")).status == 400


def test_the_command_line_sends_and_receives(tmp_path: Path, capsys, monkeypatch) -> None:
    with running(tmp_path, "one") as origin:
        common = ["--url", f"http://127.0.0.1:{origin.port}", "--trust", str(tmp_path / "none")]
        assert correspondent.main(["publish", "bob", "--key", "k", *common]) == 1
        assert "expected root certificates in PEM" in capsys.readouterr().err
        monkeypatch.setattr(correspondent, "TRUST_ANCHOR", None)
        common = common[:2]
        key = str(tmp_path / "bob.key")
        assert correspondent.main(["keygen", "--key", key]) == 0
        known = capsys.readouterr().out.strip()
        assert stat.S_IMODE(Path(key).stat().st_mode) == 0o600
        assert correspondent.main(["keygen", "--key", key]) == 1, "a key is not overwritten"
        assert capsys.readouterr().err == f"correspondent: error: {key}: File exists\n"
        assert correspondent.main(["publish", "bob", "--key", key, *common]) == 0
        capsys.readouterr()
        with Path(__file__).open(encoding="utf-8") as text:
            monkeypatch.setattr("sys.stdin", text)
            assert correspondent.main(["send", "bob", "--fingerprint", known, *common]) == 0
            assert correspondent.main(["send", "bob", "--fingerprint", "0000", *common]) == 1
        letter, error = capsys.readouterr()
        assert "expected a key with the fingerprint 0000" in error
        assert correspondent.main(["receive", "bob", "--key", key, *common]) == 0
        assert capsys.readouterr().out.startswith(f'{letter.strip()}: """Tests for encryption at rest')
        with contextlib.closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as db:
            assert SECRET.encode() not in db.execute("SELECT sealed FROM letter").fetchone()[0]


def test_a_server_that_cannot_be_reached_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    with pytest.raises(CorrespondentError, match="expected https://HOST"):
        Server("ftp://a", None)
    with pytest.raises(CorrespondentError, match=r"GET http://127\.0\.0\.1:9/x"):
        Server("http://127.0.0.1:9", None).ask("GET", "/x")
    with pytest.raises(CorrespondentError):
        views("127.0.0.1:9", None, "x")
