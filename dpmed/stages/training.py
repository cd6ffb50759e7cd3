"""Training of a run: secrets, sampler, optimizer and ledger put together, then handed to Lightning.

The order of the updates is in `dpmed.training.classifier`; what a resumed run may replay for free
is decided in `dpmed.stages.secrets`.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer

from dpmed.config import RunConfig
from dpmed.errors import UserError
from dpmed.models import SeenDataSet, merge_lora, save_weights
from dpmed.privacy.clipping.clipper import Clipper
from dpmed.privacy.opacus_accountant import PLDAccountant
from dpmed.privacy.optimizer import SecretNoiseOptimizer
from dpmed.privacy.plan import PrivacyPlan
from dpmed.privacy.randomness import SecretStream
from dpmed.privacy.sampling import PoissonSampler, unit_rows
from dpmed.run_record import RunRecord, code_version
from dpmed.stages.augmenting import make_augmentation
from dpmed.stages.learner import Learner, device_of, input_shape
from dpmed.stages.proof import pos_weight, prove_run
from dpmed.stages.secrets import CHECKPOINT, Secrets, open_secrets
from dpmed.stages.shared_patients import hashes_of
from dpmed.stages.study import Study
from dpmed.stages.training_inputs import TrainingInputs, make_training_inputs
from dpmed.training.augmentation import Augmentation
from dpmed.training.averaging import WeightAverage
from dpmed.training.batches import LogicalStepLoader
from dpmed.training.checkpoints import StepCheckpoint
from dpmed.training.classifier import Classifier
from dpmed.training.fit import fit
from dpmed.training.schedule import learning_rate_factor, make_optimizer

logger = logging.getLogger(__name__)

WEIGHTS = Path("model") / "model.safetensors"
AVERAGED_WEIGHTS = Path("model") / "model_ema.safetensors"


def train_run(
    config: RunConfig,
    learner: Learner,
    plan: PrivacyPlan,
    study: Study,
    loggers: list[Logger],
    run_dir: Path,
    record: RunRecord,
) -> bool:
    """Takes every planned logical step; resumes from `checkpoints/last.ckpt` where there is one.

    Returns:
        Whether training is complete: the weights are then in `model/`, for the evaluation.
    """
    if record.content.get("trained"):
        merge_lora(learner.model)
        return True
    augmentation = make_augmentation(config, study, record)
    if learner.clipper is not None:
        proof = prove_run(config, learner.clipper, input_shape(config), augmentation)
        record.update(clipping_proof=proof.sentence())
    secrets = open_secrets(
        config, plan, data_hash=study.data_hash(), run_dir=run_dir, record=record
    )
    optimizer, accountant = _optimizer(config, learner, plan, secrets.stream)
    decay = config.training.ema_decay
    average = WeightAverage(learner.model, decay=decay) if decay else None
    inputs = make_training_inputs(
        config, learner, study, augmentation, expected_batch_size=plan.expected_batch_size
    )
    if isinstance(inputs.gradient_sum, Clipper) and inputs.gradient_sum is not learner.clipper:
        prove_run(config, inputs.gradient_sum, (1, *inputs.inputs_N.shape[1:]), augmentation)
    classifier = Classifier(
        model=learner.model,
        gradient_sum=inputs.gradient_sum,
        optimizer=optimizer,
        learning_rate_factor=learning_rate_factor(
            schedule=config.training.schedule,
            warmup_steps=config.training.warmup_steps,
            num_steps=plan.num_steps,
        ),
        before_update=secrets.reserve,
        epsilon_after=plan.epsilon_after,
        pos_weight_L=pos_weight(config, device_of(config)),
        average=average,
        augmentation=augmentation,
        log_nonprivate_side_outputs=config.logger.log_nonprivate_side_outputs,
    )
    completed = fit(
        classifier,
        _loader(config, plan, study, secrets, classifier, augmentation, inputs),
        checkpoint=StepCheckpoint(
            run_dir / CHECKPOINT,
            every_steps=config.training.checkpoint_every_steps,
            accountant=accountant,
            fingerprint=secrets.fingerprint,
        ),
        resume_from=secrets.resume_from,
        loggers=loggers,
        run_dir=run_dir,
        accelerator=device_of(config).type,
        precision=config.performance.precision,
    )
    record.update(steps_done=classifier.completed_steps)
    if not completed:
        return False
    assert accountant is None or len(accountant) == secrets.num_steps, "a step was not accounted"
    if average is not None:
        with average.in_place():
            _export(config, learner, study, run_dir / AVERAGED_WEIGHTS)
    _export(config, learner, study, run_dir / WEIGHTS)
    merge_lora(learner.model)
    record.update(trained=True)
    secrets.close(record)
    return True


def _export(config: RunConfig, learner: Learner, study: Study, path: Path) -> None:
    """Writes the weights in plain timm's names, with what they have seen."""
    path.parent.mkdir(exist_ok=True)
    model = copy.deepcopy(learner.model)
    merge_lora(model)
    provenance = learner.provenance.after_training_on(
        _seen(config, study),
        labels=config.data.labels,
        preprocessing=asdict(config.data.preprocessing),
        code_version=code_version(),
    )
    save_weights(model, path, provenance)


