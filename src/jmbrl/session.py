"""One call of ``runner.run``, step by step: open, compile, advance chunk by chunk, save, end."""

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmbrl import configs, data, devices, progress, records, writers
from jmbrl.checkpoint import Checkpoints, config_diff
from jmbrl.lanes import Programs, state_bytes, together
from jmbrl.options import Chunk, Options, Result
from jmbrl.types import DivergedError, Env, Key, PyTree

CHUNK_STEPS = 1000  # environment steps between two looks, where the outermost period is shorter


class Session:
    """The state of one call of ``run``: ``start``, ``advance`` over ``spans``, ``finish``, ``close``."""

    def __init__(
        self,
        train: Any,
        keys: Key,
        names: list[int],
        directory: str | Path | None,
        config: dict | None,
        eval_env: Env,
        callbacks: Sequence[Callable[[Chunk], None]],
        options: Options,
        display: progress.Display,
    ):
        self.train, self.names, self.options, self.display = train, names, options, display
        self.config, self.eval_env, self.callbacks = config, eval_env, callbacks
        self.directory = None if directory is None else Path(directory).absolute()
        self.programs: Programs = train.programs(
            keys, names, self.directory, announce=display.phase, note=display.note, mesh=options.mesh
        )
        self.part = train.part(0)
        self.done, self.saved, self.last_save = 0, None, time.monotonic()
        self.rows: list[records.Row] = []
        self.history: list[dict[str, np.ndarray]] = []
        self.diverged: dict[int, str] = {}
        self.exploded: set[int] = set()
        self.latest: dict[int, float] = {}
        self.agreement: dict[str, float] | None = None  # None: not compared yet
        self.began, self.spent = time.perf_counter(), {"wall_seconds": 0.0, "compile_seconds": 0.0}
        self.checkpoints: Checkpoints | None = None
        self.writers = writers.Writers()
        self.runs: tuple = ()

    # ------------------------------------------------------------------------------- start

    def start(self, resume: bool) -> None:
        abstract = self.programs.abstract()
        self._show_memory(abstract)
        if self.directory is not None:
            self._open(self.directory, resume)
        restored = None
        if resume and self.checkpoints is not None:
            restored = self.checkpoints.restore(abstract, configs.identity(self.config))
        if restored is None:
            self.runs = self.programs.init()
        else:
            self._take_up(*restored)
        self._show_part(self.done)
        if self.directory is not None and devices.first():
            writers.truncate(self.directory / "metrics.jsonl", self.done)
            self.rows = writers.read_rows(self.directory / "metrics.jsonl")
            self.writers = writers.make(self.directory, self.options.writers, self.config)

    def _show_part(self, done: int) -> None:
        """A bar for the stage that begins (or goes on) here."""
        self.part = stage, first = self.train.part(done)
        self.display.start(stage.length, done - first, stage.name, stage.unit)

    def _show_memory(self, abstract: PyTree) -> None:
        total = state_bytes(abstract)
        each = f" ({progress.size(total / len(self.names))} a seed)" if len(self.names) > 1 else ""
        self.display.note(f"state of the run: {progress.size(total)}{each}")
        if self.programs.mesh is not None:
            shape = dict(self.programs.mesh.shape)
            share, inner = len(self.names) // shape[devices.SEED], self.programs.mesh.size // shape[devices.SEED]
            groups = "devices" if inner == 1 else f"groups of {inner} devices"
            self.display.note(f"{share} of {len(self.names)} seeds on each of {shape[devices.SEED]} {groups}")

    def _open(self, directory: Path, resume: bool) -> None:
        devices.first_only(self._check_directory, directory, resume)
        self.checkpoints = Checkpoints(directory / "checkpoints", self.options.keep)
        if self.config is not None and devices.first():
            writers.write_json(directory / "config.json", self.config)

    def _check_directory(self, directory: Path, resume: bool) -> None:
        if not resume and holds_run(directory):
            raise ValueError(
                f"directory {directory} already holds a run: resume it (`jmbrl resume DIR`, resume=True), "
                "or start over with --fresh, or choose another directory"
            )
        saved = directory / "config.json"
        if resume and saved.exists() and self.config is not None:
            configs.check(saved, self.config)

    def _take_up(self, step: int, runs: tuple, metadata: dict) -> None:
        if step > self.train.steps:
            raise ValueError(f"steps must be at least {step}, where the checkpoint stands, got {self.train.steps}")
        self.runs = self.programs.resume_env(runs) if self.train.env.spec.host else runs
        self.done = self.saved = step
        self.spent = metadata.get("spent", self.spent)
        self.diverged = {int(seed): why for seed, why in metadata.get("diverged", {}).items()}
        if metadata.get("versions", configs.versions()) != configs.versions():
            warnings.warn(
                "resumed with other versions than it was saved with; numbers may differ in the last bits: "
                + "; ".join(config_diff(metadata["versions"], configs.versions())),
                stacklevel=4,
            )
        self.display.note(f"resumed at step {step}")

    # ------------------------------------------------------------------------------- chunks

    def spans(self, since: int | None = None) -> list[Any]:
        """What is left to do. A run that was extended may stand inside a chunk of the new division."""
        done = self.done if since is None else since
        spans = self.train.spans(self._periods())
        left = [span for span in spans if span.start >= done]
        for span in spans:
            end = span.start + span.length
            if span.start < done < end:
                if span.warmup or (done - span.start) % self.train.period:
                    period = "the warm-up" if span.warmup else f"a period of {self.train.period} steps"
                    raise ValueError(f"steps cannot be changed now: the run stands at {done}, inside {period}")
                left.insert(0, span._replace(start=done, length=end - done))
        return left

    def _periods(self) -> int:
        if self.options.periods_per_chunk is not None:
            return self.options.periods_per_chunk
        wanted = min(CHUNK_STEPS, max(self.train.steps // 20, 1))
        return max(1, wanted // self.train.period)

    def advance(self, span: Any) -> None:
        if self.train.part(span.start) != self.part:
            self._show_part(span.start)
        self.display.phase(self.part[0].name)
        self.runs, metrics = self.programs.chunk(self.runs, span)
        end = span.start + span.length
        broken = records.broken(metrics, self.names)
        start_steps, end_steps = self.train.env_steps(span.start), self.train.env_steps(end)
        rows = records.chunk_rows(metrics, self.names, start_steps, end_steps)
        rows += self._evaluation(start_steps, end_steps, end) if not broken else []
        if self.part[0].unit != "steps":  # work that environment steps do not tell
            rows = [row | {"stage": self.part[0].name, "work": end} for row in rows]
        self._write(rows)
        self.history.append(metrics)
        if broken:
            self._diverged(span, metrics, broken)
        self._exploded(span, metrics)
        self.done = end
        if self.agreement is None and end >= self.train.warmup:
            self._compare()
        self._show()
        if devices.any_process(time.monotonic() - self.last_save >= self.options.checkpoint_seconds):
            self.save()
        for callback in self.callbacks:
            callback(Chunk(end_steps, self.train.env_steps(self.train.steps), rows, metrics))

    def _evaluation(self, start: int, end: int, done: int) -> list[records.Row]:
        every = self.options.eval_every
        if not every or (end // every == start // every and done < self.train.steps):
            return []
        self.display.phase("evaluating")
        found = self.programs.evaluate(self.runs, done, self.eval_env, self.options.eval_episodes)
        return [
            {
                "env_steps": end,
                "seed": seed,
                "eval_return": float(np.mean(found["returns"][lane], dtype=np.float64)),
                "eval_length": float(np.mean(found["lengths"][lane], dtype=np.float64)),
            }
            for lane, seed in enumerate(self.names)
        ]

    def _compare(self) -> None:
        """Warn where the environment's functions, which every imagined step believes, do not fit its first rows."""
        self.agreement = {}
        if not devices.first():  # the first seed is there
            return
        try:
            replay = devices.own_lanes(getattr(self.runs[0].agent, "replay", None))
            found = data.check_given(self.train.env, replay, lane=0)
        except Exception as error:  # a comparison must not end a run
            warnings.warn(f"the given functions were not compared with the data ({error})", stacklevel=3)
            return
        if found is not None:
            self.agreement = {name: value for name, value in found._asdict().items() if value is not None}

    def _write(self, rows: list[records.Row]) -> None:
        self.rows += rows
        self.writers.write(rows)
        self.latest |= {row["seed"]: row["episode_return"] for row in rows if "episode_return" in row}

    def _show(self) -> None:
        shown = {"return": float(np.mean(list(self.latest.values())))} if self.latest else {}
        losses = [name for name in self.history[-1] if name.endswith("/loss")]
        if losses:
            name = "model/loss" if "model/loss" in losses else losses[0]
            shown[name.replace("/", " ")] = float(np.mean(self.history[-1][name]))
        for name, values in self.history[-1].items():
            if name.endswith("/fitness_mean"):
                shown["fitness"] = float(np.mean(values))
        self.display.update(self.done - self.part[1], shown)

    def save(self) -> None:
        """Start a checkpoint; its metrics reach the disk first, so it is never ahead of them."""
        if self.checkpoints is None or self.saved == self.done:
            return
        self.writers.flush()
        metadata = {
            "config": configs.identity(self.config) or {},
            "spent": self._spent(),
            "versions": configs.versions(),
            "diverged": {str(seed): why for seed, why in self.diverged.items()},
        }
        if self.checkpoints.save(self.done, self.runs, metadata):
            self.saved = self.done
        self.last_save = time.monotonic()

    # ------------------------------------------------------------------------------- ends

    def _exploded(self, span: Any, metrics: dict) -> None:
        """Warn once of each seed whose critic left what its rewards allow: the run is finite, and most likely lost."""
        for seed, why in records.exploded(metrics, self.names).items():
            if seed not in self.exploded:
                self.exploded.add(seed)
                text = f"seed {seed}: values more than ten times what the rewards seen can add up to, {why}"
                warnings.warn(f"{text}, before step {span.start + span.length}", stacklevel=4)

    def _diverged(self, span: Any, metrics: dict, broken: dict[int, str]) -> None:
        news = {seed: why for seed, why in broken.items() if seed not in self.diverged}
        lanes = {seed: self.names.index(seed) for seed in news}
        if self.options.keep_going:
            for seed, why in news.items():
                warnings.warn(f"seed {seed} diverged before step {span.start + span.length}: {why}", stacklevel=3)
            self.diverged |= news
            return
        if not news:
            return
        self.done = span.start
        seed, why = next(iter(news.items()))
        text = (
            f"seed {seed} diverged in steps {span.start} to {span.start + span.length}: {why}; "
            f"first non-finite: {records.first_bad(metrics, lanes[seed])}"
        )
        if self.options.debug:
            text += f"; {self._explain(span, lanes[seed])}"
        if self.checkpoints is not None:
            self.checkpoints.wait()
            kept = f"step {max(self.checkpoints.steps())}" if self.checkpoints.steps() else "none yet"
            text += f"; last good checkpoint: {kept} in {self.checkpoints.directory}"
        self.diverged |= news
        self._summarise("diverged")
        raise DivergedError(text)

    def _explain(self, span: Any, lane: int) -> str:
        """Go back to just before the bad chunk, save that, and look inside. Runs repeat exactly, so this can."""
        self.display.note("running the chunk again under checkify")
        restored = None
        if self.checkpoints is not None:
            self.checkpoints.wait()
            restored = self.checkpoints.restore(self.programs.abstract())
        step, runs = restored[:2] if restored else (0, self.programs.init())
        for earlier in self.spans(step):
            if earlier.start < span.start:
                runs, _ = self.programs.chunk(runs, earlier)
        self.runs = runs
        self.save()
        found = self.programs.explain(runs, span, lane)
        return f"checkify: {found}" if found else "checkify found nothing: the numbers only differ in that program"

    def _spent(self) -> dict[str, float]:
        return {
            "wall_seconds": self.spent["wall_seconds"] + time.perf_counter() - self.began,
            "compile_seconds": self.spent["compile_seconds"] + self.programs.compile_seconds,
        }

    def _summarise(self, ended: str) -> dict[str, Any]:
        config = self.config or {}
        summary = {
            "system": config.get("system", "custom"),
            "env": config.get("env", self.train.env.spec.name),
            "seeds": self.names,
            "env_steps": self.train.env_steps(self.done),
            "steps": self.train.env_steps(self.train.steps),
            "ended": ended,
            **records.summarise([row for row in self.rows if records.work(row) <= self.done], self.names),
            **self._spent(),
            "diverged": self.diverged,
            "agreement": self.agreement or {},
            "program_bytes": self.programs.temporary_bytes,
        }
        if self.directory is not None and devices.first():
            try:
                writers.write_json(self.directory / "summary.json", summary)
                self._draw(summary)
            except OSError as error:
                warnings.warn(f"summary and figure are not in {self.directory} ({error})", stacklevel=3)
        return summary

    def _draw(self, summary: dict[str, Any]) -> None:
        from jmbrl.diagnostics import figures

        title = f"{summary['system']} on {summary['env']}"
        figures.save(figures.learning_curve(self.rows, title), self.directory / "learning_curve.png")

    def finish(self, reason: str) -> Result:
        self.save()
        if self.checkpoints is not None:
            self.checkpoints.wait()
            self._export()
        stopped = reason if self.done < self.train.steps else ""
        summary = self._summarise(f"stopped by {stopped}" if stopped else "finished")
        history = {}
        for name in dict.fromkeys(name for metrics in self.history for name in metrics):
            history[name] = np.concatenate([m[name] for m in self.history if name in m], axis=1)
        return Result(together(self.runs), history, self.train.env_steps(self.done), summary, stopped)

    def _export(self) -> None:
        from jmbrl import policy

        assert self.directory is not None  # the checkpoints lie in it
        try:
            policy.export(self.directory, self.train, self.runs, self.names, self.done)
        except Exception as error:  # a finished run is worth more than its export
            warnings.warn(f"the policy was not exported to {self.directory} ({error})", stacklevel=3)

    def close(self) -> None:
        self.writers.close()
        self.programs.close()
        if self.checkpoints is not None:
            self.checkpoints.close()


def holds_run(directory: str | Path) -> bool:
    """Whether a directory has what a run leaves there."""
    return any((Path(directory) / name).exists() for name in ("config.json", "metrics.jsonl", "checkpoints"))
