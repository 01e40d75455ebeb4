"""Message heads that parsers are known to interpret differently, and a Hypothesis strategy that mutates them."""

from hypothesis import strategies as st

REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\nConnection: content-length\r\n\r\n",
    b"POST / HTTP/1.0\r\nTransfer-Encoding: identity, chunked\r\n\r\n",
    b"GET http://y/?q HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    b"GET /a/../b%2f HTTP/1.1\r\nHost: x:80\r\nX-Forwarded-For: 1.2.3.4\r\nTE: trailers\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nMax-Forwards: 1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
)
RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.0 404 \r\nConnection: keep-alive\r\nVia: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
)
#: Byte strings for mutations: separators, bytes that some parsers skip, and fields that change the body length.
_PIECES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\t", b" ", b":", b",", b";", b"\0", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\x80", b"\xa0",
     b"\xff", b"chunked", b"0", b"%", b"#", b"//", b"\r\n\r\n", b"Content-Length: 1\r\n",
     b"transfer-encoding: chunked\r\n", b"Host: y\r\n", b" HTTP/1.1", b"GET /evil HTTP/1.1\r\n"]
)  # fmt: skip
_CHANGES = st.lists(
    st.tuples(st.sampled_from(["insert", "delete", "replace", "double"]), st.floats(0, 1), _PIECES), max_size=4
)


def mutated(vectors: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Return a strategy for one of *vectors* with up to four mutations at random positions."""
    return st.builds(_change, st.sampled_from(vectors), _CHANGES)


def _change(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for what, where, piece in changes:
        at = int(where * len(data))
        before, after = data[:at], data[at:]
        data = {
            "insert": before + piece + after,
            "delete": before + after[1:],
            "replace": before + piece + after[len(piece) :],
            "double": before + after[:8] + after,
        }[what]
    return data
