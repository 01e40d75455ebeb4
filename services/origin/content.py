"""Sample records of the catalog and the newsroom."""

from typing import Any

ITEMS: dict[str, dict[str, Any]] = {
    "syn": {"name": "SYN", "price_rtt": 0.5, "text": "Opens a connection; sold together with its ACK."},
    "ack": {"name": "ACK", "price_rtt": 0.5, "text": "Confirms what arrived. Cumulative."},
    "fin": {"name": "FIN", "price_rtt": 0.5, "text": "Closes a connection; whoever sends it first waits for a minute."},
    "nonce": {"name": "Nonce", "price_rtt": 1.0, "text": "Valid once."},
    "ticket": {"name": "Session ticket", "price_rtt": 0.0, "text": "Saves the certificate on the next visit."},
    "glue": {"name": "Glue record", "price_rtt": 0.0, "text": "The address without which a delegation leads nowhere."},
}
ARTICLES: dict[str, dict[str, Any]] = {
    "1": {"title": "Name server outage felt far away", "text": "Caches hid it for thirty seconds, then no longer."},
    "2": {"title": "Certificate expires on a Sunday", "text": "The alarm went to a mailbox that had expired as well."},
    "3": {"title": "Pool saves three round trips", "text": "Regulars no longer notice the distance, operators say."},
}


def listing(kind: str, name: str) -> dict[str, Any]:
    """Return the front page of the catalog or newsroom as JSON data."""
    if kind == "news":
        return {"origin": name, "articles": [{"id": key, "title": each["title"]} for key, each in ARTICLES.items()]}
    return {"origin": name, "items": [{"id": key, "name": each["name"]} for key, each in ITEMS.items()]}
