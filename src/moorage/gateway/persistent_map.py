"""A map whose changed copies are cheap, so that a large route table can be immutable and yet change often.

Entries are spread by hash over a fixed number of small dicts. A changed copy shares all of them but one: it
costs one tuple of `_BUCKETS` pointers and one dict of `len(map) / _BUCKETS` entries.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_BUCKETS = 512  # a power of two: at 10,000 entries a copy moves about 512 pointers and 20 entries
_MASK = _BUCKETS - 1


class PersistentMap(Generic[K, V]):
    """An immutable map. `with_` and `without` return the changed copy."""

    __slots__ = ("_buckets", "_size")

    def __init__(self, items: Iterable[tuple[K, V]] = ()) -> None:
        buckets: list[dict[K, V]] = [{} for _ in range(_BUCKETS)]
        for key, value in items:
            buckets[hash(key) & _MASK][key] = value
        self._buckets = tuple(buckets)
        self._size = sum(map(len, buckets))

    def get(self, key: K) -> V | None:
        return self._buckets[hash(key) & _MASK].get(key)

    def with_(self, key: K, value: V) -> PersistentMap[K, V]:
        bucket = {**self._bucket(key), key: value}
        return self._copy(key, bucket)

    def without(self, key: K) -> PersistentMap[K, V]:
        """The same map when the key is not in it."""
        bucket = self._bucket(key)
        if key not in bucket:
            return self
        return self._copy(key, {k: v for k, v in bucket.items() if k != key})

    def values(self) -> Iterator[V]:
        for bucket in self._buckets:
            yield from bucket.values()

    def __contains__(self, key: K) -> bool:
        return key in self._bucket(key)

    def __len__(self) -> int:
        return self._size

    def _bucket(self, key: K) -> dict[K, V]:
        return self._buckets[hash(key) & _MASK]

    def _copy(self, key: K, bucket: dict[K, V]) -> PersistentMap[K, V]:
        index = hash(key) & _MASK
        copy: PersistentMap[K, V] = PersistentMap.__new__(PersistentMap)
        copy._buckets = (*self._buckets[:index], bucket, *self._buckets[index + 1 :])
        copy._size = self._size + len(bucket) - len(self._buckets[index])
        return copy
