"""Tests for the catalog's items over HTTP: reads, writes, preconditions, pages, idempotency keys."""

import asyncio

import pytest

from origin import idempotency
from tests.origin.conftest import Client

TEA = {"name": "Tea", "price_rtt": 2, "text": "green"}


async def test_an_item_is_created_read_replaced_patched_and_deleted(ask: Client) -> None:
    made = await ask("POST", "/items", TEA)
    assert made.status == 201
    where = made.fields["location"]
    first = await ask("GET", where)
    assert (first.status, first.body) == (200, made.body)
    assert first.fields["etag"] == made.fields["etag"]
    put = await ask("PUT", where, {**TEA, "text": "black"}, if_match=first.fields["etag"])
    assert (put.status, put.json["text"]) == (200, "black")
    patched = await ask("PATCH", where, {"text": None, "price_rtt": 3}, content_type="application/merge-patch+json")
    assert (patched.status, patched.json["text"], patched.json["price_rtt"]) == (200, "", 3)
    assert (await ask("DELETE", where)).status == 204
    assert (await ask("GET", where)).status == 404
    assert (await ask("DELETE", where)).status == 404


async def test_put_creates_only_if_there_is_none(ask: Client) -> None:
    assert (await ask("PUT", "/items/tea", TEA, if_none_match="*")).status == 201
    again = await ask("PUT", "/items/tea", {**TEA, "name": "Other"}, if_none_match="*")
    assert again.status == 412
    assert "the current version is" in again.json["detail"]
    assert (await ask("GET", "/items/tea")).json["name"] == "Tea"


