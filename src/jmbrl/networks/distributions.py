"""Five distributions. The last axis is the event; every other axis is a batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.types import Array, Key

_LOG_2PI = 1.8378770664093453
_LOG_2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_BELOW_1 = 1.0 - 2.0**-24  # the last float32 below 1


class Normal(NamedTuple):
    """A diagonal Gaussian; ``mean, std``: ``float32[..., D]``."""

    mean: Array
    std: Array

    def sample(self, key: Key) -> Array:
        return self.mean + self.std * jax.random.normal(key, jnp.shape(self.mean))

    def mode(self) -> Array:
        return self.mean

    def log_prob(self, x: Array) -> Array:
        """``float32[...]``: summed over the last axis."""
        z = (x - self.mean) / self.std
        return jnp.sum(-0.5 * (z * z + _LOG_2PI) - jnp.log(self.std), axis=-1)

    def entropy(self) -> Array:
        return jnp.sum(0.5 * (1.0 + _LOG_2PI) + jnp.log(self.std), axis=-1)

    def kl(self, other: "Normal") -> Array:
        """``KL(self || other)``, summed over the last axis."""
        ratio = self.std / other.std
        shift = (self.mean - other.mean) / other.std
        return jnp.sum(0.5 * (ratio * ratio + shift * shift - 1.0) - jnp.log(ratio), axis=-1)

    def stop(self) -> "Normal":
        """The same with its gradient stopped."""
        return Normal(jax.lax.stop_gradient(self.mean), jax.lax.stop_gradient(self.std))


class TanhNormal(NamedTuple):
    """``tanh`` of a diagonal Gaussian: actions in ``(-1, 1)`` (SAC, Haarnoja et al. 2018, appendix C)."""

    mean: Array
    std: Array

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        """A sample and its log-probability, from the value before the squash: exact also near -1 and 1."""
        raw = Normal(self.mean, self.std).sample(key)
        return jnp.tanh(raw), self._log_prob_raw(raw)

    def sample(self, key: Key) -> Array:
        return jnp.tanh(Normal(self.mean, self.std).sample(key))

    def mode(self) -> Array:
        """``tanh`` of the Gaussian's mean: the median, what SAC executes when it does not explore."""
        return jnp.tanh(self.mean)

    def log_prob(self, x: Array) -> Array:
        """Of an action in ``[-1, 1]``; the border itself is taken one float32 step inside."""
        return self._log_prob_raw(jnp.arctanh(jnp.clip(x, -1.0 + 6e-8, 1.0 - 6e-8)))

    def _log_prob_raw(self, raw: Array) -> Array:
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)) does not cancel for large |u|.
        correction = jnp.sum(2.0 * (_LOG_2 - raw - jax.nn.softplus(-2.0 * raw)), axis=-1)
        return Normal(self.mean, self.std).log_prob(raw) - correction


class ClippedNormal(NamedTuple):
    """A diagonal Gaussian clipped to ``[-1, 1]``: what a Gaussian policy executes where the actuator saturates.

    The tails lie on the borders as point masses, and ``log_prob`` is that of the *clipped* action (density inside,
    mass on a border), so that it can be taken from what was executed. Its gradient has the mean of the unclipped
    one's and less variance (Fujita & Maeda 2018, arXiv 1802.07564, equation 10).
    """

    mean: Array
    std: Array

    def sample(self, key: Key) -> Array:
        return jnp.clip(Normal(self.mean, self.std).sample(key), -1.0, 1.0)

    def mode(self) -> Array:
        return jnp.clip(self.mean, -1.0, 1.0)

    def log_prob(self, x: Array) -> Array:
        """``float32[...]``: summed over the last axis; ``x`` in ``[-1, 1]``."""
        z = (x - self.mean) / self.std
        inside = -0.5 * (z * z + _LOG_2PI) - jnp.log(self.std)
        below, above = (jax.scipy.special.log_ndtr((-1.0 - side * self.mean) / self.std) for side in (1.0, -1.0))
        return jnp.sum(jnp.where(x >= 1.0, above, jnp.where(x <= -1.0, below, inside)), axis=-1)

    def entropy(self) -> Array:
        """Of the Gaussian before the clip."""
        return Normal(self.mean, self.std).entropy()

    def kl(self, other: "ClippedNormal") -> Array:
        """Of the Gaussians before the clip, which bounds that of the clipped ones from above."""
        return Normal(self.mean, self.std).kl(Normal(other.mean, other.std))


