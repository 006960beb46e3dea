"""MuJoCo Playground tasks (an extra: ``pip install "jmbrl[playground]"``)."""

from typing import Any

import jax

from jmbrl.envs.functions import from_functions
from jmbrl.types import Array, Continuous, Env, Key

# The DeepMind control suite tasks: they need no download. Others are found by the package's own registry.
NAMES = (
    "AcrobotSwingup",
    "AcrobotSwingupSparse",
    "BallInCup",
    "CartpoleBalance",
    "CartpoleBalanceSparse",
    "CartpoleSwingup",
    "CartpoleSwingupSparse",
    "CheetahRun",
    "FingerSpin",
    "FingerTurnEasy",
    "FingerTurnHard",
    "FishSwim",
    "HopperHop",
    "HopperStand",
    "HumanoidRun",
    "HumanoidStand",
    "HumanoidWalk",
    "PendulumSwingup",
    "PointMass",
    "ReacherEasy",
    "ReacherHard",
    "SwimmerSwimmer6",
    "WalkerRun",
    "WalkerStand",
    "WalkerWalk",
)
OPEN = True


def make(
    name: str,
    max_steps: int | None = None,
    impl: str = "jax",
    reset_pool: int | None = 64,
    **overrides: Any,
) -> Env:
    """A MuJoCo Playground task.

    Args:
      name: one of ``NAMES``, or any task of the package's registry (robots there download their models).
      max_steps: the time limit; None takes the task's ``episode_length``.
      impl: ``"jax"`` runs everywhere; ``"warp"`` needs an NVIDIA GPU and warp-lang.
      reset_pool: as for brax; None resets anew each time.
      overrides: changes to the task's configuration, by its own names.

    Observations that come as a dictionary are cut down to its ``"state"`` entry, what a policy may see. Rewards of
    the control suite lie in ``[0, 1]``; these tasks end only when the simulation turns non-finite.
    """
    registry = _import()
    if name not in registry.ALL_ENVS:
        from jmbrl.envs.registry import unknown

        raise unknown(f"playground:{name}", tuple(f"playground:{n}" for n in registry.ALL_ENVS))
    env = registry.load(name, config_overrides={"impl": impl, **overrides})
    config = registry.get_default_config(name)
    size = int(env.action_size)

    def observe(obs: Any) -> Any:
        return obs["state"] if isinstance(obs, dict) and "state" in obs else obs

    def reset(key: Key) -> tuple[Any, Any]:
        state = env.reset(key)
        return state, observe(state.obs)

    def step(key: Key, state: Any, action: Array) -> tuple[Any, Any, Array, Array]:
        del key  # the dynamics have no noise
        state = env.step(jax.tree.map(lambda x: x, state), action)
        return state, observe(state.obs), state.reward, state.done

    return from_functions(
        reset,
        step,
        action=Continuous((-1.0,) * size, (1.0,) * size),
        max_steps=int(config.episode_length) if max_steps is None else max_steps,
        name=f"playground:{name}",
        dt=float(env.dt),
        reset_pool=reset_pool,
    )


def _import() -> Any:
    try:
        from mujoco_playground import registry
    except ImportError as error:
        raise ImportError(
            f'playground tasks need the extra "playground": pip install "jmbrl[playground]" ({error})'
        ) from error
    return registry
