"""Tests for server cookies with the examples of RFC 9018 and SipHash, and for the rate limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cookies import LIFETIME, RENEW, SKEW, is_valid, renewed, server_cookie, siphash
from serving.rate_limit import MAX_BUCKETS, WINDOW, RateLimit, Verdict

OLD, NEW = (bytes.fromhex(each) for each in ("e5e973e5a6b2a43f48e7dc849e37bfcf", "445536bcd2513298075a5d379663c962"))
CLIENT = bytes.fromhex("2464c4abcf10c957")


@pytest.mark.parametrize(
    ("secret", "client_cookie", "client", "now", "expected"),
    [
        pytest.param(OLD, CLIENT.hex(), "198.51.100.100", 1559731985, "010000005cf79f111f8130c3eee29480", id="A.1"),
        pytest.param(OLD, CLIENT.hex(), "198.51.100.100", 1559734385, "010000005cf7a871d4a564a1442aca77", id="A.2"),
        pytest.param(
            OLD, "fc93fc62807ddb86", "203.0.113.203", 1559734700, "010000005cf7a9acf73a7810aca2381e", id="A.3",
        ),
        pytest.param(
            NEW, "22681ab97d52c298", "2001:db8:220:1:59de:d0f4:8769:82b8", 1559741961,
            "010000005cf7c609a6bb79d16625507a", id="A.4",
        ),
    ],
)  # fmt: skip
def test_cookies_are_those_of_rfc_9018_appendix_a(
    secret: bytes, client_cookie: str, client: str, now: float, expected: str
) -> None:
    cookie = server_cookie(bytes.fromhex(client_cookie), client, secret, now)
    assert cookie.hex() == expected
    assert is_valid(bytes.fromhex(client_cookie) + cookie, client, secret, now)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 0x726FDB47DD0E0E31), (7, 0xAB0200F58B01D137), (8, 0x93F5F5799A932462), (15, 0xA129CA6149BE45E5)],
)
def test_siphash_gives_the_published_values(size: int, expected: int) -> None:
    assert siphash(bytes(range(16)), bytes(range(size))) == expected.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("age", "valid", "kept"),
    [
        (0, True, True), (RENEW, True, True), (RENEW + 1, True, False), (LIFETIME, True, False),
        (LIFETIME + 1, False, False), (-SKEW, True, True), (-SKEW - 1, False, False),
    ],
)  # fmt: skip
def test_a_cookie_ages(age: int, valid: bool, kept: bool) -> None:
    for now in (1_800_000_000, 2**32 + 30):  # the second time exceeds the cookie's 32-bit timestamp
        whole = CLIENT + server_cookie(CLIENT, "192.0.2.1", OLD, now - age)
        assert is_valid(whole, "192.0.2.1", OLD, now) is valid
        again = renewed(whole, "192.0.2.1", OLD, now)
        assert (again == whole) is kept
        assert is_valid(again, "192.0.2.1", OLD, now)


@given(st.binary(min_size=8, max_size=40))
def test_only_this_servers_cookie_for_this_address_is_valid(cookie: bytes) -> None:
    assert not is_valid(cookie, "192.0.2.1", OLD, 1_800_000_000)
    good = CLIENT + server_cookie(CLIENT, "192.0.2.1", OLD, 1_800_000_000)
    assert not is_valid(good, "192.0.2.2", OLD, 1_800_000_000)
    assert not is_valid(good, "192.0.2.1", NEW, 1_800_000_000)


# --- rate limit -------------------------------------------------------------------------------------------------------


def sent(limit: RateLimit, count: int, now: float, client: str = "192.0.2.1", kind: bytes = b"x") -> list[str]:
    return [limit.judge(client, kind, now).name[0] for _ in range(count)]


def test_responses_above_the_rate_are_dropped_or_truncated_in_turn() -> None:
    limit = RateLimit(rate=3, slip=2)
    assert "".join(sent(limit, 9, 0.0)) == "SSSDTDTDT"
    assert "".join(sent(RateLimit(rate=2, slip=0), 5, 0.0)) == "SSDDD"


def test_networks_and_kinds_of_response_are_counted_apart() -> None:
    limit = RateLimit(rate=1, slip=0)
    clients = ["192.0.2.1", "192.0.2.255", "192.0.3.1", "2001:db8::1", "2001:db8:0:ff::1", "2001:db8:0:100::1"]
    assert [limit.judge(client, b"x", 0.0).name[0] for client in clients] == ["S", "D", "S", "S", "D", "S"]
    assert limit.judge("192.0.2.1", b"y", 0.0) is Verdict.SEND


def test_a_limited_network_is_served_again_after_the_window_at_the_latest() -> None:
    limit = RateLimit(rate=5, slip=0)
    sent(limit, 10_000, 0.0)
    assert sent(limit, 1, WINDOW - 1) == ["D"]
    assert sent(limit, 6, WINDOW + 2) == ["S"] * 5 + ["D"]


def test_the_table_is_bounded() -> None:
    limit = RateLimit(rate=1, slip=0)
    for i in range(MAX_BUCKETS + 10):
        limit.judge(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", i.to_bytes(4, "big"), 0.0)
    assert repr(limit) == f"<RateLimit rate=1 buckets={MAX_BUCKETS}>"
