"""The training loop on one screen: build, resume, step, look, save, end. What it does is written in `run`."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from minigpt4o.common import distributed
from minigpt4o.common.errors import Preempted
from minigpt4o.common.registry import Part, part, registry
from minigpt4o.runners import checkpoint, data, rundir, setup
from minigpt4o.runners.build import build_model, build_task
from minigpt4o.runners.nonfinite import count_bad, stop_if_bad
from minigpt4o.runners.pace import COMPAT, pace_of
from minigpt4o.runners.plan import plan_text
from minigpt4o.runners.progress import Meter
from minigpt4o.runners.resume import restore
from minigpt4o.runners.schedule import schedule_of
from minigpt4o.runners.signals import StopSignals
from minigpt4o.runners.trackers import open_trackers
from minigpt4o.runners.validate import Validator
from minigpt4o.runners.window import divisors_of, exchange, learned_tokens

if TYPE_CHECKING:
    from minigpt4o.common.config import Settings

log = logging.getLogger(__name__)


@registry.register("runner", "runner_base")
class Runner:
    """Trains what `model.train` names, on one process or many, and can be stopped and continued at any instant."""

    @dataclass
    class Config:
        task: Part = part("task", doc="what is learned from a batch")
        engine: Part = part("engine", default="torch", doc="torch, or deepspeed for ZeRO")
        profile: Literal["default", "compat"] = "default"  # compat: MiniGPT-4's loop and schedule, faults and all
        device: str = "auto"  # auto, cpu, cuda or cuda:N; auto takes the local rank's GPU if there is one
        precision: Literal["auto", "fp32", "bf16"] = "auto"  # number format, unless model.precision names one
        amp: bool = True  # LAVIS's name: false means precision fp32
        threads: int = 0  # CPU threads per process; 0 = OMP_NUM_THREADS, or cores over the processes of this machine
        timeout_s: float = 300.0  # seconds after which a rank that stays silent ends the job
        lr_sched: Part = part("lr_scheduler", default="linear_warmup_cosine_lr", doc="learning rate over the steps")
        init_lr: float = 1e-4  # highest learning rate
        min_lr: float = 0.0  # lowest learning rate, at the end
        warmup_lr: float = -1.0  # learning rate at step 0; negative = init_lr
        warmup_steps: int = 0  # optimizer steps from warmup_lr to init_lr; under compat micro-batches
        lr_decay_rate: float | None = None  # factor per epoch of linear_warmup_step_lr
        lr_multipliers: dict[str, float] = field(default_factory=dict)  # dotted prefix of parameters -> factor on lr
        optimizer: Literal["adamw", "muon"] = "adamw"  # muon: orthogonalised steps for hidden matrices, AdamW elsewhere
        weight_decay: float = 0.05  # of matrices; biases, norms and vectors have none
        beta2: float = 0.999  # Adam's second decay; the first is 0.9
        grad_clip: float | None = None  # largest norm of the gradient, 0 = do not clip; empty = 1, under compat 0
        max_epoch: int = 1  # epochs of iters_per_epoch steps
        iters_per_epoch: int | None = None  # optimizer steps (compat: micro-batches) of an epoch; empty = all samples
        max_steps: int | None = None  # length of the run in optimizer steps, in place of max_epoch
        accum_grad_iters: int = 1  # micro-batches of one optimizer step
        batch_size_train: int | None = None  # rows of a micro-batch on each rank; empty = datasets.*.batch_size, or 32
        batch_size_eval: int = 32  # rows of a validation batch
        num_workers: int = 0  # data loading processes per rank
        prefetch_factor: int = 2  # batches that each of them makes ahead
        group_by_length: bool = False  # batches of samples alike in media and length: less padding, another fixed order
        group_window: int = 0  # samples that are sorted together for it; 0 = 64 global batches, at least 4096
        exact_epoch: bool = False  # each sample of each set once an epoch, whatever its ratio; the last batch is short
        max_bad_fraction: float = 0.01  # largest share of unusable samples before the run stops
        max_bad_steps: int = 3  # steps in a row whose loss or gradient is not finite before the run stops
        seed: int = 42  # of data order, dropout and new weights
        train_splits: list[str] = field(default_factory=lambda: ["train"])  # splits that are learned from
        valid_splits: list[str] = field(default_factory=lambda: ["val"])  # looked at while training, where there is one
        valid_freq: int = 0  # steps between validations; 0 = with every checkpoint
        valid_batches: int = 4  # validation batches per data set
        probe_size: int = 8  # fixed validation questions whose generated answers are kept in samples/
        probe_tokens: int = 32  # longest answer to them
        output_dir: str = "output"  # holds a folder per job
        job_name: str = "run"  # folder of this job's runs
        run_id: str = ""  # folder of this run; empty = time and a random word
        resume_ckpt_path: str = ""  # auto = continue the newest unfinished run; a path = start there
        log_freq: int = 20  # steps between progress lines
        save_freq: int = 200  # steps between checkpoints
        keep_checkpoints: int = 2  # newest ones kept, the best one besides
        trackers: list[str] = field(default_factory=lambda: ["jsonl"])  # jsonl, tensorboard, wandb
        wandb_log: bool = False  # LAVIS's name: true adds wandb to trackers
        export: bool = True  # a trained language model also goes into the checkpoints as a Hugging Face folder (llm/)

    def __init__(self, config: Config, *, settings: Settings) -> None:
        self.config, self.settings = config, settings
        self.path = Path()  # the run's folder; "." in a dry run
        self.folder: rundir.RunFolder | None = None  # the same, owned: on rank 0, and not in a dry run
        self.log_file: rundir.StepLog | None = None  # on rank 0 only
        self.signals = StopSignals()
        self.stopping = False
        self.identity: checkpoint.Identity
        self.progress = checkpoint.Progress()

    def run(self) -> None:
        """The whole training. Ends by an error of `common.errors` if not well."""
        self.start()
        try:
            self._open_folder()
            self.build()
            self._resume()
            with self.signals:
                self._train()
            self._finish()
        except BaseException as error:
            data.write_report(self, error)
            raise
        finally:
            self._close()

    def dry_run(self) -> str:
        """Build everything, say what a run would do, take one step in memory and write nothing."""
        self.start()
        try:
            self.build()
            self._wrap(None)
            text = plan_text(self)
            log.info(text)
            return text
        finally:
            distributed.finish(self.world)

    # ---- the acts ----

    def start(self) -> None:
        """Join the job; whoever calls this leaves it with `distributed.finish(runner.world)`."""
        setup.check(self.config)
        self.world = setup.start(self.config)

    def _open_folder(self) -> None:
        """Rank 0 chooses the run's folder and locks it; the others are told."""
        config = self.config
        job = Path(config.output_dir) / config.job_name
        self.path, self.resume_from = distributed.main_decides(
            lambda: rundir.choose(job, config.run_id, config.resume_ckpt_path)
        )
        distributed.main_decides(self._own)
        setup.open_log(self.path / rundir.LOG)
        log.info("run folder: %s", self.path)

    def _own(self) -> None:
        self.folder = rundir.RunFolder(self.path)

    def build(self) -> None:
        """Data sets, model, task, loader and schedule; every rank builds the same."""
        config = self.config
        self.batch_size = config.batch_size_train or data.common_batch_size(self.settings)
        self.global_batch = self.batch_size * config.accum_grad_iters * self.world.size
        self.builders = data.train_builders(self.settings, config.train_splits)
        self.model: Any = build_model(self.settings)
        self.task = build_task(self.settings)
        quarantine = data.quarantine_file(self.path, self.world) if self.path.name else None
        self.loader = data.open_loader(self, quarantine)
        self.pace = pace_of(config, self.loader.samples_per_epoch, self.batch_size * self.world.size)
        self.epoch_steps, self.total_steps = self.pace.epoch_steps, self.pace.total_steps
        self.schedule = schedule_of(config, self.pace)

    def _resume(self) -> None:
        """State of a checkpoint, or a fresh one; then the parts that depend on it."""
        learned = restore(self)
        if self.folder is not None:
            self.folder.write_config(setup.config_text(self.settings), setup.manifest(self))
            self.log_file = setup.step_log(self.path, self.resume_from, self.progress.log_offset)
        self._wrap(learned)

    def _wrap(self, learned: Any) -> None:
        """Engine, validation and trackers."""
        config = self.config
        self.engine = registry.build(
            config.engine,
            model=self.model,
            task=self.task,
            world=self.world,
            recipe=setup.recipe(self),
            restored=learned,
        )
        self.frozen = setup.frozen_digest(self.model)
        self.batches = iter(self.loader)
        self.meter = Meter(self.total_steps, config.log_freq)
        self.validator = Validator(self.settings, config, self.model)
        self.trackers = []
        if self.folder is not None:
            names = [*config.trackers, *(["wandb"] if config.wandb_log else [])]
            self.trackers = open_trackers(names, self.path, config.job_name, self.settings.tree)

    def _train(self) -> None:
        self.model.train()
        while self.progress.step < self.total_steps:
            row = self.train_step()
            self._look(row)
            self._write(row)
            self._save_if_due()
            stop_if_bad(self)

    def train_step(self) -> dict[str, Any]:
        """One optimizer step over all ranks; returns its line of metrics.jsonl."""
        config, progress = self.config, self.progress
        before = time.monotonic()
        window = [next(self.batches) for _ in range(self.pace.micro_batches(progress.step))]
        waited = time.monotonic() - before
        count = getattr(self.task, "learned_tokens", learned_tokens)
        facts = exchange(window, count)
        divisors = divisors_of(window, count, facts.learned, self.world.size if config.profile == COMPAT else 0)
        setup.seed_step(config.seed, progress.step, self.world.rank)
        lr = self.schedule.lr(progress.step)
        total, counted = setup.accumulate(self, window, divisors)
        norm, applied = self.engine.step(lr)
        sums = torch.tensor([total, counted, float(bool(self.signals.asked)), waited], dtype=torch.float64)
        total, counted, stop, waited = distributed.all_reduce_sum(sums).tolist()
        setup.check_count(counted, facts.learned, total)
        self.stopping = bool(stop)
        progress.step += 1
        progress.loader = self.loader.state()
        progress.skipped_samples += facts.skipped
        count_bad(self, applied, window)
        self.meter.add(len(window) * self.batch_size * self.world.size, facts.tokens, waited / self.world.size)
        return setup.metrics_row(progress, total / max(facts.learned, 1), lr, norm, applied, facts)

    def _look(self, row: dict[str, Any]) -> None:
        """Validate and answer the probe questions if it is time; the result becomes part of the step's line."""
        step = self.progress.step
        every = self.config.valid_freq or self.config.save_freq
        if not self.validator.builders or (step % every and step != self.total_steps):
            return
        self.model.eval()
        losses = self.validator.losses(self.engine)
        folder = self.path / "samples"
        self.validator.probe(self.engine, step, folder)
        self.model.train()
        row["val"] = losses
        mean = sum(losses.values()) / max(len(losses), 1)
        log.info("step %d  validation loss %s", step, "  ".join(f"{n} {v:.4f}" for n, v in losses.items()))
        if losses and (self.progress.best is None or mean < self.progress.best):
            self.progress.best, self.progress.best_step = mean, step

    def _write(self, row: dict[str, Any]) -> None:
        if self.log_file is not None:
            self.log_file.write(row)
        speed = self.meter.show(row["step"], float.fromhex(row["loss_hex"]), row["lr"], row["grad_norm"] or 0.0)
        if speed is not None or "val" in row:
            setup.track(self.trackers, row, speed)

    def _save_if_due(self) -> None:
        step = self.progress.step
        due = step % self.config.save_freq == 0 or step == self.total_steps
        if due or self.stopping or self.progress.best_step == step:
            self.save()
        if self.stopping and step < self.total_steps:
            raise Preempted(f"stopped at step {step} of {self.total_steps} and saved in {self.path}; "
                            "the same command with run.resume_ckpt_path=auto goes on")  # fmt: skip

    def save(self) -> None:
        """Publish a checkpoint. It counts as saved only when this returns."""
        learned = self.engine.learned()
        self.progress.loader["bad"] = data.bad_of_all_ranks(self)
        with setup.exported(self) as exported:
            if self.folder is None:
                return
            assert self.log_file is not None
            name = checkpoint.step_name(self.progress.step)
            target = self.path / rundir.CHECKPOINTS / name
            self.progress.log_offset = self.log_file.sync()
            checkpoint.save(target, learned, self.progress, self.identity, exported)
            self.folder.point("last", name)
            if self.progress.best_step == self.progress.step:
                self.folder.point("best", name)
            checkpoint.prune(self.path, self.config.keep_checkpoints, self.progress.best_step)
            log.info("saved %s", target)

    def _finish(self) -> None:
        """Make sure nothing frozen has moved, and mark the run as finished."""
        setup.check_frozen(self)
        data.write_report(self)
        if self.folder is not None:
            facts = {"step": self.progress.step, "best": self.progress.best, "best_step": self.progress.best_step}
            self.folder.finish({**facts, "bad_steps": self.progress.bad_steps})
        log.info("finished %d steps; everything is in %s", self.progress.step, self.path)

    def _close(self) -> None:
        for tracker in getattr(self, "trackers", []):
            tracker.close()
        for owned in (getattr(self, "loader", None), self.log_file, self.folder):
            if owned is not None:
                owned.close()
        setup.close_log()
        with suppress(RuntimeError):  # a rank that is gone already cannot be waited for
            distributed.finish(self.world)
