"""TD-MPC2: planning a few steps in a decoder-free latent model, with learned values for what follows them (Hansen et
al. 2024, arXiv 2310.16828)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data, learners, models, planners
from jmbrl.agents.off_policy import schedule
from jmbrl.agents.system import System
from jmbrl.agents.td_mpc2_update import JointLearner, Learned, joint_learner
from jmbrl.envs.wrappers import vector_size
from jmbrl.health import is_counter
from jmbrl.planners.policy_mppi import PolicyMPPIState
from jmbrl.rollout import objective
from jmbrl.types import Agent, Array, Env, Key, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class TDMPC2Config:
    """Settings; defaults are the released code's for single tasks, its size of 5 million parameters.

    What differs from that code: windows may begin at any row, so that near an episode's end some are shorter; the last
    observation of an episode is a target like any other; the noise of the value that ends a plan, and which two
    ensemble members give it, are drawn once a decision; a learned end counts with its probability.
    """

    # model
    latent: int = 512  # a multiple of 8
    encoder_hidden: int = 256
    hidden: int = 512
    learn_termination: bool = False  # for tasks with terminations
    bins: int = 101
    limit: float = 10.0  # largest symlog of a reward or value
    # values and policy
    critics: int = 5
    dropout: float = 0.01
    gamma: float | None = None  # None: by the episode's length
    tau: float = 0.01
    entropy_scale: float = 1e-4
    log_std: tuple[float, float] = (-10.0, 2.0)
    # training
    horizon: int = 3  # rows of a window, and steps planned
    batch_size: int = 256
    rho: float = 0.5
    consistency_scale: float = 20.0
    reward_scale: float = 0.1
    value_scale: float = 0.1
    termination_scale: float = 1.0
    learning_rate: float = 3e-4
    encoder_scale: float = 0.3  # of the learning rate
    max_grad_norm: float = 20.0
    # planner
    population: int = 512
    proposals: int = 24
    elites: int = 64
    iterations: int | None = None  # None: 6, and 8 from 20 action dimensions on
    temperature: float = 0.5
    min_std: float = 0.05
    max_std: float = 2.0
    # schedule, in environment steps
    updates: float = 1  # per environment step
    warmup: int | None = None  # None: five episodes, at least 1,000; as many updates follow at once
    capacity: int = 1_000_000


class TDMPC2State(NamedTuple):
    """What was seen and what was learned from it."""

    replay: data.Replay
    learned: Learned


def td_mpc2(env: Env, config: TDMPC2Config = TDMPC2Config()) -> Agent:
    """Continuous actions and vector observations."""
    spec = env.spec
    box = checks.continuous("td_mpc2", spec.action, "dreamer_v3")
    vector_size("td_mpc2", spec)
    own = ("latent", "encoder_hidden", "hidden", "bins", "limit", "learn_termination", "rho")
    own += ("consistency_scale", "reward_scale", "termination_scale")
    parts = models.decoder_free_parts(spec, **{name: getattr(config, name) for name in own})
    critics = learners.q_ensemble(
        config.latent, box.dim, hidden=config.hidden, members=config.critics, bins=config.bins, limit=config.limit,
        dropout=config.dropout,
    )  # fmt: skip
    policy = learners.policy_prior(config.latent, box.dim, hidden=config.hidden, log_std=config.log_std)
    gamma = discount(spec.max_steps) if config.gamma is None else checks.number("gamma", config.gamma, 0.0, 1.0)
    own = ("learning_rate", "encoder_scale", "max_grad_norm", "value_scale", "tau", "entropy_scale")
    settings = {name: checks.number(name, getattr(config, name), 0.0) for name in own}
    learner = joint_learner(parts, critics, policy, box.dim, gamma=gamma, **settings)
    usual = 8 if box.dim >= 20 else 6
    own = ("horizon", "population", "proposals", "elites", "temperature", "min_std", "max_std")
    planner = planners.policy_mppi(
        spec,
        iterations=usual if config.iterations is None else config.iterations,
        **{name: getattr(config, name) for name in own},
    )
    capacity = checks.integer("capacity", config.capacity, config.horizon)

    def init(key: Key, num_envs: int) -> TDMPC2State:
        return TDMPC2State(data.empty(spec, capacity, num_envs), learner.init(key))

    def act(
        key: Key, state: TDMPC2State, plan_state: PolicyMPPIState, obs: PyTree, is_first: Array, explore: bool
    ) -> tuple:
        key_see, key_plan, key_pair, key_value, key_noise = jax.random.split(key, 5)
        learned, model = state.learned, parts.model
        pair = critics.pair(key_pair, learned.critics)

        def value(latents: Array) -> Array:
            action, _ = policy.sample(key_value, learned.policy, latents)
            return jnp.mean(critics.value(critics.logits(pair, latents, action, None)), axis=0)

        def propose(key: Key, latents: Array) -> Array:
            return policy.sample(key, learned.policy, latents)[0]

        belief = model.encode(key_see, learned.params, model.initial(learned.params), jnp.zeros(box.dim), obs, is_first)
        goal = objective(model, learned.params, belief, gamma=gamma, terminal_value=value, policy=propose)
        plan_state = jax.tree.map(lambda new, old: jnp.where(is_first, new, old), planner.init(), plan_state)
        plan, plan_state, info = planner.plan(key_plan, plan_state, goal)
        action = plan[0]
        if explore:
            noise = plan_state.std[0] * jax.random.normal(key_noise, action.shape)
            action = jnp.clip(action + noise, -1.0, 1.0)
        return action, planner.shift(plan_state, 1), {f"plan_{name}": x for name, x in info.items()}

    def record(state: TDMPC2State, carry: PyTree, rows: Transition, valid: Array) -> TDMPC2State:
        del carry
        return state._replace(replay=data.add(state.replay, rows, valid))

    warmup = max(1000, 5 * spec.max_steps) if config.warmup is None else config.warmup
    warmup = checks.integer("warmup", warmup, config.horizon)
    phases = (improvement(learner, checks.integer("batch_size", config.batch_size, 1), config.horizon,
                          config.updates, warmup),)  # fmt: skip
    return Agent(
        init, lambda state: planner.init(), act, record, phases, warmup, parts.model, lambda state: state.learned.params
    )


def improvement(learner: JointLearner, batch_size: int, length: int, updates: float, warmup: int) -> tuple:
    """The one phase: ``updates`` per environment step, and as many as there were steps when the warm-up is over."""
    period, per_period = schedule(updates)

    def one(key: Key, state: TDMPC2State) -> tuple[Learned, dict]:
        key_rows, key_update = jax.random.split(key)
        batch = data.sample_sequences(key_rows, state.replay, batch_size, length)
        return learner.update(key_update, state.learned, batch)

    def nothing(state: TDMPC2State) -> dict:
        info = jax.eval_shape(one, jax.random.key(0), state)[1]
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), info)

    def improve(key: Key, state: TDMPC2State, step: Array) -> tuple[TDMPC2State, dict]:
        def body(i: Array, loop: tuple) -> tuple:
            learned, info = one(jax.random.fold_in(key, i), state._replace(learned=loop[0]))
            return learned, jax.tree.map(jnp.add, loop[1], info)

        # With more environments than a period has steps the runner comes here several times at each.
        calls = max(1, state.replay.num_envs // period)
        catch_up = max(per_period, round(warmup * per_period / (period * calls)))
        # A loop of as many turns as there are updates: the step is not mapped over seeds, so none is wasted.
        turns = jnp.where(step == warmup, catch_up, per_period)
        learned, total = jax.lax.fori_loop(0, turns, body, (state.learned, nothing(state)))
        info = {name: x if is_counter(name) else x / turns for name, x in total.items()}
        return state._replace(learned=learned), {f"learner/{name}": x for name, x in info.items()}

    return period, improve


def discount(steps: int) -> float:
    r"""By the steps :math:`L` of an episode: :math:`\gamma = \operatorname{clip}((L/5 - 1) / (L/5), 0.95, 0.995)`.

    >>> discount(200), discount(1000), discount(5000), discount(4)
    (0.975, 0.995, 0.995, 0.95)
    """
    share = steps / 5
    return min(max((share - 1) / share, 0.95), 0.995)


SYSTEMS = (
    System(
        "td_mpc2",
        TDMPC2Config,
        td_mpc2,
        "short plans in a decoder-free latent model with values (Hansen et al. 2024)",
    ),
)
