"""What is set before jax is imported, in the workers and the processes they start too."""

import importlib.metadata
import mmap
import os

# Compiling is what the tests wait for: programs are optimised little, and fused loops come from the emitter that
# compiles faster. At level 0 that emitter rounds otherwise than what users run; a test that can bear it asks for it by
# its own compiler options. ``make test-all`` sets AS_USERS=1 and compiles what users run.
QUICK = {"--xla_backend_optimization_level": "1", "--xla_cpu_use_fusion_emitters": "false"}


def known(flag: str) -> bool:
    """Whether this jaxlib has the flag: it ends the process where XLA_FLAGS names one that it has not."""
    for path in importlib.metadata.files("jaxlib") or []:
        if path.suffix != ".so":
            continue
        with open(path.locate(), "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(flag.removeprefix("--").encode()) >= 0:
                return True
    return False


given = os.environ.get("XLA_FLAGS", "")
if os.environ.get("AS_USERS") != "1":
    added = [f"{flag}={value}" for flag, value in QUICK.items() if flag not in given and known(flag)]
    os.environ["XLA_FLAGS"] = " ".join([*added, given]).strip()

# OpenBLAS's threads wait for each other on small matrices (see ``models/gp.py``).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
