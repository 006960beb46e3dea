"""What is set before jax is imported, in the workers and the processes they start too."""

import importlib.metadata
import os

# Compiling is what the tests wait for: programs are optimised little, and fused loops come from the emitter that
# compiles faster. At level 0 that emitter rounds otherwise than what users run; a test that can bear it asks for it by
# its own compiler options. ``make test-all`` sets AS_USERS=1 and compiles what users run.
QUICK = {"--xla_backend_optimization_level": "1"}
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    QUICK["--xla_cpu_use_fusion_emitters"] = "false"  # gone from 0.11 on, where naming it ends the process

given = os.environ.get("XLA_FLAGS", "")
if os.environ.get("AS_USERS") != "1":
    added = [f"{flag}={value}" for flag, value in QUICK.items() if flag not in given]
    os.environ["XLA_FLAGS"] = " ".join([*added, given]).strip()

# OpenBLAS's threads wait for each other on small matrices (see ``models/gp.py``).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
