"""Filling up and bucketing: values by hand, every example once, reproducible, less padding than at random."""

import collections
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.data import DataLoader
from shared.text import BucketBatchSampler, PadCollate, WordVocabulary

LENGTHS = np.random.default_rng(0).integers(1, 60, 1000).tolist()


# ---------------------------------------------------------------- PadCollate


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [[1, 2, 3], [4, 0, 0]]),
        ({"padding_value": 9}, [[1, 2, 3], [4, 9, 9]]),
        ({"padding_side": "left"}, [[1, 2, 3], [0, 0, 4]]),
        ({"batch_first": False}, [[1, 4], [2, 0], [3, 0]]),
    ],
)
@pytest.mark.parametrize("kind", [list, np.array, shared.tensor])
def test_sequences_are_filled_up(kind, options, wanted):
    batch = PadCollate(**options)([kind([1, 2, 3]), kind([4])])
    assert batch.dtype == shared.int64 and batch.tolist() == wanted


def test_fields_are_treated_one_by_one():
    Pair = collections.namedtuple("Pair", "source target")
    samples = [((([1], 0.5), "a"), {"x": [1, 2], "y": 3}), ((([2, 3], 1.5), "b"), {"x": [4], "y": 5})]
    ((tokens, numbers), names), fields = PadCollate(7)(samples)
    assert tokens.tolist() == [[1, 7], [2, 3]] and numbers.tolist() == [0.5, 1.5] and list(names) == ["a", "b"]
    assert fields["x"].tolist() == [[1, 2], [4, 7]] and fields["y"].tolist() == [3, 5]
    pair = PadCollate()([Pair([1], [1, 2, 3]), Pair([1, 2], [4])])
    assert pair.source.shape == (2, 2) and pair.target.shape == (2, 3), "each field has its own longest"


def test_vectors_per_step_keep_their_size():
    batch = PadCollate(-1.0)([np.ones((2, 3), "float32"), np.zeros((1, 3), "float32")])
    assert batch.dtype == shared.float32 and batch.tolist() == [[[1] * 3] * 2, [[0] * 3, [-1] * 3]]


def test_an_empty_sequence_is_all_padding():
    assert PadCollate(7)([[], [1, 2]]).tolist() == [[7, 7], [1, 2]]
    assert PadCollate()([[], []]).shape == (2, 0)


def test_wrong_samples_are_named():
    with pytest.raises(TypeError, match="expected sequences, as sample 0 is, but sample 1 is 5"):
        PadCollate()([[1, 2], 5])
    with pytest.raises(ValueError, match=r"samples have \[1, 2\] fields"):
        PadCollate()([([1], 2), ([1],)])
    with pytest.raises(RuntimeError, match="one dtype, but element 0 is int64 and element 1 float32"):
        PadCollate()([[1], [0.5]])
    with pytest.raises(TypeError, match="a number to fill up with, but got None. A vocabulary has a pad_id where"):
        PadCollate(WordVocabulary(["a"]).pad_id)
    with pytest.raises(ValueError, match="'left' or 'right', but got 'top'"):
        PadCollate(padding_side="top")


# ---------------------------------------------------------------- BucketBatchSampler


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=50),
    batch_size=st.integers(1, 7),
    pool=st.integers(1, 4),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_every_example_comes_once(lengths, batch_size, pool, shuffle, drop_last):
    sampler = BucketBatchSampler(lengths, batch_size, shuffle, drop_last, pool)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    found = sorted(i for batch in batches for i in batch)
    sizes = sorted(len(batch) for batch in batches)
    if drop_last:
        assert len(set(found)) == len(found) == len(lengths) // batch_size * batch_size
        assert set(sizes) <= {batch_size}
    else:
        assert found == list(range(len(lengths)))
        assert set(sizes[1:]) <= {batch_size} and all(sizes)


def test_by_hand_without_shuffling():
    sampler = BucketBatchSampler([5, 1, 4, 2, 9, 3, 8], batch_size=2, shuffle=False, pool=2)
    assert list(sampler) == [[1, 3], [2, 0], [5, 6], [4]]
    assert list(sampler) == list(sampler)