def _seen(config: RunConfig, study: Study) -> SeenDataSet:
    """What the weights declare; hashes of patients leave only where the data is public."""
    data = config.data
    if data.public_licence is None:
        return SeenDataSet(name=data.id, data_id=data.id)
    return SeenDataSet(
        name=data.id,
        data_id=data.id,
        patient_hashes=tuple(sorted(hashes_of(study.table.iloc[study.rows_of("train")], data))),
        licence=data.public_licence,
    )


def _optimizer(
    config: RunConfig, learner: Learner, plan: PrivacyPlan, stream: SecretStream
) -> tuple[Optimizer, PLDAccountant | None]:
    training = config.training
    plain = make_optimizer(
        [parameter for parameter in learner.model.parameters() if parameter.requires_grad],
        name=training.optimizer,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        momentum=training.momentum,
    )
    if not plan.enabled:
        return plain, None
    accountant = PLDAccountant()
    optimizer = SecretNoiseOptimizer(
        plain,
        noise_multiplier=plan.noise_multiplier,
        max_grad_norm=plan.sensitivity,
        expected_batch_size=plan.expected_batch_size,
        noise=stream,
    )
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(plan.sample_rate))
    return optimizer, accountant


def _loader(
    config: RunConfig,
    plan: PrivacyPlan,
    study: Study,
    secrets: Secrets,
    classifier: Classifier,
    augmentation: Augmentation | None,
    inputs: TrainingInputs,
) -> LogicalStepLoader:
    rows = study.rows_of("train")
    if not len(rows):
        raise UserError("No image is left in the training split.")
    targets_NL = study.targets_NL(rows)
    if config.training.permute_labels:
        targets_NL = targets_NL[np.random.default_rng(config.seed).permutation(len(rows))]
    ids = study.table["patient_id" if plan.unit == "patient" else "image"].iloc[rows]
    units = unit_rows(ids)
    if not 0.5 < len(units) / plan.num_units < 2:
        logger.warning(
            "The training split has about %s times the declared privacy.num_units=%d. The "
            "guarantee holds, but the batches are that much larger or smaller than planned.",
            f"{len(units) / plan.num_units:.1g}",
            plan.num_units,
        )
    sampler = PoissonSampler(
        stream=secrets.stream,
        units=units,
        sample_rate=plan.sample_rate,
        views_per_unit=plan.views_per_unit,
        physical_batch_size=config.performance.physical_batch_size,
        repeat_views=config.privacy.repeat_views,
    )
    return LogicalStepLoader(
        sampler=sampler,
        images_NHW=inputs.inputs_N,
        image_rows=inputs.rows,
        targets_NL=targets_NL,
        num_steps=secrets.num_steps,
        completed_steps=lambda: classifier.completed_steps,
        augmentation=augmentation,
    )
