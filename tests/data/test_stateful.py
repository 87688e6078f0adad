"""A loader that is stopped within a pass and goes on there."""

import pytest

import shared
from shared import nn
from shared.data import IterableDataset, RandomSampler, StatefulDataLoader
from shared.training import load_checkpoint, save_checkpoint

LOADERS = {
    "default generator": lambda: StatefulDataLoader(range(10), batch_size=3, shuffle=True),
    "own generator": lambda: StatefulDataLoader(
        range(10), batch_size=3, shuffle=True, generator=shared.Generator().manual_seed(4)
    ),
    "in order": lambda: StatefulDataLoader(range(10), batch_size=3),
    "workers": lambda: StatefulDataLoader(range(10), batch_size=3, shuffle=True, num_workers=1),
}


@pytest.mark.parametrize("batches", [0, 1, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_goes_on_within_a_pass(tmp_path, loader, batches):
    """After any number of batches, with draws in between, as dropout makes them; four batches are a pass."""
    if loader == "workers" and batches not in (1, 5):
        pytest.skip("each start of a worker takes a second")

    def endless(data):
        while True:
            yield from data

    def draw(stream, count):
        return [(next(stream).tolist(), shared.rand(1).item()) for _ in range(count)]

    shared.manual_seed(3)
    first, model = LOADERS[loader](), nn.Linear(1, 1)
    optimizer = shared.optim.SGD(model.parameters())
    stream = endless(first)
    before = draw(stream, batches)
    save_checkpoint(tmp_path, model, optimizer, 1, data=[first])
    expected = draw(stream, 9)
    shared.manual_seed(77)
    second = LOADERS[loader]()
    load_checkpoint(tmp_path, model, optimizer, data=[second])
    assert draw(endless(second), 9) == expected != before


class Counting:
    """A dataset that notes what was taken from it."""

    def __init__(self):
        self.taken = []

    def __len__(self):
        return 8

    def __getitem__(self, i):
        self.taken.append(i)
        return i


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(8))


def rest_after(loader, again, batches):
    """What comes from `again` when it goes on where `loader` is after some batches; and what from `loader` itself."""
    stream = iter(loader)
    for _ in range(batches):
        next(stream)
    again.load_state_dict(loader.state_dict())
    assert again.state_dict()["given"] == batches, "the place is kept until the pass begins"
    return [batch.tolist() for batch in again], [batch.tolist() for batch in stream]


def test_what_was_given_is_counted_off_without_making_it():
    shared.manual_seed(0)
    dataset = Counting()
    found, expected = rest_after(
        StatefulDataLoader(Counting(), 2, shuffle=True), StatefulDataLoader(dataset, 2, shuffle=True), 3
    )
    assert found == expected and len(found) == 1 and len(dataset.taken) == 2


def test_a_stream():
    found, expected = rest_after(StatefulDataLoader(Stream(), 3), StatefulDataLoader(Stream(), 3), 1)
    assert found == expected == [[3, 4, 5], [6, 7]]


def test_a_sampler_with_a_generator_of_its_own():
    def loader(seed):
        sampler = RandomSampler(range(6), num_samples=12, generator=shared.Generator().manual_seed(seed))
        return StatefulDataLoader(range(6), 4, sampler=sampler)

    found, expected = rest_after(loader(1), loader(2), 2)
    assert found == expected and len(found) == 1


def test_it_changes_no_draw_of_others():
    """Finding its place again draws numbers, which are given back."""
    shared.manual_seed(0)
    first, second = (StatefulDataLoader(range(8), shuffle=True) for _ in range(2))
    next(iter(first))
    second.load_state_dict(first.state_dict())
    before = shared.get_rng_state().tolist()
    iter(second)
    assert shared.get_rng_state().tolist() == before


def test_a_whole_pass_leaves_no_place():
    loader = StatefulDataLoader(range(4))
    list(loader)
    assert loader.state_dict() == {"given": 0, "start": None, "generators": []}
    again = StatefulDataLoader(range(4))
    again.load_state_dict(loader.state_dict())
    assert len(list(again)) == 4 and len(list(again)) == 4


def test_an_older_pass_does_not_count():
    loader = StatefulDataLoader(range(4))
    old, new = iter(loader), iter(loader)
    next(new), list(old)
    assert loader.state_dict()["given"] == 1


def test_the_state_of_another_loader_is_refused():
    other = StatefulDataLoader(range(4), shuffle=True, generator=shared.Generator())
    with pytest.raises(ValueError, match="has 0 generators of its own, but the state is of one with 1"):
        StatefulDataLoader(range(4)).load_state_dict(other.state_dict())
