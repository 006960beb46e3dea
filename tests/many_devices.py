"""An ensemble fitted and rolled on a mesh. As a script: on several meshes of eight devices, one JSON object."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jmbrl import data, models, rollout
from jmbrl.types import Continuous, Spec

MESHES = {"row=4": (1, 4), "member=2,row=4": (2, 4), "member=2": (2, 1)}


def measured(mesh: Mesh | None) -> dict:
    """The fitted weights, imagined returns, and a device's floating-point operations for the latter."""
    spec = Spec("rail", (2,), Continuous((-1.0,), (1.0,)), 50)
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(64, 2)).astype(np.float32)
    push = rng.uniform(-1, 1, (64, 1)).astype(np.float32)
    log = data.from_arrays(obs, push, np.zeros(64, np.float32), obs + 0.1 * push, np.zeros(64, bool))
    member = models.gaussian_mlp(spec, (16, 16), reward=lambda obs, action, after: -jnp.sum(after**2))
    model = models.ensemble(member, 2)
    trainer = models.trainer(model, epochs=2, batch_size=16)

    def fitted(key):
        params = model.init(key)
        return trainer.fit(key, params, trainer.init(params), log)[0]

    def returns(key, params, actions):
        return rollout.objective(model, params, jnp.ones(2), particles=4).returns(key, actions)[0]

    key, actions = jax.random.key(0), jnp.asarray(rng.uniform(-1, 1, (128, 3, 1)), jnp.float32)
    enter = getattr(jax, "set_mesh", None) or jax.sharding.use_mesh  # which JAX 0.7 has instead
    with enter(mesh) if mesh is not None else contextlib.nullcontext():
        params = jax.jit(fitted)(key)
        program = jax.jit(returns).lower(key, params, actions).compile()
        imagined = program(key, params, actions)
        wide = jnp.ones((2, 256))
        batch = jax.jit(lambda key: data.sample(key, log, 16).obs @ wide).lower(key).compile()
        windows = jax.jit(lambda key: data.sample_sequences(key, log, 8, 4).transition.obs @ wide).lower(key).compile()
    return {
        "fitted": np.asarray(params.weights["layers"][0]["kernel"]).tolist(),
        "imagined": np.asarray(imagined).tolist(),
        "batches": [program.cost_analysis()["flops"] for program in (batch, windows)],
        "flops": program.cost_analysis()["flops"],
    }


if __name__ == "__main__":
    found = {}
    for name, shape in MESHES.items():
        chosen = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
        found[name] = measured(Mesh(chosen, ("member", "row")))
    print(json.dumps(found))
