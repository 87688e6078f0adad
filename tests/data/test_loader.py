"""The DataLoader in one process: batches, order, lengths and refusals as PyTorch's."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.data import BatchSampler, DataLoader, Dataset, Subset, TensorDataset
from tests.data.samples import Draws, Numbers, SizedStream, Stream, as_points

quick = settings(max_examples=50)


def labels(loader):
    return [batch[1].tolist() for batch in loader]


@quick
@given(st.integers(0, 40), st.integers(1, 9), st.booleans(), st.booleans())
def test_an_epoch_has_every_sample_exactly_once(size, batch_size, shuffle, drop_last):
    shuffle = shuffle and size > 0  # an empty dataset cannot be shuffled, as in PyTorch
    loader = DataLoader(Numbers(size), batch_size=batch_size, shuffle=shuffle, drop_last=drop_last)
    batches = labels(loader)
    seen = [i for batch in batches for i in batch]
    assert len(batches) == len(loader)
    assert len(set(seen)) == len(seen) == (size - size % batch_size if drop_last else size)
    if not shuffle:
        assert seen == list(range(len(seen)))


@quick
@given(st.integers(1, 20), st.sampled_from([None, 1, 3, 7]), st.sampled_from([None, False, True]), st.booleans())
def test_lengths_and_shapes_are_pytorchs(size, batch_size, shuffle, drop_last):
    theirs = pytest.importorskip("torch.utils.data")
    if batch_size is None:
        drop_last = False
    options = {"batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last}
    ours, other = DataLoader(Numbers(size), **options), theirs.DataLoader(Numbers(size), **options)
    assert len(ours) == len(other)
    for a, b in itertools.zip_longest(ours, other):
        assert tuple(a[0].shape) == tuple(b[0].shape)
        assert type(a) is type(b) and type(a[1]).__name__ == type(b[1]).__name__


def test_manual_seed_fixes_the_order_and_every_epoch_has_its_own():
    loader = DataLoader(Numbers(30), batch_size=30, shuffle=True)
    shared.manual_seed(0)
    first = [labels(loader), labels(loader)]
    shared.manual_seed(0)
    assert [labels(loader), labels(loader)] == first
    assert first[0] != first[1] and sorted(first[0][0]) == list(range(30))


def test_a_generator_fixes_the_order_without_manual_seed():
    def order():
        return labels(DataLoader(Numbers(30), 30, shuffle=True, generator=shared.Generator().manual_seed(9)))

    assert order() == order()


def test_random_samples_are_fixed_by_manual_seed():
    def draws():
        shared.manual_seed(4)
        return [batch[0].tolist() for batch in DataLoader(Draws(6), batch_size=3, shuffle=True)]

    assert draws() == draws()


def test_samples_of_tensors_become_batches_of_tensors():
    x, y = shared.arange(6, dtype=shared.float32).reshape(3, 2), shared.tensor([0, 1, 0])
    images, targets = next(iter(DataLoader(TensorDataset(x, y), batch_size=2)))
    assert images.tolist() == [[0, 1], [2, 3]] and targets.tolist() == [0, 1]


def test_a_sampler_a_batch_sampler_and_a_list_of_indices():
    assert labels(DataLoader(Numbers(), sampler=[3, 1, 2], batch_size=2)) == [[3, 1], [2]]
    assert labels(DataLoader(Numbers(), batch_sampler=BatchSampler([5, 4, 3], 2, True))) == [[5, 4]]
    assert labels(DataLoader(Numbers(), batch_sampler=[[1], [2, 3]])) == [[1], [2, 3]]


def test_without_batching_samples_come_converted_one_by_one():
    sample = next(iter(DataLoader(Numbers(), batch_size=None)))
    assert isinstance(sample, list) and sample[0].shape == (4,) and sample[1] == 0


def test_collate_fn_decides_what_a_batch_is():
    batch = next(iter(DataLoader(Numbers(), batch_size=2, collate_fn=as_points)))
    assert batch.x.shape == (2, 4) and batch.y == ["number 0", "number 1"]


def test_getitems_is_used_where_a_dataset_has_it():
    class Many(Dataset):
        calls = []

        def __getitems__(self, indices):
            self.calls.append(indices)
            return [-i for i in indices]

        def __len__(self):
            return 4

    assert [b.tolist() for b in DataLoader(Many(), batch_size=3)] == [[0, -1, -2], [-3]]
    assert Many.calls == [[0, 1, 2], [3]]
    assert [b.tolist() for b in DataLoader(Subset(Many(), [2, 0]), batch_size=2)] == [[-2, 0]]


@quick
@given(st.integers(0, 20), st.sampled_from([None, 1, 4]), st.booleans())
def test_streams_are_cut_as_pytorch_cuts_them(size, batch_size, drop_last):
    theirs = pytest.importorskip("torch.utils.data")

    class Theirs(theirs.IterableDataset):
        def __iter__(self):
            return iter(range(size))

    drop_last = drop_last and batch_size is not None
    ours = [np.asarray(b).tolist() for b in DataLoader(Stream(size), batch_size=batch_size, drop_last=drop_last)]
    other = theirs.DataLoader(Theirs(), batch_size=batch_size, drop_last=drop_last)
    assert ours == [b if batch_size is None else b.tolist() for b in other]


def test_the_length_of_a_stream_is_known_only_if_it_says_so():
    assert len(DataLoader(SizedStream(10), batch_size=4)) == 3
    assert len(DataLoader(SizedStream(10), batch_size=4, drop_last=True)) == 2
    assert len(DataLoader(SizedStream(10), batch_size=None)) == 10
    with pytest.raises(TypeError):
        len(DataLoader(Stream(10)))


def test_the_iterator_knows_how_many_batches_there_are():
    assert len(iter(DataLoader(Numbers(10), batch_size=4))) == 3


WRONG = {
    "negative workers": ({"num_workers": -1}, "num_workers"),
    "negative timeout": ({"timeout": -1}, "timeout"),
    "prefetch without workers": ({"prefetch_factor": 2}, "prefetch_factor"),
    "negative prefetch": ({"num_workers": 1, "prefetch_factor": -2}, "prefetch_factor"),
    "persistent without workers": ({"persistent_workers": True}, "persistent_workers"),
    "sampler and shuffle": ({"sampler": [0], "shuffle": True}, "mutually exclusive"),
    "batch sampler and size": ({"batch_sampler": [[0]], "batch_size": 2}, "mutually exclusive"),
    "batch sampler and drop": ({"batch_sampler": [[0]], "drop_last": True}, "mutually exclusive"),
    "no batching and drop": ({"batch_size": None, "drop_last": True}, "mutually exclusive"),
    "zero batch": ({"batch_size": 0}, "batch_size"),
    "context without workers": ({"multiprocessing_context": "spawn"}, "multiprocessing_context"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_refused_as_pytorch_refuses_them(name):
    options, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        DataLoader(Numbers(), **options)
    theirs = pytest.importorskip("torch.utils.data")
    with pytest.raises(ValueError):
        theirs.DataLoader(Numbers(), **options)


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}])
def test_a_stream_has_no_order_to_choose(options):
    with pytest.raises(ValueError, match="expected unspecified"):
        DataLoader(Stream(3), **options)


def test_fork_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="OpenMP"):
        DataLoader(Numbers(), num_workers=1, multiprocessing_context="fork")


def test_what_an_epoch_is_made_of_cannot_change_afterwards():
    loader = DataLoader(Numbers())
    with pytest.raises(ValueError, match="batch_size attribute should not be set"):
        loader.batch_size = 3
    assert loader.batch_size == 1


def test_samples_of_different_shapes_say_what_to_do():
    ragged = [np.zeros(2), np.zeros(3)]
    with pytest.raises(RuntimeError, match="pad them in a collate_fn"):
        next(iter(DataLoader(ragged, batch_size=2)))
