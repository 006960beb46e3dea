"""Soft actor-critic's update and an ensemble's rollout in eager PyTorch: what ``jmbrl bench mbpo`` compares with.

Written from the equations of Haarnoja et al. 2018 as such programs commonly are (``nn.Linear``, ``torch.optim.Adam``, a
Python loop), sharing no code with the library. It does no more work than needed: no gradient of the critics' weights in
the policy's step, none at all in rollouts, one batched product for all members of the ensemble.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

try:  # an optional peer, never a dependency
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError:
    torch: Any = None
    nn, functional = torch, torch

LOG_STD = (-10.0, 2.0)


def version() -> str:
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def network(inputs: int, hidden: tuple[int, ...], outputs: int) -> Any:
    layers, width = [], inputs
    for after in hidden:
        layers += [nn.Linear(width, after), nn.ReLU()]
        width = after
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def draw(policy: Any, obs: Any) -> tuple[Any, Any, Any]:
    """A sample before the squash, the standard normal noise in it, and its log-deviation."""
    mean, log_std = policy(obs).chunk(2, dim=-1)
    log_std, noise = log_std.clamp(*LOG_STD), torch.randn_like(mean)
    return mean + log_std.exp() * noise, noise, log_std


def sample(policy: Any, obs: Any) -> tuple[Any, Any]:
    """A tanh-normal's action and its log-probability (appendix C)."""
    raw, noise, log_std = draw(policy, obs)
    normal = -0.5 * (noise**2 + math.log(2 * math.pi)) - log_std
    squash = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
    return raw.tanh(), (normal - squash).sum(-1)


class SAC:
    """Policy, twin critics, their targets and a temperature, each with Adam; ``update`` is one step of all."""

    def __init__(self, obs: int, action: int, hidden: tuple[int, ...], gamma: float = 0.99, tau: float = 0.005):
        self.policy = network(obs, hidden, 2 * action)
        self.critics = nn.ModuleList(network(obs + action, hidden, 1) for _ in range(2))
        self.targets = nn.ModuleList(network(obs + action, hidden, 1) for _ in range(2))
        self.targets.load_state_dict(self.critics.state_dict())
        self.log_alpha = torch.zeros((), requires_grad=True)
        self.goal, self.gamma, self.tau = -float(action), gamma, tau
        self.opt_policy, self.opt_critics, self.opt_alpha = (
            torch.optim.Adam(list(of), lr=3e-4)
            for of in (self.policy.parameters(), self.critics.parameters(), [self.log_alpha])
        )

    def update(self, obs: Any, action: Any, reward: Any, next_obs: Any, terminated: Any) -> None:
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            following, log_prob = sample(self.policy, next_obs)
            value = torch.min(*self.values(self.targets, next_obs, following)) - alpha * log_prob
            target = reward + self.gamma * (1.0 - terminated) * value
        loss = 0.5 * sum(((q - target) ** 2).mean() for q in self.values(self.critics, obs, action))
        self.step(self.opt_critics, loss)

        self.critics.requires_grad_(False)
        chosen, log_prob = sample(self.policy, obs)
        loss = (alpha * log_prob - torch.min(*self.values(self.critics, obs, chosen))).mean()
        self.step(self.opt_policy, loss)
        self.critics.requires_grad_(True)

        self.step(self.opt_alpha, -self.log_alpha * (log_prob.detach() + self.goal).mean())
        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, self.tau)

    @staticmethod
    def values(critics: Any, obs: Any, action: Any) -> tuple[Any, Any]:
        rows = torch.cat([obs, action], dim=-1)
        first, second = (critic(rows)[..., 0] for critic in critics)
        return first, second

    @staticmethod
    def step(optimizer: Any, loss: Any) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Ensemble:
    """A Gaussian model of change and reward; each row is imagined by an elite member drawn for it, in equal shares."""

    def __init__(self, obs: int, action: int, hidden: tuple[int, ...], members: int, elites: int):
        widths = (obs + action, *hidden, 2 * (obs + 1))
        shapes = list(pairwise(widths))
        self.weights = [torch.randn(members, a, b)[:elites] / (2.0 * math.sqrt(a)) for a, b in shapes]
        self.biases = [torch.zeros(elites, 1, b) for _, b in shapes]
        self.mean, self.std = torch.zeros(obs + action), torch.ones(obs + action)
        self.low, self.high = torch.full((obs + 1,), -10.0), torch.full((obs + 1,), 0.5)

    def step(self, obs: Any, action: Any) -> tuple[Any, Any]:
        """``(next_obs, reward)``; the rows are a multiple of the elites."""
        elites = self.weights[0].shape[0]
        order = torch.randperm(len(obs))
        x = ((torch.cat([obs, action], dim=-1) - self.mean) / self.std)[order].view(elites, len(obs) // elites, -1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = functional.silu(torch.baddbmm(bias, x, weight))
        mean, raw = torch.baddbmm(self.biases[-1], x, self.weights[-1]).chunk(2, dim=-1)
        log_var = self.high - functional.softplus(self.high - raw)
        log_var = self.low + functional.softplus(log_var - self.low)
        drawn = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        back = torch.empty_like(drawn).view(len(obs), -1)
        back[order] = drawn.view(len(obs), -1)
        return obs + back[:, :-1], back[:, -1]


def updates(work: Any) -> Callable[[], None]:
    """A call makes ``work.updates`` updates on batches drawn beforehand."""
    torch.manual_seed(0)
    learner = SAC(work.obs, work.action, work.policy_hidden)
    lead = (work.updates, work.batch_size)
    obs, following = torch.randn(*lead, work.obs), torch.randn(*lead, work.obs)
    action, ends = 2.0 * torch.rand(*lead, work.action) - 1.0, torch.zeros(lead)

    def call() -> None:
        for rows in zip(obs, action, obs[..., 0], following, ends, strict=True):
            learner.update(*rows)

    return call


def rollout(work: Any) -> Callable[[], None]:
    """A call rolls the policy through the ensemble, ``work.rollouts`` rows for ``work.horizon`` steps."""
    torch.manual_seed(0)
    if work.rollouts % work.elites:
        raise ValueError(f"rollouts must be a multiple of elites={work.elites}, got {work.rollouts}")
    model = Ensemble(work.obs, work.action, work.hidden, work.members, work.elites)
    policy = network(work.obs, work.policy_hidden, 2 * work.action)
    start = torch.randn(work.rollouts, work.obs)

    @torch.no_grad()
    def call() -> None:
        obs, rows = start, []
        for _ in range(work.horizon):
            action = draw(policy, obs)[0].tanh()
            following, reward = model.step(obs, action)
            rows.append((obs, action, reward, following))
            obs = following

    return call