class TruncatedNormal(NamedTuple):
    r"""A diagonal Gaussian conditioned on ``[-1, 1]``, on which it has a density everywhere and no mass at the borders.

    .. math:: p(x) = \frac{\phi(z)}{\sigma\,(\Phi(\beta) - \Phi(\alpha))}, \qquad z = \frac{x - \mu}{\sigma}, \quad
              \alpha = \frac{-1 - \mu}{\sigma}, \quad \beta = \frac{1 - \mu}{\sigma}

    ``mean`` in ``[-1, 1]``: far outside, float32 loses the sliver of the Gaussian that is left. DreamerV2's actor for
    continuous actions (Hafner et al. 2021, arXiv 2010.02193, their code).
    """

    mean: Array
    std: Array

    def sample(self, key: Key) -> Array:
        """By the inverse of the distribution function, so that it is differentiable by ``mean`` and ``std``."""
        uniform = jax.random.uniform(key, jnp.shape(self.mean))
        low, high = (jax.lax.erf(border * _SQRT_HALF) for border in self._borders())
        # erf_inv is infinite at -1 and 1, which erf reaches 4 standard deviations away.
        level = jnp.clip((1.0 - uniform) * low + uniform * high, -_BELOW_1, _BELOW_1)
        return jnp.clip(self.mean + self.std * jax.lax.erf_inv(level) / _SQRT_HALF, -1.0, 1.0)

    def mode(self) -> Array:
        return jnp.clip(self.mean, -1.0, 1.0)

    def log_prob(self, x: Array) -> Array:
        """``float32[...]``: summed over the last axis; ``-inf`` outside of ``[-1, 1]``."""
        inside = Normal(self.mean, self.std).log_prob(x) - jnp.sum(jnp.log(self._mass()), axis=-1)
        return jnp.where(jnp.all(jnp.abs(x) <= 1.0, axis=-1), inside, -jnp.inf)

    def entropy(self) -> Array:
        mass = self._mass()
        low, high = (border * jnp.exp(-0.5 * (border * border + _LOG_2PI)) for border in self._borders())
        return Normal(self.mean, self.std).entropy() + jnp.sum(jnp.log(mass) + 0.5 * (low - high) / mass, axis=-1)

    def _borders(self) -> tuple[Array, Array]:
        return (-1.0 - self.mean) / self.std, (1.0 - self.mean) / self.std

    def _mass(self) -> Array:
        low, high = self._borders()
        return 0.5 * (jax.lax.erf(high * _SQRT_HALF) - jax.lax.erf(low * _SQRT_HALF))


class Categorical(NamedTuple):
    """``logits``: ``float32[..., K]``, unnormalised. An event is an ``int32`` scalar."""

    logits: Array

    def sample(self, key: Key) -> Array:
        return jax.random.categorical(key, self.logits)

    def mode(self) -> Array:
        return jnp.argmax(self.logits, axis=-1)

    def log_prob(self, x: Array) -> Array:
        return jnp.take_along_axis(jax.nn.log_softmax(self.logits), x[..., None], axis=-1)[..., 0]

    def entropy(self) -> Array:
        log_p = jax.nn.log_softmax(self.logits)
        # where: a class of probability 0 has log-probability -inf, and 0 * -inf is NaN.
        return -jnp.sum(jnp.where(jnp.isfinite(log_p), jnp.exp(log_p) * log_p, 0.0), axis=-1)

    def kl(self, other: "Categorical") -> Array:
        """``KL(self || other)``."""
        p, q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return jnp.sum(jnp.where(jnp.isfinite(p), jnp.exp(p) * (p - q), 0.0), axis=-1)
