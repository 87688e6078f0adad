"""Samplers: everything exactly once, the right lengths, fixed by a seed, PyTorch's checks."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.data import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

quick = settings(max_examples=50)


@quick
@given(st.integers(1, 60))
def test_sequential_and_random_cover_every_index_once(size):
    assert list(SequentialSampler(range(size))) == list(range(size))
    assert sorted(RandomSampler(range(size))) == list(range(size))
    assert len(SequentialSampler(range(size))) == len(RandomSampler(range(size))) == size


@quick
@given(st.integers(1, 20), st.integers(1, 70))
def test_more_samples_than_data_are_whole_passes_and_a_rest(size, wanted):
    counts = Counter(RandomSampler(range(size), num_samples=wanted))
    assert sum(counts.values()) == wanted
    assert all(wanted // size <= counts[i] <= wanted // size + 1 for i in range(size))


def test_with_replacement_every_draw_is_independent():
    shared.manual_seed(0)
    drawn = list(RandomSampler(range(4), replacement=True, num_samples=4000))
    counts = Counter(drawn)
    assert len(drawn) == 4000 and all(850 < counts[i] < 1150 for i in range(4))  # 1000 ± 5.5 standard deviations


def test_the_order_changes_from_pass_to_pass_and_a_seed_fixes_it():
    shared.manual_seed(1)
    sampler = RandomSampler(range(100))
    first, second = list(sampler), list(sampler)
    assert first != second
    shared.manual_seed(1)
    assert [list(sampler), list(sampler)] == [first, second]


def test_an_epochs_order_does_not_depend_on_other_draws():
    def order(disturb):
        shared.manual_seed(5)
        out = []
        for i in RandomSampler(range(10), num_samples=30):
            out.append(i)
            if disturb:
                shared.rand(3)
        return out

    assert order(False) == order(True)


def test_a_generator_of_ones_own_leaves_the_default_alone():
    shared.manual_seed(2)
    expected = shared.rand(1).item()
    shared.manual_seed(2)
    list(RandomSampler(range(10), generator=shared.Generator().manual_seed(0)))
    assert shared.rand(1).item() == expected


@quick
@given(st.lists(st.integers(-5, 100), max_size=30))
def test_subset_random_gives_each_listed_index_once(indices):
    sampler = SubsetRandomSampler(indices)
    assert Counter(sampler) == Counter(indices) and len(sampler) == len(indices)


def test_weighted_follows_the_weights():
    shared.manual_seed(0)
    counts = Counter(WeightedRandomSampler([1.0, 0.0, 3.0], num_samples=4000))
    assert counts[1] == 0 and 2840 < counts[2] < 3160  # 3000 ± 5.8 standard deviations


def test_weights_may_be_a_tensor():
    assert set(WeightedRandomSampler(shared.tensor([0.0, 2.0]), 4)) == {1}


def test_weighted_without_replacement_repeats_nothing():
    assert sorted(WeightedRandomSampler([1.0, 2.0, 3.0, 0.0], 3, replacement=False)) == [0, 1, 2]


@quick
@given(st.integers(0, 50), st.integers(1, 12), st.booleans())
def test_batches_are_the_sampler_cut_in_pieces(size, batch_size, drop_last):
    batches = list(BatchSampler(SequentialSampler(range(size)), batch_size, drop_last))
    assert len(batches) == len(BatchSampler(SequentialSampler(range(size)), batch_size, drop_last))
    kept = size - size % batch_size if drop_last else size
    assert [i for batch in batches for i in batch] == list(range(kept))
    assert all(len(batch) == batch_size for batch in batches[:-1])


@quick
@given(st.integers(0, 40), st.integers(1, 9), st.booleans())
def test_lengths_and_batches_are_pytorchs(size, batch_size, drop_last):
    data = pytest.importorskip("torch.utils.data")
    ours = BatchSampler(SequentialSampler(range(size)), batch_size, drop_last)
    theirs = data.BatchSampler(data.SequentialSampler(range(size)), batch_size, drop_last)
    assert list(ours) == list(theirs) and len(ours) == len(theirs)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda s: s.RandomSampler(range(3), replacement=1), "replacement"),
        (lambda s: s.RandomSampler(range(3), num_samples=-1), "num_samples"),
        (
            lambda s: s.RandomSampler([]),
            "num_samples should be a positive integer value, but got num_samples=0",
        ),
        (lambda s: s.WeightedRandomSampler([1.0], 0), "num_samples"),
        (lambda s: s.WeightedRandomSampler([[1.0]], 1), "weights"),
        (lambda s: s.BatchSampler(range(3), 0, False), "batch_size"),
        (lambda s: s.BatchSampler(range(3), 2, 1), "drop_last"),
    ],
)
def test_wrong_arguments_raise_the_error_pytorch_raises(make, message):
    import shared.data

    with pytest.raises((TypeError, ValueError), match=message) as ours:
        make(shared.data)
    theirs = pytest.importorskip("torch.utils.data")
    with pytest.raises(ours.type, match=message):
        make(theirs)


def test_weights_that_cannot_be_drawn_from_are_refused():
    with pytest.raises(ValueError, match="at least one above zero"):
        WeightedRandomSampler([0.0, 0.0], 1)
    with pytest.raises(ValueError, match="3 different indices from 2"):
        WeightedRandomSampler([1.0, 1.0, 0.0], 3, replacement=False)


def test_a_sampler_without_iter_says_what_to_write():
    with pytest.raises(NotImplementedError, match="must write __iter__"):
        iter(Sampler())
