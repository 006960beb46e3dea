"""A tiny agent with everything a real one has (weights, optimiser, replay, key), for the tests of the loop around it.

Run as a script it trains in a directory: ``python toys.py DIR [resume]``, to be killed and resumed.
"""

import json
import sys

import jax
import jax.numpy as jnp

from jmbrl.train import make_train
from jmbrl.types import Agent

from worlds import line


def learner(period: int = 20, warmup: int = 20, diverges_at: int | None = None, capacity: int = 64) -> Agent:
    """Acts by ``-w x`` and pulls ``w`` towards the data's mean; from step ``diverges_at`` on every update is bad."""

    def init(key, num_envs):
        return {
            "w": jnp.full((1,), 0.1),
            "opt": jnp.zeros((1,)),
            "key": key,
            "replay": jnp.zeros((capacity, 1)),
            "at": jnp.zeros((), jnp.int32),
            "none": jnp.zeros((0, 3)),
        }

    def act(key, state, carry, obs, is_first, explore):
        noise = 0.1 * jax.random.normal(key, (1,)) if explore else 0.0
        return jnp.clip(-state["w"] * obs + noise, -1.0, 1.0), carry, {"value": jnp.sum(obs)}

    def record(state, carry, rows, valid):
        at = state["at"] % capacity
        return state | {"replay": state["replay"].at[at].set(rows.reward[0]), "at": state["at"] + rows.reward.shape[0]}

    def update(key, state, step):
        inner, following = jax.random.split(state["key"])
        bad = jnp.asarray(False) if diverges_at is None else step >= diverges_at
        gradient = jnp.mean(state["replay"]) + 0.01 * jax.random.normal(inner, (1,)) + jax.random.normal(key, (1,))
        opt = 0.9 * state["opt"] + gradient
        loss = jnp.where(bad, jnp.log(-jnp.abs(jnp.sum(opt))), jnp.sum(opt**2))
        w = jnp.where(bad, state["w"], state["w"] + 0.01 * jnp.tanh(opt))
        info = {"model/loss": loss, "model/skipped": bad.astype(jnp.int32)}
        return state | {"w": w, "opt": opt, "key": following}, info

    return Agent(init, lambda state: jnp.zeros(()), act, record, ((period, update),), warmup)


def toy(steps: int = 200, num_envs: int = 1, **options):
    """A run of the toy agent on the line."""
    return make_train(line(noise=0.1), learner(**options), steps, num_envs)


CONFIG = {"system": "toy", "env": "line", "steps": 1800, "seed": 3, "seeds": 2}


def main() -> None:
    from jmbrl import cache, runner

    cache.enable()
    directory, resume = sys.argv[1], sys.argv[2:] == ["resume"]
    announce = lambda chunk: print(json.dumps(chunk.env_steps), flush=True)  # noqa: E731
    runner.run(
        toy(CONFIG["steps"]),
        3,
        directory,
        seeds=2,
        config=CONFIG,
        resume=resume,
        callbacks=[announce],
        options=runner.Options(checkpoint_seconds=0, periods_per_chunk=2, quiet=True),
    )


if __name__ == "__main__":
    main()
