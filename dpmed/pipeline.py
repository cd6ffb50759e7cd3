"""The whole story of a run, on one screen: plan, data, training, evaluation, report.

The order is part of the guarantee: the plan is made from public settings before any data is
opened, and nothing that is computed from private data flows back into it.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from dpmed.config import RunConfig
from dpmed.report.page import build_report
from dpmed.report.tables import summary_table
from dpmed.run_record import RunRecord
from dpmed.stages.banner import log_banner
from dpmed.stages.evaluation import evaluate_run
from dpmed.stages.learner import build_learner
from dpmed.stages.loggers import make_loggers, upload_results
from dpmed.stages.planning import plan_run
from dpmed.stages.shared_patients import refuse_shared_patients
from dpmed.stages.study import load_study, write_study
from dpmed.stages.training import train_run
from dpmed.training.memory import keep_freed_memory

logger = logging.getLogger(__name__)


def run(config: RunConfig, *, run_dir: Path) -> Path | None:
    """Trains, evaluates and reports; goes on where an interrupted run in `run_dir` stopped.

    Returns:
        The report's path, or None when training was stopped on request and can be resumed.

    Raises:
        UserError: anything that the user can mend; the run folder keeps what was reached.
    """
    with RunRecord(run_dir, config) as record:
        if config.performance.keep_freed_memory:
            keep_freed_memory()
        if config.performance.num_threads:
            torch.set_num_threads(config.performance.num_threads)
        torch.manual_seed(config.seed)
        learner = build_learner(config)
        plan = plan_run(config, learner, run_dir)
        log_banner(config, learner, plan, record)
        record.stage_done("planning")

        study = load_study(
            config.data, unit=config.privacy.unit, num_workers=config.performance.num_workers
        )
        write_study(study, run_dir, record)
        refuse_shared_patients(learner.provenance, config.data, study.table, record)
        record.stage_done("data")

        loggers = make_loggers(config, run_dir)
        is_complete = train_run(config, learner, plan, study, loggers, run_dir, record)
        record.stage_done("training")
        if not is_complete:
            record.finish("interrupted")
            logger.warning("Stopped. Go on with: python train.py resume=%s", run_dir)
            return None

        evaluate_run(config, learner.model, study, run_dir, num_units=plan.num_units)
        record.stage_done("evaluation")
        record.finish("completed")
        report = build_report(run_dir)
        upload_results(loggers, run_dir, report)
        logger.info("\n%s", summary_table(run_dir))
        return report
