"""Game arena: sends snapshots of its state at a fixed rate, over UDP, over TCP, or over TCP with only the newest.

`messages` is the sans-IO core; `server` moves its messages over sockets.  There is no game: a snapshot consists of its
number, the time at which it was sent, and padding.
"""

from arena.messages import ArenaError, Join, Mode, Snapshot

__all__ = ["ArenaError", "Join", "Mode", "Snapshot"]
