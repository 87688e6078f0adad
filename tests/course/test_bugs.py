"""The law of the classic bugs, for every sprint: the milestone tests catch each, by a message that names it."""

from __future__ import annotations

import pytest

from course import mutants
from course.sprints import Sprint, load_sprints


@pytest.mark.parametrize("sprint", [s for s in load_sprints() if s.exercises], ids=lambda sprint: sprint.label)
def test_every_classic_bug_is_caught_by_a_message_that_names_it(sprint: Sprint) -> None:
    listed = mutants.load(sprint)
    assert len(listed) >= mutants.LEAST
    assert {exercise.id for exercise in sprint.exercises} == {mutant.exercise.id for mutant in listed}
    survivors = [
        f"{fate.mutant.name}: none says {fate.mutant.message!r}, but: {fate.messages or 'all tests passed'}"
        for fate in mutants.run(listed)
        if not fate.killed
    ]
    assert not survivors, "\n".join(survivors)
    assert list(mutants.board(sprint)) == [mutant.name for mutant in listed], (
        "course mutants --write renews the scoreboard"
    )
