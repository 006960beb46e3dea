"""Deadlines, fallbacks and ends of the control loop, in scripted time."""

import jax
import numpy as np
import pytest
from control.scripted import PERIOD, SPEC, Memory, Plant, climber, learner, planner

from jmbrl import control, envs
from jmbrl.types import Continuous


def run(agent, durations, steps, plant=None, **options):
    """A run with a deadline at 80 ms; ``durations`` by tick, 10 ms elsewhere."""
    clock = control.SimulatedClock(plan=lambda i: durations.get(i, 0.01))
    plant = plant or Plant()
    plant.clock = clock
    state = agent.init(jax.random.key(0), 1)
    options = {"period": PERIOD, "deadline": 0.08, **options}
    return control.run(plant, agent, state, steps=steps, clock=clock, **options), plant


def acted(report):
    return [tick.by for tick in report.ticks]


def test_in_time_every_action_is_the_agents_and_is_applied_when_it_is_there():
    report, plant = run(planner(), {1: 0.05, 2: 0.08}, 4)
    assert acted(report) == ["agent"] * 4
    np.testing.assert_allclose(plant.applied, [0.0, 0.2, 0.4, 0.6], atol=1e-6)
    np.testing.assert_allclose(plant.times, [0.01, 0.15, 0.28, 0.31])  # at the deadline is in time
    np.testing.assert_allclose([tick.time for tick in report.ticks], [0.0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(report.planning, [0.01, 0.05, 0.08, 0.01])
    assert report.late == report.overruns == 0
    assert plant.calls == ["reset", *["apply"] * 4, "stop"]


@pytest.mark.parametrize(
    ("fallback", "wanted"),
    [
        ("hold", [0.0, 0.2, 0.2, 0.2, 0.8, 1.0]),
        ("zero", [0.0, 0.2, 0.0, 0.0, 0.8, 1.0]),
        (lambda obs: -obs, [0.0, 0.2, -0.2, -0.3, 0.8, 1.0]),  # in the plant's units
        ("plan", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),  # tick 1's plan went on, and it was right
    ],
)
def test_a_late_plan_is_not_applied_and_while_it_is_under_way_no_other_begins(fallback, wanted):
    report, plant = run(planner(), {2: 0.15}, 6, fallback=fallback)  # ready at 0.35 s
    assert acted(report) == ["agent", "agent", "late", "busy", "agent", "agent"]
    np.testing.assert_allclose(plant.applied, wanted, atol=1e-6)
    np.testing.assert_allclose(plant.times[2:4], [0.28, 0.3])  # at the deadline; at once where nothing is waited for
    assert report.fallbacks == {"late": 1, "busy": 1, "observation": 0, "action": 0}
    np.testing.assert_allclose(report.planning, [0.01, 0.01, 0.15, 0.01, 0.01])


def test_a_late_plans_later_rows_serve_the_periods_after_it():
    # From an observation of 0.1 on the plant stands still in the agent's eyes: its plans are made of the old number.
    plant = Plant()
    look = plant.observe
    plant.observe = lambda: (np.asarray([0.1]), *look()[1:])
    report, _ = run(planner(), dict.fromkeys((1, 2, 3), 0.09), 4, plant, fallback="plan")
    assert acted(report) == ["agent", "late", "late", "late"]
    # Tick 1: row 1 of tick 0's plan (0, .1, .2). Ticks 2, 3: row 1 of the late plans of ticks 1, 2 (.1, .2, .3).
    np.testing.assert_allclose(plant.applied, [0.0, 0.2, 0.4, 0.4], atol=1e-6)


def test_a_plan_that_is_used_up_holds_its_last_action():
    report, plant = run(planner(), {1: 1.0}, 6, fallback="plan")
    assert acted(report) == ["agent", "late", "busy", "busy", "busy", "busy"]
    np.testing.assert_allclose(plant.applied, [0.0, 0.2, 0.4, 0.4, 0.4, 0.4], atol=1e-6)


def test_an_agent_that_replans_every_few_steps_is_read_at_the_row_for_now():
    rows = np.asarray([[0.1], [0.2], [0.3]], np.float32)
    carry = Memory(rows[0], rows, np.zeros(()))
    fallback = control.Fallback("plan", SPEC, carry)
    fallback.planned(carry, tick=4)
    fallback.planned(carry, tick=5)  # the same plan, of which row 1 was executed
    np.testing.assert_array_equal(fallback.action(np.zeros(1), np.zeros(1), tick=6), rows[2])
    fallback.planned(carry._replace(plan_state=np.ones(())), tick=7)  # the same actions, planned anew
    np.testing.assert_array_equal(fallback.action(np.zeros(1), np.zeros(1), tick=8), rows[1])
    fallback.begin()
    np.testing.assert_array_equal(fallback.action(np.zeros(1), np.full(1, 0.7), tick=9), np.float32([0.7]))


def test_an_agent_that_is_always_late_never_acts():
    report, plant = run(planner(), dict.fromkeys(range(9), 0.09), 5, fallback="zero")
    assert plant.applied == [0.0] * 5
    assert report.late == 5
    assert "late" in str(report)


def test_the_agent_is_told_what_the_fallback_did_and_keeps_what_it_remembers():
    report, plant = run(climber(), {1: 0.09}, 4, fallback=lambda obs: np.asarray([1.0]))
    assert acted(report) == ["agent", "late", "agent", "agent"]
    np.testing.assert_allclose(plant.applied, [0.2, 1.0, 1.2, 1.4], atol=1e-6)  # 1 is 0.5 of the library's, and on


def test_an_action_that_is_no_number_is_replaced_and_the_agents_memory_begins_anew():
    report, plant = run(climber(), {}, 8, fallback="zero")
    assert acted(report) == ["agent"] * 5 + ["action"] + ["agent"] * 2
    np.testing.assert_allclose(plant.applied, [0.2, 0.4, 0.6, 0.8, 1.0, 0.0, 0.2, 0.4], atol=1e-6)


def test_an_observation_that_is_no_number_is_not_shown_and_its_rows_are_left_out():
    report, plant = run(climber(), {}, 4, Plant(nan_at=(2,)))
    assert acted(report) == ["agent", "agent", "observation", "agent"]
    np.testing.assert_allclose(plant.applied, [0.2, 0.4, 0.4, 0.6], atol=1e-6)
    log = report.log()
    np.testing.assert_allclose(log.replay.data.obs[:, 0, 0], [0.0, 0.3])
    np.testing.assert_allclose(log.replay.data.action[:, 0, 0], [0.1, 0.3], atol=1e-6)


def test_a_fallback_that_is_no_number_becomes_zero():
    _, plant = run(planner(), {1: 0.09, 2: 0.09}, 3, fallback=lambda obs: np.full(2, np.nan))
    assert plant.applied[1:] == [0.0, 0.0]


@pytest.mark.parametrize("error", [ValueError("broken"), RuntimeError("unplugged")])
def test_a_plant_that_raises_is_stopped_and_the_report_survives(error):
    plant = Plant(raises_at=3, error=error)
    with pytest.raises(control.ControlError, match=f"tick 2: {type(error).__name__}: {error}") as raised:
        run(planner(), {}, 5, plant)
    assert plant.calls[-1] == "stop"
    assert len(raised.value.report.ticks) == 2
    assert raised.value.__cause__ is error


def test_ctrl_c_stops_the_plant_and_returns_the_report():
    report, plant = run(planner(), {}, 5, Plant(raises_at=2, error=KeyboardInterrupt()))
    assert plant.calls[-1] == "stop"
    assert report.interrupted
    assert len(report.ticks) == 1


def test_episodes_are_stopped_and_begun_anew_and_a_plan_of_the_last_one_is_dropped():
    plant = Plant(ends_every=3)
    report, _ = run(climber(), {2: 0.19}, 6, plant)  # the plan of tick 2 is ready in tick 3, in the next episode
    assert plant.calls == ["reset", *["apply"] * 3, "stop", "reset", *["apply"] * 3, "stop", "stop"]
    assert acted(report) == ["agent", "agent", "late", "busy", "agent", "agent"]
    np.testing.assert_allclose(plant.applied, [0.2, 0.4, 0.4, 0.0, 0.2, 0.4], atol=1e-6)
    assert report.returns == [3.0, 3.0]
    assert report.lengths == [3, 3]
    assert report.log().episodes == 2


def test_a_slow_plant_delays_the_next_period_and_is_counted():
    clock = control.SimulatedClock()
    plant = Plant()
    apply = plant.apply
    plant.apply = lambda action: (apply(action), clock.sleep_until(clock.now() + (0.25 if plant.step == 1 else 0.0)))
    agent = planner()
    report = control.run(plant, agent, {}, period=0.1, steps=4, clock=clock)
    np.testing.assert_allclose([tick.time for tick in report.ticks], [0.0, 0.1, 0.35, 0.45])
    assert report.overruns == 1


def test_nothing_is_traced_after_the_plant_has_been_reset():
    traced, agent = [], learner(period=2)
    act, record, ((period, update),) = agent.act, agent.record, agent.phases

    def counted(function):
        return lambda *arguments: (traced.append(function), function(*arguments))[1]

    agent = agent._replace(act=counted(act), record=counted(record), phases=((period, counted(update)),))
    plant = Plant(ends_every=4)
    reset, at_reset = plant.reset, []
    plant.reset = lambda: (at_reset.append(len(traced)), reset())[1]
    report, _ = run(agent, {}, 9, plant, learn="background")
    assert report.learned.updates > 0
    assert len(traced) == at_reset[0] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deadline": 0.2}, "deadline must be at most 0.1"),
        ({"period": 0.0}, "period must be at least"),
        ({"fallback": "brake"}, "fallback must be one of hold, zero, plan; got 'brake'"),
        ({"learn": "always"}, "learn must be one of background, between"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_moves(changes, message):
    plant = Plant()
    with pytest.raises(ValueError, match=message):
        run(planner(), {}, 5, plant, **changes)
    assert plant.calls == []


def test_an_agent_without_a_plan_and_a_state_of_many_environments_are_refused():
    with pytest.raises(ValueError, match="fallback='plan' needs an agent whose carry holds a plan"):
        run(learner(), {}, 5, fallback="plan")
    agent = learner()
    many = jax.tree.map(lambda x: x[None], agent.init(jax.random.key(0), 1))
    with pytest.raises(ValueError, match="state must be of one environment"):
        control.run(Plant(), agent, many, period=0.1, steps=1, learn="between")


def test_a_simulated_plant_feels_a_late_action_late():
    """x grows by the action, ten steps a second; the control period is half a second."""

    def reset(key):
        return np.zeros(1, np.float32), np.zeros(1, np.float32)

    def step(key, x, action):
        return x + action, x + action, x[0], False

    env = envs.from_functions(
        reset, step, obs_shape=(1,), action=Continuous((-2.0,), (2.0,)), max_steps=100, name="adder", dt=0.1
    )
    clock = control.SimulatedClock()
    plant = control.EnvPlant(env, clock)
    assert plant.reset() == 0.0
    plant.apply(np.ones(1))
    clock.sleep_until(0.3)  # three steps under 1
    plant.apply(np.full(1, 2.0))
    clock.sleep_until(0.5)  # two under 2
    obs, reward, terminated, truncated = plant.observe()
    assert obs == 7.0
    assert reward == 0 + 1 + 2 + 3 + 5  # of the states before the steps
    assert (terminated, truncated) == (False, False)
    plant.stop()
    clock.sleep_until(1.0)
    assert plant.observe()[0] == 7.0  # 0 is in force
    with pytest.raises(ValueError, match="dt must be given"):
        control.EnvPlant(env._replace(spec=env.spec.__class__(**{**vars(env.spec), "dt": None})), clock)
    looked = control.EnvPlant(env)
    looked.reset()
    looked.apply(np.ones(1))
    assert looked.observe()[0] == 1.0  # without a clock: a step a look


def test_the_real_clock_keeps_results_errors_and_order():
    """No time is asserted, only what must hold however fast the machine is."""
    clock = control.RealClock()
    before = clock.now()
    clock.sleep_until(before - 1.0)
    jobs = [clock.submit("plan", lambda i=i: i) for i in range(3)]
    assert all(clock.wait(job, float("inf")) for job in jobs)
    assert [job.result() for job in jobs] == [0, 1, 2]
    failed = clock.submit("learn", lambda: 1 / 0)
    assert clock.wait(failed, float("inf"))
    with pytest.raises(ZeroDivisionError):
        failed.result()
    assert clock.now() >= before
    assert jobs[0].seconds() >= 0.0
    clock.close()
    agent = planner()
    report = control.run(Plant(), agent, {}, period=1e-3, steps=3)
    assert len(report.ticks) == 3
