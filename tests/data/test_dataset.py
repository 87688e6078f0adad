"""Dataset, TensorDataset, Subset, ConcatDataset, random_split."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, random_split
from tests.data.samples import Numbers

quick = settings(max_examples=50)


def test_a_dataset_without_getitem_says_what_to_write():
    class Empty(Dataset):
        pass

    with pytest.raises(NotImplementedError, match="Empty must write __getitem__"):
        Empty()[0]


def test_an_iterable_dataset_without_iter_says_what_to_write():
    with pytest.raises(NotImplementedError, match="must write __iter__"):
        iter(IterableDataset())


def test_tensor_dataset_gives_rows():
    x, y = shared.tensor([[1.0, 2.0], [3.0, 4.0]]), shared.tensor([7, 8])
    dataset = TensorDataset(x, y)
    row, label = dataset[1]
    assert len(dataset) == 2 and row.tolist() == [3.0, 4.0] and label.item() == 8


def test_tensor_dataset_refuses_different_lengths():
    with pytest.raises(ValueError, match=r"Size mismatch between tensors.*\[3, 2\]"):
        TensorDataset(np.zeros(3), np.zeros(2))


def test_subset_of_a_subset():
    outer = Subset(Numbers(10), [9, 7, 5, 3])
    inner = Subset(outer, [0, 3])
    assert [y for _, y in inner.__getitems__([0, 1])] == [9, 3]
    assert inner[1][1] == 3 and len(inner) == 2


def test_adding_datasets_concatenates():
    both = Numbers(3) + Numbers(2)
    assert isinstance(both, ConcatDataset) and [both[i][1] for i in range(5)] == [0, 1, 2, 0, 1]


@quick
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_concat_reaches_every_sample_once(sizes):
    parts = [[(k, i) for i in range(size)] for k, size in enumerate(sizes)]
    both = ConcatDataset(parts)
    assert [both[i] for i in range(len(both))] == [sample for part in parts for sample in part]
    assert [both[i - len(both)] for i in range(len(both))] == [both[i] for i in range(len(both))]
    with pytest.raises(IndexError):
        both[len(both)]
    with pytest.raises(ValueError):
        both[-len(both) - 1]


def test_concat_refuses_streams_and_nothing():
    with pytest.raises(ValueError, match="empty"):
        ConcatDataset([])
    with pytest.raises(ValueError, match="IterableDataset"):
        ConcatDataset([IterableDataset()])


@quick
@given(st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_random_split_by_lengths_covers_everything_once(lengths):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = random_split(range(sum(lengths)), lengths)
    assert [len(part) for part in parts] == lengths
    assert sorted(i for part in parts for i in part) == list(range(sum(lengths)))


@quick
@given(st.integers(0, 200), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_random_split_by_fractions_rounds_as_pytorch(total, weights):
    torch = pytest.importorskip("torch")
    from torch.utils.data import random_split as torch_split

    fractions = [w / sum(weights) for w in weights]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if sum(fractions) > 1:  # PyTorch refuses these too
            return
        expected = [len(part) for part in torch_split(range(total), fractions, torch.Generator().manual_seed(0))]
        assert [len(part) for part in random_split(range(total), fractions)] == expected


@pytest.mark.parametrize(
    "total, fractions, lengths",
    [(10, [1 / 3] * 3, [4, 3, 3]), (7, [0.5, 0.5], [4, 3]), (11, [0.5, 0.3, 0.2], [6, 3, 2]), (4, [1.0], [4])],
)
def test_what_fractions_leave_over_goes_to_the_first_parts(total, fractions, lengths):
    assert [len(part) for part in random_split(range(total), fractions)] == lengths


def test_random_split_is_fixed_by_a_generator_or_by_manual_seed():
    first = random_split(range(50), [40, 10], shared.Generator().manual_seed(3))
    again = random_split(range(50), [40, 10], shared.Generator().manual_seed(3))
    other = random_split(range(50), [40, 10], shared.Generator().manual_seed(4))
    assert first[1].indices == again[1].indices != other[1].indices
    shared.manual_seed(3)
    seeded = random_split(range(50), [40, 10])
    shared.manual_seed(3)
    assert seeded[1].indices == random_split(range(50), [40, 10])[1].indices


def test_random_split_names_both_numbers_where_they_differ():
    with pytest.raises(ValueError, match=r"\[3, 3\] sum to 6, the dataset has 10"):
        random_split(range(10), [3, 3])


def test_random_split_warns_of_an_empty_part():
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        random_split(range(1), [0.5, 0.5])


def test_random_split_refuses_a_fraction_outside_0_to_1():
    with pytest.raises(ValueError, match="Fraction at index 0"):
        random_split(range(10), [1.5, -0.5])