def test_a_pass_depends_on_the_seed_and_differs_from_the_one_before():
    def passes(seed, **options):
        shared.manual_seed(seed)
        sampler = BucketBatchSampler(LENGTHS, 16, **options)
        return [list(sampler) for _ in range(2)]

    first, second = passes(3)
    assert passes(3) == [first, second] and first != second
    assert passes(4)[0] != first
    own = [passes(seed, generator=shared.Generator().manual_seed(5)) for seed in (1, 2)]
    assert own[0] == own[1] and own[0][0] != own[0][1]


def test_batches_are_of_like_length_and_come_in_random_order():
    shared.manual_seed(0)

    def padding(batches):
        return sum(len(b) * max(LENGTHS[i] for i in b) for b in batches) / sum(LENGTHS) - 1

    buckets = list(BucketBatchSampler(LENGTHS, 16))
    assert padding(buckets) < 0.05
    assert padding(shared.data.BatchSampler(shared.data.RandomSampler(LENGTHS), 16, False)) > 0.5
    assert padding(BucketBatchSampler(LENGTHS, 16, pool=1)) > 0.5
    assert padding(buckets) < padding(BucketBatchSampler(LENGTHS, 16, pool=4)) < 0.5
    longest = [max(LENGTHS[i] for i in b) for b in buckets]
    assert longest not in (sorted(longest), sorted(longest)[::-1])


def test_equally_long_examples_meet_at_random():
    shared.manual_seed(0)
    sampler = BucketBatchSampler([3] * 32, 8)
    assert {frozenset(batch) for batch in sampler} != {frozenset(batch) for batch in sampler}
    assert any(max(batch) - min(batch) > 7 for batch in sampler)


def test_all_batches_but_one_are_whole():
    """With several pools the last batch cut is that of the last pool; every other batch is whole."""
    shared.manual_seed(0)
    sizes = collections.Counter(len(b) for b in BucketBatchSampler(LENGTHS, 48, pool=5))
    assert sizes == {48: 20, 40: 1}


def test_lengths_that_are_none_are_named():
    with pytest.raises(ValueError, match="batch_size to be an int of at least 1, but got 0"):
        BucketBatchSampler([1], 0)
    with pytest.raises(ValueError, match="pool to be an int of at least 1, but got 1.5"):
        BucketBatchSampler([1], 1, pool=1.5)
    with pytest.raises(ValueError, match="one integer length per example, but got float64 of shape"):
        BucketBatchSampler([0.5, 1], 1)
    with pytest.raises(ValueError, match=r"int64 of shape \(1, 2\)"):
        BucketBatchSampler([[1, 2]], 1)


# ---------------------------------------------------------------- together, in a DataLoader


@pytest.mark.parametrize("num_workers", [0, 2])
def test_texts_to_batches_and_back(num_workers):
    shared.manual_seed(0)
    lines = [" ".join(["so", "it", "goes", "on"][: 1 + i % 4] * (1 + i % 3)) for i in range(23)]
    vocabulary = WordVocabulary.from_text(lines, specials=("<pad>", "<unk>"))
    dataset = [(vocabulary.encode(line), i) for i, line in enumerate(lines)]
    order = BucketBatchSampler([len(ids) for ids, _ in dataset], batch_size=4)
    loader = DataLoader(dataset, batch_sampler=order, collate_fn=PadCollate(vocabulary.pad_id), num_workers=num_workers)
    assert len(loader) == 6
    seen = {}
    for ids, numbers in loader:
        real = (ids != vocabulary.pad_id).sum(1)
        assert int(real.max()) == ids.shape[1], "no longer than its longest example"
        seen |= {n: vocabulary.decode(row, skip_specials=True) for n, row in zip(numbers.tolist(), ids, strict=True)}
    assert [seen[i] for i in range(23)] == lines


def test_it_can_be_sent_to_a_worker():
    collate = pickle.loads(pickle.dumps(PadCollate(3, False, "left")))
    assert collate([[1, 2], [1]]).tolist() == [[1, 3], [2, 1]]
