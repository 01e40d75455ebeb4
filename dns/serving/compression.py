"""Writing names into a message, compressed (RFC 1035 section 4.1.4).

dnslib's buffer remembers where every name stands, also beyond the 16 KiB that a pointer of 14 bits reaches: what points
there is garbage.  This one forgets those.
"""

import dnslib

#: Offsets that a pointer can name.
REACH = 0x4000


class Buffer(dnslib.DNSBuffer):  # type: ignore[misc]  # dnslib is untyped
    """A message being written."""

    def encode_name(self, name: object) -> None:
        """Append *name*, pointing to what stands already wherever a pointer reaches it."""
        super().encode_name(name)
        if self.offset > REACH:
            labels = dnslib.DNSLabel(name).label
            for suffix in (labels[depth:] for depth in range(len(labels))):
                if self.names.get(suffix, 0) >= REACH:
                    del self.names[suffix]
