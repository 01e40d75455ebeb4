"""Mutations of valid input for property tests of parsers."""

from hypothesis import strategies as st

#: Bytes that matter in DER and in JSON: bounds of lengths and numbers, tags, brackets and quotation marks.
_SPECIAL = st.sampled_from(
    [b"\x00", b"\x7f", b"\x80", b"\xff", b"\x30", b"\x84\xff\xff\xff\xff", b'"', b"{", b"[", b"\\u"]
)


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Return *data* after one to four edits: bytes replaced, inserted, removed, repeated, or cut off."""
    places = st.integers(0, len(data))
    edits = st.tuples(
        st.sampled_from(["replace", "insert", "remove", "repeat", "cut"]),
        places,
        st.integers(1, 16),
        st.one_of(_SPECIAL, st.binary(min_size=1, max_size=4)),
    )
    return st.lists(edits, min_size=1, max_size=4).map(lambda chosen: _edited(data, chosen))


def _edited(data: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, at, size, new in edits:
        match kind:
            case "replace":
                data = data[:at] + new + data[at + len(new) :]
            case "insert":
                data = data[:at] + new + data[at:]
            case "remove":
                data = data[:at] + data[at + size :]
            case "repeat":
                data = data[: at + size] + data[at:]
            case _:
                data = data[:at]
    return data
