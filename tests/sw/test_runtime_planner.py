"""The planner: every wanted task of every wanted image once, by the programs that take the fewest cycles."""

import itertools
from dataclasses import dataclass

import pytest

from edgemoe.bundle import Joined
from edgemoe.runtime.planner import Planner

TASKS = ("a", "b", "c", "d")
ALONE = dict.fromkeys(TASKS, 100)


@dataclass
class Program:
    joined: Joined
    estimated_cycles: int


class Programs:
    """What a planner asks of a bundle: programs and their estimated cycles."""

    def __init__(self, joint=(), alone=ALONE):
        self.tasks = {name: Program(Joined((name,)), cycles) for name, cycles in alone.items()}
        self.joint = [Program(Joined(tuple(tasks), images), cycles) for tasks, images, cycles in joint]
        self.most_images = max([1, *(images for _, images, _ in joint)])


def steps(plan):
    return [("".join(step.joined.tasks), step.joined.images, step.first) for step in plan.steps]


ALL = ("abcd", 1, 250)
PAIRS = [("ab", 1, 150), ("cd", 1, 150), ("bc", 1, 120)]
BATCHES = [(name, images, 100 + 60 * (images - 1)) for name in TASKS for images in (2, 3, 4)]


@pytest.mark.parametrize(
    ("joint", "tasks", "images", "wanted"),
    [
        ([], "a", 1, [("a", 1, 0)]),
        ([], "ca", 1, [("a", 1, 0), ("c", 1, 0)]),
        ([ALL], "abcd", 1, [("abcd", 1, 0)]),
        ([ALL], "abc", 1, [("a", 1, 0), ("b", 1, 0), ("c", 1, 0)]),  # what nobody wants is not computed
        ([("abcd", 1, 401)], "abcd", 1, [("a", 1, 0), ("b", 1, 0), ("c", 1, 0), ("d", 1, 0)]),  # it saves nothing
        (PAIRS, "abcd", 1, [("ab", 1, 0), ("cd", 1, 0)]),
        (PAIRS, "abc", 1, [("a", 1, 0), ("bc", 1, 0)]),
        ([ALL, *PAIRS], "dcba", 1, [("abcd", 1, 0)]),
        ([ALL], "abcd", 2, [("abcd", 1, 0), ("abcd", 1, 1)]),
        (BATCHES, "b", 4, [("b", 4, 0)]),
        (BATCHES, "b", 5, [("b", 1, 0), ("b", 4, 1)]),
        (BATCHES, "ab", 2, [("a", 2, 0), ("b", 2, 0)]),
        ([ALL, *BATCHES], "abcd", 2, [("abcd", 1, 0), ("abcd", 1, 1)]),
        ([ALL, *BATCHES], "ab", 3, [("a", 3, 0), ("b", 3, 0)]),
        ([("b", 2, 150)], "b", 3, [("b", 1, 0), ("b", 2, 1)]),
        ([("ab", 1, 109), ("a", 2, 110), ("b", 2, 110)], "ab", 3, [("ab", 1, 0), ("ab", 1, 1), ("ab", 1, 2)]),
        ([("ab", 1, 130), ("a", 2, 120), ("b", 2, 120)], "ab", 3, [("ab", 1, 0), ("a", 2, 1), ("b", 2, 1)]),
    ],
)
def test_the_cheapest_programs(joint, tasks, images, wanted):
    assert sorted(steps(Planner(Programs(joint)).plan(tuple(tasks), images)), key=lambda s: s[2]) == wanted


@pytest.mark.parametrize("joint", [[], [ALL], PAIRS, BATCHES, [ALL, *PAIRS, *BATCHES, ("ab", 2, 260)]])
def test_all_is_covered_once(joint):
    """Whatever there is: within chunks that fit a slot, and never for more than one by one."""
    programs = Programs(joint)
    planner = Planner(programs)
    for count, images in itertools.product(range(1, 5), range(1, 10)):
        for tasks in itertools.combinations(TASKS, count):
            plan = planner.plan(tasks, images)
            covered = [(image, task) for step in plan.steps for image in step.images for task in step.joined.tasks]
            assert sorted(covered) == sorted(itertools.product(range(images), tasks))
            assert plan.cycles <= 100 * count * images
            first = 0
            for chunk in plan.chunks:
                assert chunk.first == first and 1 <= chunk.images <= programs.most_images
                assert all(image in range(first, first + chunk.images) for step in chunk.steps for image in step.images)
                first += chunk.images
            assert first == images


def test_what_is_worth_a_batch():
    assert Planner(Programs()).most_images(("a",)) == 1
    assert Planner(Programs([ALL])).most_images(TASKS) == 1
    assert Planner(Programs(BATCHES)).most_images(("c",)) == 4
    assert Planner(Programs([("a", 2, 200)])).most_images(("a",)) == 1  # it saves nothing
    assert Planner(Programs([("a", 2, 199)])).most_images(("a",)) == 2
    assert Planner(Programs([("a", 2, 199)])).most_images(("b",)) == 1
    assert Planner(Programs([ALL, *BATCHES])).most_images(TASKS) == 1  # the frames' own program is cheaper


def test_a_step_is_called_as_an_executor_knows_it():
    plan = Planner(Programs([("ab", 1, 150), ("c", 2, 150)])).plan(("a", "b", "c"), 2)
    assert {step.program for step in plan.steps} == {Joined(("a", "b")), Joined(("c",), 2)}
    assert Planner(Programs()).plan(("a",)).steps[0].program == "a"
