"""RunningStatistics and channel_statistics against two passes over everything at once."""

from __future__ import annotations

import numpy as np
import pytest

from shared.data.statistics import RunningStatistics, channel_statistics


def batches(sizes, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(5, 2, (size, channels, 4, 4)) for size in sizes]


@pytest.mark.parametrize("sizes", [(1,), (4, 2), (1, 7, 3), (5, 0, 2)])
def test_any_cut_into_batches_gives_the_statistics_of_the_whole(sizes):
    parts = batches(sizes)
    whole = np.concatenate(parts).transpose(1, 0, 2, 3).reshape(3, -1)
    mean, std = channel_statistics(parts)
    np.testing.assert_allclose(mean, whole.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(std, whole.std(axis=1), rtol=1e-12)


def test_merging_two_halves_is_as_good_as_one_pass():
    parts, one, two, all_ = batches((3, 4, 5)), RunningStatistics(), RunningStatistics(), RunningStatistics()
    one.update(parts[0])
    for part in parts[1:]:
        two.update(part)
    for part in parts:
        all_.update(part)
    one.merge(two)
    one.merge(RunningStatistics())
    np.testing.assert_allclose(one.mean, all_.mean, rtol=1e-12)
    np.testing.assert_allclose(one.std, all_.std, rtol=1e-12)
    assert one.count == all_.count == 12 * 16


def test_data_far_from_zero_keep_their_variance():
    values = np.random.default_rng(0).standard_normal((200, 1)).astype(np.float32) + np.float32(4096)
    statistics = RunningStatistics()
    for part in np.split(values, 20):
        statistics.update(part)
    np.testing.assert_allclose(statistics.std, values.astype(np.float64).std(axis=0), rtol=1e-9)


def test_pairs_use_the_images_and_nothing_is_an_error():
    parts = batches((4, 2))
    assert channel_statistics((part, np.zeros(len(part))) for part in parts) == channel_statistics(parts)
    with pytest.raises(ValueError, match="no batch"):
        channel_statistics([])
    with pytest.raises(ValueError, match=r"\(B, C, ...\)"):
        RunningStatistics().update(np.zeros(3))
    assert np.isnan(RunningStatistics().std)
