"""What a table's planner keeps: visits, the priority queue, predecessors; each against plain Python."""

import heapq

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.data import predecessors, priority_queue, visits

KEY = jax.random.key(0)


def test_visits_keep_the_order_of_states_and_the_time_of_pairs():
    seen = visits.visit(visits.no_visits(4, 2), jnp.asarray([2, 0, -1, 2, 2]), jnp.asarray([1, 0, 1, 0, 1]))
    assert int(seen.states) == 2
    np.testing.assert_array_equal(seen.order[:2], [2, 0])
    assert int(seen.now) == 4
    np.testing.assert_array_equal(seen.tried, [[True, False], [False, False], [True, True], [False, False]])
    np.testing.assert_array_equal(seen.last, [[2, 1], [1, 1], [3, 4], [1, 1]])


@pytest.mark.parametrize("untried", [False, True])
def test_a_state_is_drawn_uniformly_then_one_of_its_actions(untried):
    """The textbook's two draws: a pair of a state where one action was tried is twice as likely as with two."""
    seen = visits.visit(visits.no_visits(3, 2), jnp.asarray([2, 0, 2]), jnp.asarray([1, 0, 0]))
    states, actions = visits.sample_visited(KEY, seen, 12_000, untried)
    share = np.zeros((3, 2))
    np.add.at(share, (np.asarray(states), np.asarray(actions)), 1 / 12_000)
    wanted = [[0.25, 0.25], [0, 0], [0.25, 0.25]] if untried else [[0.5, 0], [0, 0], [0.25, 0.25]]
    np.testing.assert_allclose(share, wanted, atol=0.02)


def test_nothing_is_drawn_before_the_first_visit():
    states, actions = visits.sample_visited(KEY, visits.no_visits(3, 2), 5, False)
    np.testing.assert_array_equal(states, -1)
    assert np.all((actions >= 0) & (actions < 2))


def test_the_queue_agrees_with_a_heap():
    """A random sequence of pushes (new, raised and lowered priorities) and pops."""
    rng = np.random.default_rng(0)
    queue, wanted = priority_queue.empty_queue(37), {}
    push, pop = jax.jit(priority_queue.push), jax.jit(priority_queue.pop)
    for _ in range(150):
        items = rng.choice(37, 3, replace=False)
        priorities, use = rng.permutation(1000)[:3] + rng.random(3) + 1, rng.random(3) < 0.7
        queue = push(queue, jnp.asarray(items), jnp.asarray(priorities, jnp.float32), jnp.asarray(use))
        wanted |= {int(i): np.float32(p) for i, p, u in zip(items, priorities, use, strict=True) if u}
        if rng.random() < 0.6:
            queue, item, priority = pop(queue)
            if not wanted:
                assert (int(item), float(priority)) == (0, 0.0)
                continue
            heap = [(-p, i) for i, p in wanted.items()]
            heapq.heapify(heap)
            top, best = heap[0]
            assert (int(item), float(priority)) == (best, -top)
            del wanted[best]
        assert int(queue.count) == len(wanted)


def test_an_empty_queue_pops_nothing_and_one_of_one_item_works():
    queue = priority_queue.empty_queue(1)
    _, item, priority = priority_queue.pop(queue)
    assert (int(item), float(priority)) == (0, 0.0)
    queue = priority_queue.push(queue, jnp.asarray([0, 0]), jnp.asarray([3.0, 9.0]), jnp.asarray([True, False]))
    queue, item, priority = priority_queue.pop(queue)
    assert (int(item), float(priority)) == (0, 3.0)
    assert int(queue.count) == 0
    with pytest.raises(ValueError, match="count must be at least 1"):
        priority_queue.empty_queue(0)


def test_predecessors_are_kept_once_each_and_counted_where_there_is_no_room():
    known = predecessors.no_predecessors(3, 2)
    known = predecessors.remember(known, jnp.asarray([4, 4, -1, 5, 0, 1]), jnp.asarray([1, 1, 1, 1, 1, 2]))
    np.testing.assert_array_equal(known.pairs, [[-1, -1], [4, 5], [1, -1]])
    assert int(known.dropped) == 1
    with pytest.raises(ValueError, match="predecessors must be at least 1"):
        predecessors.no_predecessors(3, 0)


def test_one_word_is_split_exactly_and_many_states_take_two():
    words = jnp.asarray([0, 1, 2**31, 2**32 - 1, 123456789], jnp.uint32)
    for count in (1, 3, 6, 54, 2**16):
        index, rest = visits._below(words, jnp.asarray(count))
        product = [int(word) * count for word in np.asarray(words)]
        np.testing.assert_array_equal(index, [p >> 32 for p in product])
        np.testing.assert_array_equal(rest, [p & 0xFFFFFFFF for p in product])
    many = visits.visit(visits.no_visits(70_000, 2), jnp.asarray([69_999, 5]), jnp.asarray([1, 0]))
    states, actions = visits.sample_visited(KEY, many, 4_000, False)
    assert set(zip(states.tolist(), actions.tolist(), strict=True)) == {(69_999, 1), (5, 0)}
    np.testing.assert_allclose(np.mean(states == 5), 0.5, atol=0.04)
