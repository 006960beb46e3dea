"""Two million frames of 64 x 64 colours lie on disk: World Models' stages read what they use and stay below 8 GiB."""

import json
import subprocess
import sys
import tempfile

import pytest

FRAMES, EPISODE = 2_000_000, 1000
# In a process of its own, where how much memory it had at most begins anew.
CODE = """
import json, os, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from jmbrl import agents, envs
from jmbrl.agents import world_models_stages as parts
from jmbrl.bench.measure import peak_bytes

folder, rows, episode = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
env = envs.make("car_racing")
config = agents.WorldModelsConfig(
    episodes=rows // episode, collector="held", latent=4, channels=(2, 2, 2, 2), hidden=4, mixtures=1, length=50,
    train_in="dream", test_episodes=0,
)
agent = agents.world_models(env, config)
table, latents = parts.frames(folder, env.spec), parts.latents(folder, 4)
for kept in (table, latents):
    for name, (shape, kind) in kept.columns.items():  # holes, which take no disk and read as zeros
        os.truncate(kept.directory / f"{name}.bin", rows * kind.itemsize * int(np.prod(shape, dtype=int)))
(np.arange(rows) % episode == 0).tofile(table.directory / "is_first.bin")
(np.arange(rows) % episode == episode - 1).tofile(table.directory / "is_last.bin")
stages = {stage.name: stage for stage in agent.stages(env, 10**9)}
compiled = {}

def call(name, function, *arguments, donate=()):
    return compiled.setdefault(name, jax.jit(function))(*arguments)

def advance(name, start):
    global state
    state, info = stages[name].advance(call, jax.random.key(0), state, folder, start, stages[name].every)
    report[name] = peak_bytes()
    return info

report = {"obs": (table.directory / "obs.bin").stat().st_size, "imports": peak_bytes()}
state = agent.init(jax.random.key(0), 1)._replace(rows=jnp.int32(rows))
advance("vision", 0)
report["encoded"] = float(advance("encode", stages["encode"].length - stages["encode"].every)["encode/frames"][0])
report["latents"] = len(latents)
advance("memory", 0)
advance("collect", 0)
report["rows"] = int(state.rows)
print(json.dumps(report))
"""


@pytest.mark.slow  # 24.6 GB of holes, 64,000 frames encoded and 16 episodes played
def test_two_million_frames_stay_on_disk(tmp_path):
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:  # pytest would keep it
        command = [sys.executable, "-c", CODE, folder, str(FRAMES), str(EPISODE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    print(report)
    assert report["obs"] == FRAMES * 64 * 64 * 3 > 8 * 2**30
    assert report["encoded"] == 64 * EPISODE  # the last chunk: it was read from its end
    assert report["latents"] == FRAMES
    assert FRAMES < report["rows"] <= FRAMES + 16 * (EPISODE + 1)
    for name in ("vision", "encode", "memory", "collect"):
        assert report["imports"] <= report[name] < 8 * 2**30, (name, report)
