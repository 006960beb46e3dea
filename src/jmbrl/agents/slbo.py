"""SLBO: model and policy improved in turns, the model by a two-step loss (Luo et al. 2019, arXiv 1807.03858)."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data, learners, models
from jmbrl.agents.imagination import (
    ImaginationState,
    Noise,
    beliefs_of,
    features,
    features_shape,
    health,
    imagination,
    imagined_paths,
    watched,
)
from jmbrl.agents.off_policy import summary
from jmbrl.agents.system import System
from jmbrl.types import Agent, Array, Continuous, Env, Key, Learner, Model, PyTree, Spec


@dataclasses.dataclass(frozen=True)
class SLBOConfig:
    """Settings; defaults are the paper's code's (reference sheet 2.8).

    Its ablations are settings: ``steps=1`` one imagined step in the model's loss, ``norm="squared"`` the ordinary
    error; ``inner=1, model_updates=2000, policy_updates=200`` is MB-TRPO, which does not take turns.

    What differs from that code: the first stage's rows are of uniform actions rather than of the untrained policy; the
    noise begins anew with each episode; imagination starts where real episodes did, not from resets that nobody
    counts; weight decay spares the biases; actions are normalised before the network reads them. Its network's
    weights start from a normal of 1e-5. Here they start as in every other network, because gradients of 1e-10 through
    such layers are below Adam's epsilon: of the cart-pole, with everything else equal, it learned nothing but the bias
    for 200 updates, and its error after 1,000 was 0.21 of a standard deviation instead of 0.11. Its weight of the
    entropy falls to 0 after 50 stages, which the published runs of 20 do not reach.

    Beware when comparing numbers: in that code ``n_dev_samples`` defaults to ``n_train_samples``, so each stage takes
    another 10,000 real steps for a validation set that nothing reads. Its real steps are twice those it plots.
    """

    # model; the reward is learned where the environment has no function for it, as one more entry of the norm
    hidden: tuple[int, ...] = (500, 500)
    weight_decay: float = 1e-5
    clip_range: float | None = 20.0  # of the data's ranges; theirs is 100 standard deviations: 13 to 28 ranges
    learn_termination: bool = False  # else the environment's own, or never
    steps: int = 2  # imagined in the loss
    norm: str = "l2"  # or squared
    length: int | None = None  # rows per window; None: steps
    model_updates: int = 100  # per turn
    model_batch_size: int = 128  # windows
    model_learning_rate: float = 1e-3
    max_grad_norm: float = 2.0
    # policy
    policy_hidden: tuple[int, ...] = (32, 32)
    initial_std: float = 1.0
    gamma: float = 0.99
    lam: float = 0.95
    max_kl: float = 0.01
    damping: float = 0.1
    cg_iterations: int = 10
    entropy: float = 0.005
    value_hidden: tuple[int, ...] = (64, 64)
    value_learning_rate: float = 1e-3
    value_epochs: int = 5
    value_batch_size: int = 128
    # turns
    inner: int = 20  # per stage
    policy_updates: int = 40  # per turn
    imagined: int = 4000  # rows per policy update
    horizon: int | None = None  # imagined steps; None: an episode (theirs last 500)
    # exploration: Ornstein-Uhlenbeck, beside the policy's own
    theta: float = 0.15
    sigma: float = 0.3  # of the action box [-1, 1]
    # schedule, in environment steps
    fit_every: int = 10_000  # a stage
    warmup: int | None = 10_000  # None: one episode
    capacity: int = 200_000


def slbo(env: Env, config: SLBOConfig = SLBOConfig()) -> Agent:
    """Algorithm 2: one network and TRPO, improved in turns on what is seen so far."""
    network = models.deterministic_mlp(
        env.spec,
        config.hidden,
        reward=env.reward_fn,
        termination="learned" if config.learn_termination else env.termination_fn,
        normalize_targets=True,
        activation=jax.nn.relu,
        weight_decay=config.weight_decay,
        clip_range=config.clip_range,
    )
    model = models.multistep(network, config.steps, norm=config.norm)
    trainer = models.sequence_trainer(
        model,
        optimizer=optax.adam(config.model_learning_rate),
        updates=config.model_updates,
        batch_size=config.model_batch_size,
        length=config.steps if config.length is None else config.length,
        max_grad_norm=config.max_grad_norm,
    )
    own = ("initial_std", "gamma", "lam", "max_kl", "damping", "cg_iterations", "entropy", "value_hidden")
    own += ("value_learning_rate", "value_epochs", "value_batch_size")
    settings = {name: getattr(config, name) for name in own}
    learner = learners.trpo(env.spec.action, features_shape(model)[0], hidden=config.policy_hidden, **settings)
    noise = None
    if isinstance(env.spec.action, Continuous):
        noise = ornstein_uhlenbeck(env.spec.action, config.theta, config.sigma)
    own = ("inner", "policy_updates", "imagined", "horizon", "fit_every", "warmup", "capacity")
    settings = {name: getattr(config, name) for name in own}
    return imagined_turns(env.spec, model, trainer, learner, noise=noise, **settings)


def ornstein_uhlenbeck(action: Continuous, theta: float | Array = 0.15, sigma: float | Array = 0.3) -> Noise:
    r"""Noise that remembers: added to the action, which is then cut to the box.

    .. math:: x_{t+1} = (1 - \theta) x_t + \sigma n_t, \quad n_t \sim N(0, 1), \quad x_0 = 0; \qquad
              a_t \leftarrow \operatorname{clip}(a_t + x_{t+1}, -1, 1)

    Its standard deviation tends to :math:`\sigma / \sqrt{1 - (1 - \theta)^2}`, 0.57 with the defaults, and its
    correlation over ``k`` steps is :math:`(1 - \theta)^k`.

    Args:
      action: a box; ``x`` has an entry per dimension.
      theta: share of ``x`` that a step forgets, in ``[0, 1]``.
      sigma: of each step's innovation, in units of the box ``[-1, 1]``, at least 0.

    Source: Uhlenbeck & Ornstein 1930; Lillicrap et al. 2016 (DDPG, arXiv 1509.02971), whose numbers SLBO's code has.
    """
    checks.number("theta", theta, 0.0, 1.0)
    checks.number("sigma", sigma, 0.0)

    def init() -> Array:
        return jnp.zeros(action.dim)

    def apply(key: Key, state: PyTree, x: Array, features: Array, chosen: Array) -> tuple[Array, Array]:
        del state, features
        x = (1.0 - theta) * x + sigma * jax.random.normal(key, x.shape)
        return jnp.clip(chosen + x, -1.0, 1.0), x

    return Noise(init, apply)


def imagined_turns(
    spec: Spec,
    model: Model,
    trainer: models.Trainer,
    learner: Learner,
    *,
    inner: int = 20,
    policy_updates: int = 40,
    imagined: int = 4000,
    horizon: int | None = None,
    noise: Noise | None = None,
    fit_every: int = 10_000,
    warmup: int | None = None,
    capacity: int = 100_000,
) -> Agent:
    """Act for ``fit_every`` steps, then improve model and policy in turns, so that each sees what the other became.

    A turn is one fit of the model on all real rows, from where the last one ended, and ``policy_updates`` updates of
    the learner, each on new trajectories imagined from observations that real episodes began with.

    Args:
      spec: the environment's.
      model: its belief must be a function of one observation: starts are encoded on their own.
      trainer: of the model; short fits are meant, as there are ``inner`` of them.
      learner: on-policy, of the model's features (normalised by the real rows' mean and spread, once per stage).
      inner: turns per stage.
      policy_updates: per turn.
      imagined: rows per policy update, at least ``horizon``: ``imagined // horizon`` trajectories. One that ends
        earlier leaves its remaining rows unused.
      horizon: imagined steps of a trajectory; None: ``spec.max_steps``.
      noise: added to explored actions.
      fit_every: environment steps of a stage.
      warmup, capacity: as in ``agents.imagination``.

    Raises:
      ValueError: a number outside its range.

    Metrics, one row a stage, means over it: ``model/...``; ``imagine/reward`` (per imagined step) and ``imagine/...``
    as in ``agents.imagination.health``; ``policy/...`` of the learner. Counters of updates and of numbers that are not
    finite are summed; ``model/diverged`` is the share of fits.
    """
    inner = checks.integer("inner", inner, 1)
    policy_updates = checks.integer("policy_updates", policy_updates, 1)
    horizon = checks.integer("horizon", spec.max_steps if horizon is None else horizon, 1)
    count = checks.integer("imagined", imagined, horizon) // horizon
    checks.integer("fit_every", fit_every, 1)

    def stage(key: Key, state: ImaginationState, step: Array) -> tuple[ImaginationState, dict]:
        del step
        key_seen, key_starts, key_turns = jax.random.split(key, 3)
        state = watched(key_seen, model, spec, state)
        starts = data.sample_starts(key_starts, state.replay, inner * policy_updates * count)
        starts = jax.tree.map(lambda x: x.reshape(inner, policy_updates, count, *x.shape[1:]), starts)

        def turn(carry: tuple, inputs: tuple) -> tuple[tuple, dict]:
            (params, opt, learned), (key, starts) = carry, inputs
            key_fit, key_encode, key_updates = jax.random.split(key, 3)
            params, opt, fitted = trainer.fit(key_fit, params, opt, state.replay)
            here = state._replace(params=params)

            def improve(learned: PyTree, inputs: tuple) -> tuple[PyTree, dict]:
                key, obs = inputs
                beliefs = beliefs_of(key_encode, model, spec, params, obs)
                return improved(key, here._replace(learner=learned), beliefs)

            keys = jax.random.split(key_updates, policy_updates)
            learned, info = jax.lax.scan(improve, learned, (keys, starts))
            return (params, opt, learned), info | {f"model/{name}": value for name, value in fitted.items()}

        start = state.params, state.opt, state.learner
        (params, opt, learned), info = jax.lax.scan(turn, start, (jax.random.split(key_turns, inner), starts))
        info = {name: summary(name, x) for name, x in info.items()}
        return state._replace(params=params, opt=opt, learner=learned), info

    def improved(key: Key, state: ImaginationState, beliefs: PyTree) -> tuple[PyTree, dict]:
        """The learner after one update on what its policy does in the model."""
        key_paths, key_update = jax.random.split(key)
        paths = imagined_paths(
            key_paths,
            lambda key, beliefs, actions: model.step_many(key, state.params, beliefs, actions),
            lambda belief: features(model, state.params, state.seen, belief),
            lambda key, x: learner.act(key, state.learner, x, True)[0],
            beliefs,
            horizon,
        )
        learned, info = learner.update(key_update, state.learner, paths.rows, paths.alive)
        reward = jnp.sum(jnp.where(paths.alive, paths.rows.reward, 0.0)) / jnp.sum(paths.alive)
        info = {f"policy/{name}": value for name, value in info.items()}
        return learned, info | health(paths) | {"imagine/reward": reward}

    return imagination(
        spec,
        model,
        trainer,
        learner,
        ((fit_every, stage),),
        noise=noise,
        normalize_features=True,
        warmup=warmup,
        capacity=capacity,
    )


SYSTEMS = (System("slbo", SLBOConfig, slbo, "model and TRPO improved in turns, by a two-step loss (Luo et al. 2019)"),)
