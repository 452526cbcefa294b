"""Runner `evaluate`: every data set, variant and condition asked, scored beside its baselines, and reported."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from minigpt4o.common import distributed
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.files import write_json
from minigpt4o.common.registry import registry
from minigpt4o.runners.build import build_builders, build_encoders
from minigpt4o.runners.evaluate_answers import MediaCache, Questioner
from minigpt4o.runners.evaluate_folder import RESULTS, EvaluationFolder, config_hash
from minigpt4o.runners.evaluate_items import (
    CONDITIONS,
    SEEN,
    Data,
    Item,
    collect,
    data_hash,
    ensure_usable,
    prompts_hash,
    secret,
    under,
)
from minigpt4o.runners.evaluate_journal import Journal
from minigpt4o.runners.evaluate_model import Variant, build_variant, checkpoint_marks
from minigpt4o.runners.evaluate_ranking import how_answered
from minigpt4o.runners.evaluate_results import Tree
from minigpt4o.runners.evaluate_summary import Answers, results
from minigpt4o.runners.evaluate_table import table

log = logging.getLogger(__name__)

WAIT_S = 3600.0  # the longest that ranks wait for each other
AS_CONFIGURED = "model"  # label of the only variant if none is named


@registry.register("runner", "evaluate")
class Evaluate:
    """Answers every prompt of the data sets, scores the answers with intervals, writes results and a report."""

    @dataclass
    class Config:
        job_name: str = "eval"  # results lie in <output_dir>/<job_name>/<run_id>
        output_dir: str = "output"  # folder of all jobs
        run_id: str = ""  # folder of this evaluation; empty: the unfinished one of this configuration, or a new one
        resume: bool = True  # keep answers that are there already; false asks everything again
        seed: int = 0  # of subsets, shuffling and bootstrap
        split: str = "test"  # which split of the data sets is asked
        batch_size_eval: int = 32  # prompts per batch
        num_workers: int = 0  # threads that open the next batch's media meanwhile
        limit: int | None = None  # ask a seeded choice of so many samples per data set; none = all
        variants: dict[str, str] = field(default_factory=dict)  # label -> checkpoint, run or job folder; empty = as is
        baselines: list[str] = field(default_factory=lambda: ["blind", "shuffled"])  # conditions to compare with
        baseline_limit: int | None = None  # seeded choice of so many prompts per data set for the baselines; none = all
        bootstrap: int = 1000  # resamplings behind each interval
        group_by: list[str] = field(
            default_factory=lambda: ["question_type", "answer_type", "box_size", "answer_length"]
        )  # facts to break scores down by: box_size, answer_length, or what the data set's rows tell
        max_bad_fraction: float = 0.01  # largest share of a data set that may be unusable
        report: bool = True  # write report.html
        curves: list[str] = field(default_factory=list)  # run or job folders whose training curves the report draws
        report_mb: float = 20.0  # largest size of report.html in megabytes; media and examples beyond are left out
        gallery: int = 60  # examples per data set in the report: half drawn at random, half mistakes, if so many
        device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
        threads: int | None = None  # CPU threads of torch; none = torch's own choice

    def __init__(self, config: Config, *, settings: Any) -> None:
        self.config, self.settings = config, settings
        self.started = time.monotonic()
        self.cache = MediaCache(workers=config.num_workers)
        unknown = sorted(set(config.baselines) - set(CONDITIONS[1:]))
        if unknown:
            raise ConfigError(f"run.baselines: unknown {', '.join(unknown)}; known: {', '.join(CONDITIONS[1:])}")

    # ---- the story ----

    def run(self) -> None:
        """Ask, score, write."""
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        world = distributed.start(self.config.device, timeout_s=WAIT_S)
        try:
            marks = checkpoint_marks([*self.variants().values(), self.settings.model.values.get("ckpt", "")])
            identity = "/".join([config_hash(self.settings), *marks])
            folder = EvaluationFolder(self.config, identity, self.settings)
            try:
                answers = self.answer_all(self.collect(), folder, world)
                distributed.main_decides(lambda: self.conclude(answers, folder.path))
            finally:
                folder.close()
        finally:
            distributed.finish(world)

    def dry_run(self) -> None:
        """Build everything, ask one batch, write nothing."""
        data = self.collect()
        label, checkpoint = next(iter(self.variants().items()))
        device = distributed.pick_device(self.config.device)
        variant = build_variant(self.settings, label, checkpoint, device, self.config.seed)
        encoders = build_encoders(self.settings, variant.model, self.config.split)
        lines = [f"variants: {', '.join(self.variants())}"]
        for name, one in data.items():
            counts = ", ".join(f"{len(items)} {condition}" for condition, items in one.conditions.items())
            questioner = self.questioner(variant, encoders[name], one, device)
            rows = questioner.ask(questioner.batches(one.conditions[SEEN])[0][:1], one.task.decoding)
            said = rows[0].get("answer", rows[0].get("skipped"))
            lines.append(f"{name}: task {type(one.task).__name__}, prompts: {counts}; first answer {said!r}")
        sys.stdout.write("\n".join(lines) + "\n")

    # ---- its acts ----

    def variants(self) -> dict[str, str]:
        """Label -> checkpoint."""
        return dict(self.config.variants) or {AS_CONFIGURED: ""}

    def collect(self) -> dict[str, Data]:
        """All prompts of all data sets, under every condition."""
        tasks = self.tasks()
        found = {}
        for name, builder in build_builders(self.settings, self.config.split).items():
            asked = collect(
                builder, tasks[name], name, self.settings.datasets[name].language, self.config.limit, self.config.seed
            )
            bad, good = sum(asked.skipped.values()), len(asked.items)
            ensure_usable(name, bad, good, asked.skipped, self.config.max_bad_fraction, asked.details)
            limit, seed = self.config.baseline_limit, self.config.seed
            conditions = {SEEN: asked.items}
            if not secret(tasks[name], asked.items):  # else there is no score to compare with
                conditions |= {c: under(c, asked.items, name, limit, seed) for c in self.config.baselines}
            found[name] = Data(name, tasks[name], asked, conditions)
        return found

    def tasks(self) -> dict[str, Any]:
        """The task of each data set. Raises ConfigError that names every data set without one."""
        found, problems = {}, []
        for name, spec in self.settings.datasets.items():
            task = registry.build(spec.task) if spec.task is not None else None
            if task is None or not hasattr(task, "measure"):
                problems.append(
                    f"datasets.{name}.task: " + ("not set" if task is None else f"{spec.task.name} scores nothing")
                )
            found[name] = task
        if problems:
            scoring = [n for n in registry.names("task") if hasattr(registry.get("task", n), "measure")]
            raise ConfigError("\n".join(problems) + f"\nset one of: {', '.join(scoring)}")
        return found

    def answer_all(self, data: Mapping[str, Data], folder: EvaluationFolder, world: distributed.World) -> Answers:
        """Every prompt answered by every variant."""
        journals: dict[tuple[str, str, str], Journal] = {}
        told: dict[str, Tree] = {}
        for label, checkpoint in self.variants().items():
            variant = build_variant(self.settings, label, checkpoint, world.device, self.config.seed)
            told[label] = variant.told()
            encoders = build_encoders(self.settings, variant.model, self.config.split)
            for name, one in data.items():
                self.cache.wrap(encoders[name], name)
                questioner = self.questioner(variant, encoders[name], one, world.device, world)
                for condition, items in one.conditions.items():
                    journals[label, name, condition] = self.answer(variant, one, condition, items, questioner, folder)
        return Answers(data, journals, told)

    def questioner(
        self, variant: Variant, encoder: Any, one: Data, device: torch.device, world: distributed.World | None = None
    ) -> Questioner:
        """Who asks one data set's prompts of one variant."""
        rank, size = (world.rank, world.size) if world is not None else (0, 1)
        return Questioner(variant.model, encoder, one.task, self.config.batch_size_eval, device, self.cache, rank, size)

    def answer(
        self,
        variant: Variant,
        one: Data,
        condition: str,
        items: list[Item],
        questioner: Questioner,
        folder: EvaluationFolder,
    ) -> Journal:
        """One predictions file, asked as far as it is not there yet."""
        prompts = [questioner.prompt_text(item.sample) for item in items]
        header = {
            "dataset": one.name,
            "condition": condition,
            "variant": variant.label,
            "weights": variant.weights_sha256,
            "config": config_hash(self.settings, one.name),
            "data": data_hash(items),
            "prompts": prompts_hash(prompts),
            "template": questioner.encoder.template.name,
            "profile": questioner.encoder.template.profile,
            "answered": how_answered([item.sample for item in items], questioner.encoder, one.task),
            "decoding": asdict(one.task.decoding),
            "batch_size": self.config.batch_size_eval,
        }
        path = folder.predictions(variant.label, one.name, condition)
        journal = Journal(path, header, questioner.rank, folder.resumed)
        distributed.barrier()  # everyone has read what is there before anyone appends or merges
        if journal.complete and all(item.sample.id in journal.rows for item in items):  # else it was cut by others
            if questioner.rank == 0:
                journal.tidy()  # a kill may have come between merging and removing
            return journal
        label, began = f"{variant.label} {one.name} {condition}", time.monotonic()
        todo = sum(item.sample.id not in journal.rows for item in items)
        journal.open()
        questioner.ask_all(items, journal, one.task.decoding, label)
        journal.close()
        distributed.barrier()
        if questioner.rank == 0:
            journal.finish([item.sample.id for item in items])
        seconds = time.monotonic() - began
        log.info("%s: %d answers in %.1f s (%.0f per second)", label, todo, seconds, todo / max(seconds, 1e-9))
        return journal

    def conclude(self, answers: Answers, folder: Path) -> None:
        """results.json, report.html and the table."""
        tree, found = results(answers, self.config, self.settings, folder)
        tree["run"] |= {"run_id": folder.name, "seconds": round(time.monotonic() - self.started, 1)}
        write_json(folder / RESULTS, tree)
        sys.stdout.write("\n" + table(tree))
        if self.config.report:
            from minigpt4o.runners.report import write_report
            from minigpt4o.runners.report_examples import Browsed, choose

            config = self.config

            def examples(size: int) -> Browsed:
                return choose(answers, found, config.gallery, config.seed, size, config.group_by)

            curves = [Path(run) for run in config.curves]
            write_report(folder / "report.html", tree, examples, curves, int(config.report_mb * 1e6))
            sys.stdout.write(f"\nreport: {folder / 'report.html'}\n")
        sys.stdout.write(f"results: {folder / RESULTS}\n")