async def test_of_two_editors_of_one_version_one_wins(ask: Client) -> None:
    tag = (await ask("GET", "/items/syn")).fields["etag"]
    edits = [{"name": "SYN", "text": str(number)} for number in range(8)]
    answers = await asyncio.gather(*(ask("PUT", "/items/syn", each, if_match=tag) for each in edits))
    assert sorted(each.status for each in answers) == [200, *[412] * 7]
    winner = next(edit for edit, each in zip(edits, answers, strict=True) if each.status == 200)
    assert (await ask("GET", "/items/syn")).json["text"] == winner["text"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_if_match_on_nothing_fails(ask: Client, method: str) -> None:
    assert (await ask(method, "/items/none", TEA, if_match="*")).status == 412


async def test_a_malformed_precondition_of_a_write_is_refused(ask: Client) -> None:
    assert (await ask("PUT", "/items/syn", TEA, if_match="no-quotes")).status == 400
    assert (await ask("GET", "/items/syn", if_none_match="no-quotes")).status == 200


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        pytest.param(b"{", 400, "expected a JSON object", id="no-json"),
        pytest.param(b"[]", 400, "got list", id="no-object"),
        pytest.param(b"[" * 100_000, 400, "expected a JSON object", id="nested"),
        pytest.param({}, 422, "expected name", id="no-name"),
        pytest.param({"name": ""}, 422, "1 to 100 characters", id="empty-name"),
        pytest.param({"name": "a", "price_rtt": True}, 422, "expected price_rtt as a number", id="boolean"),
        pytest.param(b'{"name": "a", "price_rtt": NaN}', 422, "from 0 to 1000000", id="nan"),
        pytest.param({"name": "a", "colour": 1}, 422, "'colour'", id="unknown"),
        pytest.param({"name": "a", "id": "other"}, 422, "of the path", id="other-id"),
        pytest.param({"name": "\ud800"}, 422, "surrogate", id="surrogate"),
        pytest.param({"name": "a", "text": "x" * 10_001}, 422, "at most 10000", id="long-text"),
        pytest.param(b"x" * ((1 << 20) + 1), 413, "", id="large"),
    ],
)
async def test_what_cannot_be_stored_is_refused_with_a_problem(ask: Client, given, status: int, words: str) -> None:
    answer = await ask("PUT", "/items/new", given)
    assert answer.status == status
    assert answer.fields["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["instance"] == "/items/new"
    assert words in answer.json["detail"]
    assert (await ask("GET", "/items/new")).status == 404


async def test_other_media_types_and_ids_are_refused(ask: Client) -> None:
    answer = await ask("PUT", "/items/a", b"name=x", content_type="text/plain")
    assert (answer.status, answer.fields["accept-patch"]) == (415, "application/merge-patch+json")
    assert (await ask("PUT", "/items/a%20b", TEA)).status == 400
    assert (await ask("PUT", "/items/" + "a" * 65, TEA)).status == 400
    refused = await ask("POST", "/items/syn", TEA)
    assert (refused.status, refused.fields["allow"]) == (405, "DELETE,GET,HEAD,PATCH,PUT")


async def test_pages_hold_every_item_once_while_items_come_and_go(ask: Client) -> None:
    for number in range(20):
        await ask("PUT", f"/items/m{number:02}", TEA)
    path, seen = "/items?limit=4", []
    while path:
        answer = await ask("GET", path)
        found = [each["id"] for each in answer.json["items"]]
        seen += found
        path = answer.json["next"]
        assert (path is not None) == ("link" in answer.fields)
        if found[0] == "m01":
            await ask("DELETE", f"/items/{found[0]}")
            await ask("PUT", "/items/aaa", TEA)
    assert seen == sorted({*(f"m{number:02}" for number in range(20)), "syn", "ack", "fin", "nonce", "ticket", "glue"})
    for limit in ("0", "201", "x", "²"):
        assert (await ask("GET", f"/items?limit={limit}")).status == 400


# --- idempotency keys -------------------------------------------------------------------------------------------------


async def test_a_repeated_request_gets_the_first_response_and_changes_nothing(ask: Client) -> None:
    first = await ask("POST", "/items", TEA, idempotency_key='"one"')
    again = await ask("POST", "/items", TEA, idempotency_key="one")
    assert (again.status, again.body, again.fields["location"]) == (201, first.body, first.fields["location"])
    assert again.fields["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.fields
    assert len((await ask("GET", "/items")).json["items"]) == 7


async def test_repetitions_that_arrive_together_write_once(ask: Client) -> None:
    answers = await asyncio.gather(*(ask("POST", "/items", TEA, idempotency_key="k") for _ in range(16)))
    assert {each.status for each in answers} == {201}
    assert len({each.fields["location"] for each in answers}) == 1
    assert sum("idempotency-replayed" in each.fields for each in answers) == 15


async def test_without_a_key_each_post_writes(ask: Client) -> None:
    assert (await ask("POST", "/items", TEA)).fields["location"] != (await ask("POST", "/items", TEA)).fields[
        "location"
    ]


@pytest.mark.parametrize(("method", "path", "given"), [("POST", "/items", {"name": "Other"}), ("PUT", "/items/x", TEA)])
async def test_a_key_used_for_another_request_is_refused(ask: Client, method: str, path: str, given) -> None:
    await ask("POST", "/items", TEA, idempotency_key="k")
    answer = await ask(method, path, given, idempotency_key="k")
    assert (answer.status, answer.json["type"]) == (422, idempotency.MISMATCH)


async def test_a_failed_write_stores_no_response(ask: Client) -> None:
    assert (await ask("PUT", "/items/a", TEA, if_match='"x"', idempotency_key="k")).status == 412
    assert (await ask("PUT", "/items/a", TEA, idempotency_key="k")).status == 201


async def test_a_retry_of_a_conditional_write_is_replayed_and_not_refused(ask: Client) -> None:
    tag = (await ask("GET", "/items/syn")).fields["etag"]
    first = await ask("PUT", "/items/syn", TEA, if_match=tag, idempotency_key="k")
    again = await ask("PUT", "/items/syn", TEA, if_match=tag, idempotency_key="k")
    assert (first.status, again.status) == (200, 200)
    assert (await ask("PUT", "/items/syn", TEA, if_match=tag)).status == 412


async def test_a_key_expires(ask: Client) -> None:
    first = await ask("POST", "/items", TEA, idempotency_key="k")
    await ask.database.write(lambda db: db.execute("UPDATE reply SET created = created - ?", (idempotency.LIFETIME,)))
    later = await ask("POST", "/items", TEA, idempotency_key="k")
    assert later.fields["location"] != first.fields["location"]


@pytest.mark.parametrize("key", ['""', "a b", '"a', "a" * 256, "ä"])
async def test_a_malformed_key_is_refused(ask: Client, key: str) -> None:
    assert (await ask("POST", "/items", TEA, idempotency_key=key)).status == 400
