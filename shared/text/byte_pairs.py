"""Byte pairs: which to merge, learned from how often they occur, and merging them.

Here a piece of text is a list of ids. 0 … 255 are the bytes, 256 is what the first merge makes, 257 the second.

Source: Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", 2016, section 3.2.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from shared.text.pretokenize import byte_ids

Pair = tuple[int, int]

# ---------------------------------------------------------------- learning the merges


def count_pairs(words: Iterable[Sequence[int]], times: Iterable[int]) -> Counter[Pair]:
    """How often each two ids stand next to each other: in `words`, lists of ids, each of which comes `times` often.

    Places that overlap count each: [7, 7, 7] has the pair (7, 7) twice.

    >>> count_pairs([[1, 2, 3], [2, 3]], times=[10, 1])
    Counter({(2, 3): 11, (1, 2): 10})
    """
    counts: Counter[Pair] = Counter()
    for ids, n in zip(words, times, strict=True):
        for pair in zip(ids, ids[1:], strict=False):
            counts[pair] += n
    return counts


def most_frequent_pair(counts: Mapping[Pair, int]) -> Pair | None:
    """The pair with the largest count; of several the smallest: first by its first id, then by its second.

    None where no pair has a count above 0.

    >>> most_frequent_pair({(5, 1): 3, (4, 9): 3, (4, 8): 2})
    (4, 9)
    """
    top = max(counts.values(), default=0)
    return min(pair for pair, count in counts.items() if count == top) if top > 0 else None


def merge_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """A new list in which `new_id` stands for each place of `pair` in `ids`, found from left to right.

    >>> merge_pair([7, 7, 7, 8, 7, 7], (7, 7), 256)
    [256, 7, 8, 256]
    """
    first, second = pair
    merged, i = [], 0
    while i < len(ids):
        if ids[i] == first and i + 1 < len(ids) and ids[i + 1] == second:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def train_merges(pieces: Mapping[str, int], num_merges: int) -> list[Pair]:
    """The pairs to merge, in the order in which they are learned: at most `num_merges`, fewer if no pair is left.

    `pieces` says how often each piece of text occurs. A piece starts as the ids of its bytes (`byte_ids`); then, again
    and again, the pair that is most frequent in all pieces (`most_frequent_pair` settles ties) becomes one token
    everywhere, whose id is 256 for the first merge, 257 for the second, and so on.

    Counting everything anew after each merge gives the same; here only the pieces that have the pair are looked at.

    >>> train_merges({"aab": 2, "ab": 1}, num_merges=2)     # "a" and "b" are 64 and 65
    [(64, 65), (64, 256)]
    """
    words, times = [byte_ids(piece) for piece in pieces], list(pieces.values())
    counts = count_pairs(words, times)
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # the words that have, or once had, a pair
    for i, ids in enumerate(words):
        for pair in zip(ids, ids[1:], strict=False):
            where[pair].add(i)
    merges: list[Pair] = []
    while len(merges) < num_merges and (best := most_frequent_pair(counts)) is not None:
        places = list(where.pop(best))
        often = [times[i] for i in places]
        counts.subtract(count_pairs([words[i] for i in places], often))
        for i in places:
            words[i] = merge_pair(words[i], best, 256 + len(merges))
            for pair in zip(words[i], words[i][1:], strict=False):
                where[pair].add(i)
        counts.update(count_pairs([words[i] for i in places], often))
        merges.append(best)
    return merges


# ---------------------------------------------------------------- applying them


def apply_merges(ids: Sequence[int], merges: Mapping[Pair, int]) -> list[int]:
    """`ids` after all merges that can be made, the one learned first always before the others.

    `merges` has the id of each pair's token, {(first, second): id}; the smaller that id, the earlier it was learned.
    While a pair of neighbours is among the merges: that with the smallest id is merged at all of its places.

    >>> apply_merges([1, 2, 3, 2, 3], {(2, 3): 256, (1, 2): 257, (256, 256): 258})
    [1, 258]
    """
    ids = list(ids)
    while known := [merges[pair] for pair in zip(ids, ids[1:], strict=False) if pair in merges]:
        new_id = min(known)
        pair = next(pair for pair in zip(ids, ids[1:], strict=False) if merges.get(pair) == new_id)
        ids = merge_pair(ids, pair, new_id)
    return ids


def apply_merges_to_long(ids: Sequence[int], merges: Mapping[Pair, int]) -> list[int]:
    """What `apply_merges` gives, for pieces of any length: N ids in the order of N · log N steps instead of N².

    The pairs that can be merged wait in a queue, the earliest learned and then the leftmost first. Neighbours are
    linked, so that a merge changes two links; a pair whose ids were merged meanwhile is passed over.
    """
    ids, end = list(ids), len(ids)
    after, before = list(range(1, end + 1)), list(range(-1, end - 1))
    queue = [(merges[pair], i, pair) for i, pair in enumerate(zip(ids, ids[1:], strict=False)) if pair in merges]
    heapq.heapify(queue)
    while queue:
        new_id, i, pair = heapq.heappop(queue)
        j = after[i]
        if j == end or (ids[i], ids[j]) != pair:
            continue
        ids[i], ids[j] = new_id, -1
        after[i] = after[j]
        if after[i] < end:
            before[after[i]] = i
        for left, right in ((before[i], i), (i, after[i])):
            if left >= 0 and right < end and (ids[left], ids[right]) in merges:
                pair = (ids[left], ids[right])
                heapq.heappush(queue, (merges[pair], left, pair))
    return [i for i in ids if i >= 0]
