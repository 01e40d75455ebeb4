"""Tests for a deferred store: changes are visible at once, on disk after `commit`, and discarded if `commit` fails."""

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from authority import Account, Authorization, Certificate, Order, Store, StoreError, working_set

ACCOUNT = Account("a", "t", {"kty": "EC"}, "valid", (), 1.0)
ORDER = Order("o", "a", "pending", ("www.example.com",), 2.0)
AUTHORIZATION = Authorization("z", "o", "a", "www.example.com", "pending", "token", 2.0)
CERTIFICATE = Certificate("0a", "a", ("www.example.com",), 1.0, 9.0, 1.0, "PEM")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Yield a deferred store, and a second store on the same database."""
    store, other = Store(tmp_path / "store.sqlite"), Store(tmp_path / "store.sqlite")
    store.deferred = True
    yield store, other
    store.close()
    other.close()


def test_changes_are_visible_at_once_and_on_disk_after_the_commit(stores: tuple[Store, Store]) -> None:
    store, disk = stores
    store.put_account(ACCOUNT)
    store.open_order(ORDER, [AUTHORIZATION])
    assert (store.order("o"), store.authorizations("o")) == (ORDER, [AUTHORIZATION])
    assert disk.order("o") is None
    store.commit()
    assert store.batch is None
    assert (disk.account("a"), disk.order("o"), disk.authorizations("o")) == (ACCOUNT, ORDER, [AUTHORIZATION])


def test_only_the_last_version_of_a_record_is_written(stores: tuple[Store, Store]) -> None:
    store, disk = stores
    store.put_account(ACCOUNT)
    store.open_order(ORDER, [AUTHORIZATION])
    ready = dataclasses.replace(ORDER, status="ready")
    store.put_order(ready)
    assert store.batch is not None
    assert len(store.batch.records) == 3
    store.commit()
    assert disk.order("o") == ready


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.account_by_thumbprint("t") is not None,
        lambda store: store.orders("a") == ["o"],
        lambda store: store.processing(0.0) == [dataclasses.replace(AUTHORIZATION, status="processing")],
        lambda store: [each.serial for each in store.certificates()] == ["0a"],
        lambda store: [pem for _, pem in store.leaves_after(0)] == ["PEM"],
        lambda store: store.revoke("0a", 5.0, 1) == CERTIFICATE and store.certificate("0a").revoked == 5.0,
    ],
    ids=["thumbprint", "orders", "processing", "certificates", "leaves-after", "revoke"],
)
def test_a_search_finds_changes_that_were_not_committed(stores: tuple[Store, Store], read) -> None:
    store, _ = stores
    store.put_account(ACCOUNT)
    store.open_order(ORDER, [dataclasses.replace(AUTHORIZATION, status="processing")])
    store.put_order(ORDER, certificate=CERTIFICATE)
    assert read(store)


def test_a_failed_commit_forgets_all_its_changes(stores: tuple[Store, Store], tmp_path: Path) -> None:
    store, _ = stores
    store.put_account(ACCOUNT)
    store.open_order(ORDER, [AUTHORIZATION])
    store.commit()
    lock = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    store.put_order(dataclasses.replace(ORDER, status="ready"), dataclasses.replace(AUTHORIZATION, status="valid"))
    later = dataclasses.replace(ORDER, id="later")
    store.open_order(later, [dataclasses.replace(AUTHORIZATION, id="y", order="later")])
    batch = store.batch
    with pytest.raises(StoreError, match="locked"):
        store.commit()
    assert batch is not None
    assert batch.error is not None
    lock.execute("ROLLBACK")
    lock.close()
    assert (store.order("o"), store.authorization("z")) == (ORDER, AUTHORIZATION)
    assert (store.order("later"), store.authorizations("later")) == (None, [])
    store.put_order(dataclasses.replace(ORDER, status="ready"))
    store.commit()


def test_a_large_working_set_is_emptied_and_nothing_is_lost(
    stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working_set, "MAX_RECORDS", 10)
    store, _ = stores
    store.put_account(ACCOUNT)
    orders = [dataclasses.replace(ORDER, id=f"o{n}") for n in range(20)]
    for each in orders:
        store.open_order(each, [dataclasses.replace(AUTHORIZATION, id=f"z{each.id}", order=each.id)])
        store.commit()
    assert [store.order(each.id) for each in orders] == orders
    assert [len(store.authorizations(each.id)) for each in orders] == [1] * 20
