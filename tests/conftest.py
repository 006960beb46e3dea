"""Set before jax is imported: OpenBLAS's threads wait for each other on small matrices (see ``models/gp.py``)."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
