"""A controller that plans, then a policy that imitates it, then that policy on its own: the stages of MB-MF."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data, learners
from jmbrl.agents.mpc import MPCState
from jmbrl.agents.on_policy import OnPolicyState
from jmbrl.data import running
from jmbrl.health import is_counter
from jmbrl.types import Agent, Array, Continuous, Key, Learner, PyTree, Spec, Transition

PLANNING, IMITATING, MODEL_FREE = 0, 1, 2
HELD = 10  # one labelled row of so many is held back, to see how well the others were imitated


class Labels(NamedTuple):
    """States and what the controller would do there: ``obs[L, ...]``, ``action[L, ...]``, ``valid[L]``."""

    obs: Array
    action: Array
    valid: Array


class MBMFState(NamedTuple):
    """``stage``: ``int32``, who acts: PLANNING, IMITATING (the policy, without exploring) or MODEL_FREE."""

    mpc: MPCState
    policy: OnPolicyState
    labels: Labels
    stage: Array


def imitated_controller(
    spec: Spec,
    controller: Agent,
    actor: Agent,
    cloner: Learner,
    *,
    mpc_steps: int,
    dagger_iterations: int = 3,
    dagger_steps: int,
    epochs: int = 300,
    batch_size: int = 512,
    initial_std: float | Array = 0.5,
) -> Agent:
    r"""A controller that plans, then a policy that imitates it, then that policy on its own.

    After the controller's warm-up it acts for ``mpc_steps``. The policy is fitted to what the controller, without
    noise, does in the last ``dagger_steps`` states, by one more fit of the model. Then, ``dagger_iterations`` times,
    the policy acts without exploring for ``dagger_steps``, the controller says what it would have done in the states
    that were visited, and the policy is fitted to all such labels. From there the actor explores and improves it:
    its first batch teaches the value alone, and what it sees keeps the mean and spread of the labelled states (our own:
    an untrained value, or units that move, undo the imitation within an update).

    .. math:: \mathcal D \leftarrow \mathcal D \cup \{(s, \pi_{MPC}(s)) : s \sim \pi_\theta\}, \qquad
              \theta \leftarrow \arg\min_\theta E_{\mathcal D} \|\pi_\theta(s) - \pi_{MPC}(s)\|^2

    Planning is paid in the first stage and in the labels only, also under ``vmap`` over seeds.

    Args:
      spec: the environment's.
      controller: made by ``agents.mpc`` with a model that learns.
      actor: made by ``agents.on_policy``; its learner's state has the weights ``policy``.
      cloner: ``learners.cloning`` with the policy of the actor's learner.
      mpc_steps: environment steps of planning, at least ``dagger_steps``.
      dagger_iterations: at least 0.
      dagger_steps: environment steps in each.
      epochs, batch_size: of each imitation (``learners.imitate``).
      initial_std: of the Gaussian after imitation, in units of the box.

    Raises:
      ValueError: a number outside its range; ``mpc_steps``, ``dagger_steps`` or the actor's batch no multiple of the
        controller's ``fit_every``, or that no multiple of the number of environments.

    Metrics, one row every ``fit_every`` steps: ``model/...``, ``imitate/...`` (``loss``; ``disagreement`` on the tenth
    of the labels that was held back: the mean squared difference, or the share of other actions where they are
    discrete; counters), ``learner/...`` and ``stage``. Where a stage has no such thing counters are 0, others NaN.

    Source: Nagabandi et al. 2018, sections IV and V; Ross et al. 2011, DAgger (arXiv 1011.0686), algorithm 3.1.
    """
    ((fit_every, fit),), ((batch, improve),) = controller.phases, actor.phases
    dagger_iterations = checks.integer("dagger_iterations", dagger_iterations, 0)
    dagger_steps = checks.integer("dagger_steps", dagger_steps, 1)
    mpc_steps = checks.integer("mpc_steps", mpc_steps, dagger_steps)
    for name, value in (("mpc_steps", mpc_steps), ("dagger_steps", dagger_steps), ("batch", batch)):
        if value % fit_every:
            raise ValueError(f"{name} must be a multiple of fit_every={fit_every}, got {value}")
    checks.integer("epochs", epochs, 1)
    checks.integer("batch_size", batch_size, 1)
    checks.number("initial_std", initial_std, 1e-3)
    planned = controller.warmup + mpc_steps  # the step at which planning ends
    imitated = planned + dagger_iterations * dagger_steps  # and imitation

    def init(key: Key, num_envs: int) -> MBMFState:
        if fit_every % num_envs:
            raise ValueError(f"fit_every must be a multiple of num_envs={num_envs}, got {fit_every}")
        key_mpc, key_policy = jax.random.split(key)
        own = controller.init(key_mpc, num_envs)
        if own.replay.valid.size < dagger_steps:
            raise ValueError(f"capacity must hold dagger_steps={dagger_steps} rows, got {own.replay.valid.size}")
        count = (1 + dagger_iterations) * dagger_steps
        empty = lambda x: jnp.zeros((count, *x.shape[2:]), x.dtype)  # noqa: E731
        labels = Labels(empty(own.replay.data.obs), empty(own.replay.data.action), jnp.zeros(count, bool))
        return MBMFState(own, actor.init(key_policy, num_envs), labels, jnp.zeros((), jnp.int32))

    def act(key: Key, state: MBMFState, carry: PyTree, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        key_plan, key_policy = jax.random.split(key)

        def plan(loop: tuple) -> tuple:
            return jnp.zeros_like(loop[0]), *controller.act(key_plan, state.mpc, carry, obs, is_first, explore)

        action = actor.act(key_policy, state.policy, (), obs, is_first, False)[0]
        if explore:
            drawn = actor.act(key_policy, state.policy, (), obs, is_first, True)[0]
            action = jnp.where(state.stage == MODEL_FREE, drawn, action)
        planning = state.stage == PLANNING
        info = jax.eval_shape(plan, (planning,))[3]
        # A loop of one turn or none: under vmap a cond would plan in every stage.
        return jax.lax.while_loop(lambda loop: loop[0], plan, (planning, action, carry, absent(info)))[1:]

    def record(state: MBMFState, carry: PyTree, rows: Transition, valid: Array) -> MBMFState:
        seen = controller.record(state.mpc, carry, rows, valid)
        return state._replace(mpc=seen, policy=actor.record(state.policy, (), rows, valid))

    def update(key: Key, state: MBMFState, step: Array) -> tuple[MBMFState, dict]:
        key_fit, key_label, key_improve = jax.random.split(key, 3)
        own, about_model = when(step <= planned, fit, key_fit, state.mpc, step)
        labelling = (step >= planned) & (step <= imitated) & ((step - planned) % dagger_steps == 0)
        state, about_labels = when(labelling, label_and_imitate, key_label, state._replace(mpc=own), step)
        before = forgotten(state.policy, step <= imitated)
        improving = (step > imitated) & ((step - imitated) % batch == 0)
        policy, about_policy = when(improving, improve, key_improve, before, step)
        # The first batch teaches the value alone: steps by the advantages of an untrained one undo the imitation. So
        # would inputs in other units than those that were imitated in.
        early = step <= imitated + batch
        weights = jax.tree.map(lambda x, y: jnp.where(early, x, y), before.learner.policy, policy.learner.policy)
        policy = policy._replace(learner=policy.learner._replace(policy=weights), seen=before.seen)
        stage = jnp.where(step < planned, PLANNING, jnp.where(step < imitated, IMITATING, MODEL_FREE))
        state = state._replace(policy=policy, stage=stage.astype(jnp.int32))
        return state, about_model | about_labels | about_policy | {"stage": stage.astype(jnp.float32)}

    def label_and_imitate(key: Key, state: MBMFState, step: Array) -> tuple[MBMFState, dict]:
        key_label, key_imitate = jax.random.split(key)
        new = labelled(key_label, state.mpc)
        place = (step - planned) // dagger_steps * dagger_steps
        labels = jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, place, 0), state.labels, new)
        policy, info = imitation(key_imitate, state.policy, labels)
        return state._replace(labels=labels, policy=policy), {f"imitate/{name}": x for name, x in info.items()}

    def labelled(key: Key, own: MPCState) -> Labels:
        """What the controller would do in the newest ``dagger_steps`` states."""
        assert own.replay is not None  # its model learns
        rows, valid = newest(own.replay, dagger_steps)
        carry, first = controller.reset(own), jnp.asarray(True)

        def one(row: tuple[Key, Array]) -> Array:
            return controller.act(row[0], own, carry, row[1], first, False)[0]

        keys = jax.random.split(key, dagger_steps)
        action = jax.lax.map(one, (keys, rows.obs), batch_size=math.gcd(dagger_steps, 16))
        finite = jax.vmap(lambda x: jnp.all(jnp.isfinite(x)))(action)
        return Labels(rows.obs, action, valid & finite)

    def imitation(key: Key, policy: OnPolicyState, labels: Labels) -> tuple[OnPolicyState, dict]:
        key_init, key_fit = jax.random.split(key)
        obs = labels.obs.reshape(len(labels.valid), -1).astype(jnp.float32)
        if policy.seen is not None:
            policy = policy._replace(seen=running.observe(running.nothing_seen(obs.shape[1]), obs, labels.valid))
        x = obs if policy.seen is None else running.standardise(policy.seen, obs)
        nothing = jnp.zeros(len(x))
        rows = Transition(x, labels.action, nothing, x, nothing > 0, nothing > 0)
        held = labels.valid & (jnp.arange(len(x)) % HELD == HELD - 1)
        # Adam begins anew, from the policy as it is.
        clone = cloner.init(key_init)._replace(policy=policy.learner.policy)
        clone, info = learners.imitate(
            key_fit, cloner, clone, rows, labels.valid & ~held, epochs=epochs, batch_size=batch_size
        )
        mode = jax.vmap(lambda x: cloner.act(key_fit, clone, x, False)[0])(x)
        info["disagreement"] = jnp.sum(jnp.where(held, difference(mode, labels.action), 0)) / jnp.maximum(
            jnp.sum(held), 1
        )
        weights = clone.policy
        if isinstance(spec.action, Continuous):
            log_std = jnp.broadcast_to(jnp.log(jnp.asarray(initial_std, jnp.float32)), weights["log_std"].shape)
            weights = weights | {"log_std": log_std}
        return policy._replace(learner=policy.learner._replace(policy=weights)), info

    return Agent(
        init,
        lambda state: controller.reset(state.mpc),
        act,
        record,
        ((fit_every, update),),
        controller.warmup,
        controller.model,
        lambda state: state.mpc.params,
    )


def when(due: Array, update: Callable, key: Key, state: PyTree, step: Array) -> tuple[PyTree, dict]:
    """``update(key, state, step)`` where it is due (not mapped over seeds), else the state as it is and no metrics."""
    info = jax.eval_shape(update, key, state, step)[1]
    return jax.lax.cond(due, lambda: update(key, state, step), lambda: (state, absent(info)))


def absent(info: dict) -> dict[str, Array]:
    """Metrics of what did not happen: counters and whole numbers are 0, others NaN."""

    def nothing(name: str, x: Array) -> Array:
        counts = is_counter(name) or not jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.full(x.shape, 0 if counts else jnp.nan, x.dtype)

    return {name: nothing(name, x) for name, x in info.items()}


def newest(replay: data.Replay, count: int) -> tuple[Transition, Array]:
    """The last ``count`` rows of all environments together, ``Transition[count]``, and which of them are valid."""
    steps = count // replay.num_envs
    rows = (replay.cursor - steps + jnp.arange(steps)) % replay.capacity
    places = (rows[:, None] * replay.num_envs + jnp.arange(replay.num_envs)).reshape(-1)
    return data.take(replay, places), replay.valid.reshape(-1)[places]


def difference(a: Array, b: Array) -> Array:
    """``float32[N]`` between actions ``[N, ...]``: mean squared, or whether they differ where they are discrete."""
    if jnp.issubdtype(a.dtype, jnp.floating):
        return jnp.mean((a - b) ** 2, axis=-1)
    return (a != b).astype(jnp.float32)


def forgotten(policy: OnPolicyState, forget: Array) -> OnPolicyState:
    """The policy without the rows of its batch, where ``forget``: another one acted there."""
    return policy._replace(valid=policy.valid & ~forget, cursor=jnp.where(forget, 0, policy.cursor))
