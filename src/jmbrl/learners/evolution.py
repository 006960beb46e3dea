"""Evolution strategies: a controller found by its returns alone, from a population drawn around a mean."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from evosax.algorithms import CMA_ES, Open_ES, Sep_CMA_ES

from jmbrl import checks
from jmbrl.health import accept
from jmbrl.learners.controllers import linear_controller
from jmbrl.planners.sampling import moments
from jmbrl.types import ActionSpace, Array, Key, PyTree

STRATEGIES = ("cma_es", "sep_cma_es", "open_es", "cem")


class EvolutionState(NamedTuple):
    """``search``: what candidates are drawn from. ``champion[D]``: the policy that was crowned, of mean return
    ``champion_fitness``, which is ``-inf`` until there is one."""

    search: PyTree
    champion: Array
    champion_fitness: Array


class Evolution(NamedTuple):
    """A ``types.Learner`` whose policies are vectors ``float32[D]``, and what else one does with a population.

    Attributes:
      init: ``(key) -> EvolutionState``.
      act: ``(key, state, features, explore) -> (action, log_prob)`` of ``best(state)``. It explores by its candidates,
        not by its actions: ``key`` and ``explore`` change nothing and ``log_prob`` is 0.
      update: ``(key, state, rollout) -> (state, info)``, one generation: ``ask``, ``rollout``, ``tell``.
      ask: ``(key, state) -> policies[P, D]``, the next candidates.
      tell: ``(state, policies[P, D], fitness[P]) -> (state, info)``, what they were worth.
      act_with: ``(policy[D], features[F]) -> action``.
      mean: ``(state) -> policy[D]``, the middle of the search: what is deployed and evaluated.
      crown: ``(state, policy[D], fitness) -> state``: the new champion where its fitness is finite and above the old.
      best: ``(state) -> policy[D]``, the champion, or the mean while there is none.
      size: ``D``.
      population: ``P``.
    """

    init: Callable
    act: Callable
    update: Callable
    ask: Callable
    tell: Callable
    act_with: Callable
    mean: Callable
    crown: Callable
    best: Callable
    size: int
    population: int


class Gaussian(NamedTuple):
    """The search distribution of the cross-entropy method, ``float32[D]`` each."""

    mean: Array
    std: Array


class _Strategy(NamedTuple):
    """``start(key) -> search`` with a ``mean``; ``ask(key, search) -> policies[P, D]``; ``tell(search, policies,
    score[P]) -> search``, high scores are better and ``-inf`` is last; ``std(search)``, of each parameter."""

    start: Callable
    ask: Callable
    tell: Callable
    std: Callable


def evolution(
    action: ActionSpace,
    features: int,
    *,
    strategy: str = "cma_es",
    population: int = 64,
    sigma: float | Array = 0.1,
    weight_decay: float | Array = 0.01,
    hidden: Sequence[int] = (),
    bias: bool = True,
    elite_share: float = 0.25,
    min_sigma: float | Array = 0.01,
    learning_rate: float | Array = 0.01,
) -> Evolution:
    r"""Maximises :math:`J(\theta) - \lambda \frac1D \sum_i \theta_i^2` over the parameters of a ``linear_controller``,
    from :math:`\theta \sim N(0, \sigma^2)` on.

    ``update(key, state, rollout)`` calls ``rollout(key, policies[P, D]) -> fitness[P]``, the mean return of each
    candidate (higher is better), for instance ``learners.population.fitness`` averaged over rollouts. A candidate whose
    fitness is NaN or infinite ranks last; a generation of nothing else changes nothing.

    Args:
      action, features, hidden, bias: of ``linear_controller``.
      strategy: ``"cma_es"`` adapts a full covariance, of memory :math:`D^2`, and decomposes it once a generation
        (processor time 0.07 s at 300 parameters, 0.2 s at 867, 0.8 s at 1088: little beside rollouts of images, much
        beside a small dream); ``"sep_cma_es"`` only its diagonal, in 1 ms; ``"open_es"`` climbs the slope of ranks by
        Adam with mirrored candidates and constant ``sigma``; ``"cem"`` refits a diagonal Gaussian to the best.
      population: ``P``, at least 4, even for ``"open_es"``.
      sigma: standard deviation of each parameter at the start, above 0.
      weight_decay: :math:`\lambda`, at least 0.
      elite_share: of the population that ``"cem"`` refits to, in ``(0, 1]``, at least one candidate.
      min_sigma: at least 0; the standard deviations of ``"cem"`` do not fall below it.
      learning_rate: of ``"open_es"``, at least 0.

    Returns:
      An ``Evolution`` with state ``EvolutionState``. ``info``, scalars: ``fitness_mean``, ``fitness_max`` and
      ``fitness_min`` of the candidates with a finite one, without the penalty; ``sigma``, the mean standard deviation
      after the generation; and the counters ``updates``, ``skipped``, ``nonfinite_loss`` (how many candidates had no
      finite fitness) and ``nonfinite_grad`` (0).

    Raises:
      ValueError: a number outside its range, an unknown strategy; ``tell`` where a shape does not fit.

    Source: Ha & Schmidhuber 2018 (arXiv 1803.10122): CMA-ES (Hansen, arXiv 1604.00772, by evosax) with 64 candidates
    of 16 rollouts, sigma 0.1, the penalty as in its code, the mean deployed and every 25 generations a champion kept.
    Ros & Hansen 2008 (separable), Salimans et al. 2017 (arXiv 1703.03864), Rubinstein 1999 (cross-entropy).
    """
    controller = linear_controller(action, features, hidden=hidden, bias=bias)
    size = controller.size
    checks.choice("strategy", strategy, STRATEGIES)
    population = checks.integer("population", population, 4)
    checks.number("sigma", sigma, 1e-8)
    checks.number("weight_decay", weight_decay, 0.0)
    checks.number("elite_share", elite_share, 1e-8, 1.0)
    checks.number("min_sigma", min_sigma, 0.0)
    checks.number("learning_rate", learning_rate, 0.0)
    if strategy == "cem":
        method = _cem(size, population, sigma, max(1, round(elite_share * population)), min_sigma)
    else:
        method = _evosax(strategy, size, population, sigma, learning_rate)

    def init(key: Key) -> EvolutionState:
        return EvolutionState(method.start(key), jnp.zeros(size), jnp.asarray(-jnp.inf, jnp.float32))

    def mean(state: EvolutionState) -> Array:
        return state.search.mean

    def best(state: EvolutionState) -> Array:
        return jnp.where(state.champion_fitness > -jnp.inf, state.champion, mean(state))

    def act(key: Key, state: EvolutionState, x: Array, explore: bool) -> tuple[Array, Array]:
        del key, explore
        return controller.act(best(state), x), jnp.zeros(())

    def ask(key: Key, state: EvolutionState) -> Array:
        return method.ask(key, state.search)

    def tell(state: EvolutionState, policies: Array, fitness: Array) -> tuple[EvolutionState, dict[str, Array]]:
        checks.same_shape("policies", jnp.shape(policies), (population, size), "evolution")
        checks.same_shape("fitness", jnp.shape(fitness), (population,), "evolution")
        good = jnp.isfinite(fitness)
        score = jnp.where(good, fitness - weight_decay * jnp.mean(policies**2, axis=1), -jnp.inf)
        new = method.tell(state.search, policies, score)
        search, health = accept(new, state.search, jnp.max(score), ())
        info = {
            "fitness_mean": jnp.sum(jnp.where(good, fitness, 0.0)) / jnp.maximum(jnp.sum(good), 1),
            "fitness_max": jnp.max(fitness, where=good, initial=-jnp.inf),
            "fitness_min": jnp.min(fitness, where=good, initial=jnp.inf),
            "sigma": jnp.mean(method.std(search)),
        }
        health["nonfinite_loss"] = jnp.sum(~good, dtype=jnp.float32)
        return state._replace(search=search), info | health

    def update(key: Key, state: EvolutionState, rollout: Callable) -> tuple[EvolutionState, dict[str, Array]]:
        key_ask, key_rollout = jax.random.split(key)
        policies = ask(key_ask, state)
        return tell(state, policies, rollout(key_rollout, policies))

    def crown(state: EvolutionState, policy: Array, fitness: Array) -> EvolutionState:
        checks.same_shape("policy", jnp.shape(policy), (size,), "evolution")
        better = jnp.isfinite(fitness) & (fitness > state.champion_fitness)
        return state._replace(
            champion=jnp.where(better, policy, state.champion),
            champion_fitness=jnp.where(better, fitness, state.champion_fitness),
        )

    return Evolution(init, act, update, ask, tell, controller.act, mean, crown, best, size, population)


def _cem(size: int, population: int, sigma: float | Array, elites: int, min_sigma: float | Array) -> _Strategy:
    def start(key: Key) -> Gaussian:
        del key
        return Gaussian(jnp.zeros(size), jnp.full(size, jnp.asarray(sigma, jnp.float32)))

    def ask(key: Key, search: Gaussian) -> Array:
        return search.mean + search.std * jax.random.normal(key, (population, size))

    def tell(search: Gaussian, policies: Array, score: Array) -> Gaussian:
        del search
        top, index = jax.lax.top_k(score, elites)
        mean, variance = moments(policies[index], jnp.isfinite(top))
        return Gaussian(mean, jnp.maximum(jnp.sqrt(variance), min_sigma))

    return _Strategy(start, ask, tell, lambda search: search.std)


def _evosax(strategy: str, size: int, population: int, sigma: float | Array, learning_rate: float | Array) -> _Strategy:
    """evosax minimises and takes a population's costs; infinite ones rank last there."""
    if strategy == "open_es" and population % 2:
        raise ValueError(f"population must be even for open_es, which mirrors every candidate, got {population}")
    with jax.ensure_compile_time_eval():
        zeros = jnp.zeros(size)
        if strategy == "open_es":
            method: Any = Open_ES(
                population, zeros, optimizer=optax.adam(learning_rate), std_schedule=lambda _: jnp.float32(sigma)
            )
        else:
            method = (CMA_ES if strategy == "cma_es" else Sep_CMA_ES)(population, zeros)

    def params() -> PyTree:
        """Made where they are used: a program folds them, one by one they take half a second."""
        standard = method.default_params
        return standard if strategy == "open_es" else standard.replace(std_init=jnp.asarray(sigma, jnp.float32))

    def start(key: Key) -> PyTree:
        state = method.init(key, jnp.zeros(size), params())
        return _strong(state.replace(best_solution=jnp.zeros(size)))  # theirs is NaN until the first generation

    def ask(key: Key, search: PyTree) -> Array:
        return method.ask(key, search, params())[0]

    def tell(search: PyTree, policies: Array, score: Array) -> PyTree:
        # Asking decomposes the covariance; within one program the compiler does it once. No key changes what is told.
        key = jax.random.key(0)
        _, search = method.ask(key, search, params())
        return _strong(method.tell(key, policies, -score, search, params())[0])

    def std(search: PyTree) -> Array:
        if strategy == "open_es":
            return search.std
        return search.std * jnp.sqrt(jnp.diagonal(search.C) if strategy == "cma_es" else search.C)

    return _Strategy(start, ask, tell, std)


def _strong(tree: PyTree) -> PyTree:
    """Without weak types, so that every update has the types of the first and is traced once."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), tree)
