"""Learning beside the loop: when weights change, how old they are, and which are never acted on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from control.scripted import PERIOD, Plant, learner

from jmbrl import control


def run(agent, steps, learning=0.25, plant=None, **options):
    clock = control.SimulatedClock(plan=0.01, learn=learning)
    state = agent.init(jax.random.key(0), 1)
    plant = plant or Plant()
    options = {"learn": "background", "period": PERIOD, **options}
    return control.run(plant, agent, state, steps=steps, clock=clock, **options), plant


def test_weights_change_at_the_first_tick_after_they_are_ready():
    report, plant = run(learner(), 15)
    # Five rows at 0.5 s, ready at 0.75 s: from tick 8 on. Ten at 1 s, ready at 1.25 s: from tick 13 on.
    np.testing.assert_allclose(plant.applied, [0.0] * 8 + [0.2] * 5 + [0.4] * 2, atol=1e-6)
    assert [tick.age for tick in report.ticks] == [*range(8), 3, 4, 5, 6, 7, 3, 4]
    learned = report.learned
    assert (learned.published, learned.refused, learned.merged, learned.error) == (3, 0, 0, "")
    assert [m["env_steps"] for m in learned.metrics] == [5, 10, 15]
    assert [int(m["rows"]) for m in learned.metrics] == [5, 10, 15]  # each update had all rows


def test_weights_do_not_change_while_a_plan_is_under_way():
    clock = control.SimulatedClock(plan=lambda i: 0.19 if i == 5 else 0.01, learn=0.01)
    agent, plant = learner(), Plant()
    report = control.run(
        plant, agent, agent.init(jax.random.key(0), 1), period=PERIOD, steps=9, learn="background", clock=clock
    )
    # New ones are there from tick 5 on... at 0.51 s, so at tick 6; the late plan of tick 5 was begun with the old.
    assert [tick.by for tick in report.ticks] == ["agent"] * 5 + ["late", "busy"] + ["agent"] * 2
    np.testing.assert_allclose(plant.applied, [0.0] * 7 + [0.2] * 2, atol=1e-6)


def test_all_rows_are_recorded_in_order_and_the_state_given_is_left_alone():
    agent = learner()
    state = agent.init(jax.random.key(0), 1)
    report = control.run(
        Plant(nan_at=(3,)), agent, state, period=PERIOD, steps=7, learn="background", clock=control.SimulatedClock()
    )
    assert int(report.state["rows"]) == 7
    # The observation after two steps is broken in rows 2 and 3: the one that led to it and the one from it.
    np.testing.assert_allclose(report.state["seen"][:7, 0], [0.0, 0.1, -1.0, -1.0, 0.4, 0.5, 0.6], atol=1e-6)
    np.testing.assert_allclose(state["seen"], 0.0)


def test_a_slow_learner_leaves_out_updates_rather_than_falling_behind():
    report, _ = run(learner(), 20, learning=1.2)
    # Begun at 0.5 s, ready at 1.7 s; those of 10 and 15 rows are due by then, and are one, begun with 18 rows at 1.8 s.
    assert [m["env_steps"] for m in report.learned.metrics] == [5, 15]
    assert [int(m["rows"]) for m in report.learned.metrics] == [5, 18]
    assert report.learned.merged == 1


def test_the_warm_up_is_random_and_the_first_update_comes_at_its_end():
    report, plant = run(learner(warmup=4), 8, learning=0.0)
    assert [tick.by for tick in report.ticks] == ["random"] * 4 + ["agent"] * 4
    assert len(set(plant.applied[:4])) == 4
    np.testing.assert_allclose(plant.applied[4:], 0.2, atol=1e-6)
    assert [m["env_steps"] for m in report.learned.metrics] == [4]
    again, _ = run(learner(warmup=4), 6, learning=0.0, done=4)  # four steps were done in an earlier run
    assert {tick.by for tick in again.ticks} == {"agent"}
    assert [m["env_steps"] for m in again.learned.metrics] == [9]


def test_weights_that_are_no_number_are_never_acted_on():
    agent = learner(update=lambda w, step: jnp.where(step == 5, jnp.nan, 0.3 + 0 * jnp.nan_to_num(w)))
    report, plant = run(agent, 15, learning=0.0)
    np.testing.assert_allclose(plant.applied, [0.0] * 10 + [0.6] * 5, atol=1e-6)
    assert (report.learned.refused, report.learned.published) == (1, 2)
    assert report.fallbacks["action"] == 0


def test_bounds_that_are_infinite_from_the_start_do_not_count():
    weights = {0: jnp.asarray([-jnp.inf, 1.0])}
    assert control.learner.still_finite(weights, weights)
    assert control.learner.still_finite({0: jnp.asarray([-1.0, 1.0])}, weights)
    assert not control.learner.still_finite({0: jnp.asarray([-jnp.inf, jnp.inf])}, weights)
    assert not control.learner.still_finite({0: jnp.asarray([jnp.nan, 1.0])}, weights)


def test_when_the_learner_raises_the_agent_acts_on_with_the_last_weights():
    def bad(w, step):
        def look(w, step):
            if step == 10:
                raise OverflowError("no memory left")
            return np.asarray(w + np.float32(0.1))

        return jax.pure_callback(look, jax.ShapeDtypeStruct((1,), jnp.float32), w, step)

    report, plant = run(learner(update=bad), 20, learning=0.0)
    np.testing.assert_allclose(plant.applied, [0.0] * 5 + [0.2] * 15, atol=1e-6)
    assert "no memory left" in report.learned.error
    assert "no memory left" in str(report)
    assert report.ticks[-1].age == 14
    assert int(report.state["rows"]) == 10  # as it was when it raised


def test_between_episodes_the_plant_is_stopped_while_it_learns():
    clock = control.SimulatedClock(learn=2.0)
    agent, plant = learner(), Plant(clock, ends_every=12)
    report = control.run(
        plant, agent, agent.init(jax.random.key(0), 1), period=PERIOD, steps=24, learn="between", clock=clock
    )
    np.testing.assert_allclose(plant.applied, [0.0] * 12 + [0.4] * 12, atol=1e-6)  # two updates
    np.testing.assert_allclose(report.ticks[12].time - report.ticks[11].time, PERIOD + 2.0)
    assert plant.calls[13:15] == ["stop", "reset"]
    assert [m["env_steps"] for m in report.learned.metrics] == [5, 10, 15, 20]
    assert report.learned.merged == 0


def test_an_agent_that_learns_in_stages_is_refused():
    agent = learner()._replace(stages=lambda env, steps: ())
    with pytest.raises(ValueError, match="agent learns in stages"):
        run(agent, 3)
