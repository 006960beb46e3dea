"""Tasks written here, in pure JAX."""
