"""MOPO: MBPO on a fixed log, in an ensemble that pays for what it does not know (Yu et al. 2020, arXiv 2005.13239)."""

import dataclasses
from typing import Any

from jmbrl import data
from jmbrl.agents.mbpo import MBPOConfig, learned_model, policy_learner
from jmbrl.agents.offline import logged, offline_trials
from jmbrl.agents.system import System
from jmbrl.types import Agent, Env


@dataclasses.dataclass(frozen=True)
class MOPOConfig:
    """Settings; defaults are the paper's where it has one for all tasks (penalty and length were chosen for each).

    The environment's own termination function is used where it has one, and the reward is learned, as in the paper.
    MOReL's pessimism is ``pessimism="morel"`` with a ``penalty`` worse than any return; MBPO on a log is ``"none"``.
    """

    log: str = ""  # an .npz file for data.from_npz, actions in the environment's own units
    # model
    members: int = 7
    elites: int = 5
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)  # one per layer, the output's last
    probabilistic: bool = True
    learn_reward: bool = True
    learn_termination: bool = False
    model_learning_rate: float = 1e-3
    model_batch_size: int = 256
    epochs: int = 1000  # at most; the fit stops early
    holdout: float = 0.2
    patience: int = 5
    # pessimism
    pessimism: str = "mopo"  # or morel, none
    penalty: float = 1.0
    measure: str | None = None  # std, pairwise or spread; None: the paper's
    quantile: float = 1.0  # of the logged rows' uncertainty, MOReL's threshold
    scaled: bool = False  # uncertainty in units of the observations' spread
    # imagination
    length: int = 5
    rollouts: int = 50_000  # per round
    retain: int = 5  # rounds whose imagined rows are kept
    real_ratio: float = 0.05  # of a batch
    # policy: soft actor-critic, or double deep Q-learning where actions are discrete
    policy_hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 256
    gamma: float = 0.99
    tau: float = 0.005
    alpha: float = 1.0
    target_entropy: float | None = None
    # schedule, in updates of the policy
    updates: int = 500_000
    round_updates: int = 1000
    evaluations: int = 10
    test_episodes: int = 10  # a test


def mopo(env: Env, config: MOPOConfig = MOPOConfig(), log: data.Replay | None = None) -> Agent:
    """Algorithm 2: MBPO on a fixed log, its imagined rewards less what the ensemble does not know.

    ``log``: the rows, in the place of the file that ``config`` names. A run of the command line reads that file again
    whenever it is opened, so it must stay where it is; a checkpoint holds the rows, too.

    Raises:
      ValueError: neither, what ``data.from_npz`` or ``offline_trials`` refuses.
    """
    log = logged(env.spec, config.log, log)
    fields = {field.name for field in dataclasses.fields(MBPOConfig)}
    shared: dict[str, Any] = {name: value for name, value in vars(config).items() if name in fields}
    parts = MBPOConfig(**shared)
    model, trainer = learned_model(env, parts)
    own = ("pessimism", "penalty", "measure", "quantile", "scaled", "length", "rollouts", "retain", "real_ratio")
    own += ("batch_size", "updates", "round_updates", "evaluations", "test_episodes")
    settings: dict[str, Any] = {name: getattr(config, name) for name in own}
    return offline_trials(env.spec, model, trainer, policy_learner(env.spec, model, parts), log, **settings)


def told(env: Env, config: MOPOConfig, steps: int, num_envs: int) -> str:
    """What became of the log, and how much is learned from it."""
    del steps, num_envs
    log = data.from_npz(config.log, spec=env.spec)
    rows = f"{int(log.replay.size)} rows of {log.episodes} episodes ({log.dropped} dropped, {log.cut} cut off)"
    return f"{config.log}: {rows}; {config.updates} updates of the policy"


SYSTEMS = (
    System(
        "mopo",
        MOPOConfig,
        mopo,
        "soft actor-critic in a pessimistic ensemble of logged data (Yu et al. 2020)",
        cost=told,
    ),
)
