"""The schema of a run. Every key has a meaning, a unit where it has one, and an allowed range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from fedft.config.named import Named, OpenSection, Section
from fedft.config.rules import ContradictionError, contradictions
from fedft.config.weighting import with_weighting
from fedft.registries import (
    AGGREGATION_RULES,
    AVERAGES,
    CLIPPINGS,
    CODECS,
    FRAMES,
    METHODS,
    OPTIMIZERS,
    PRIVACY_MODELS,
    QUANT,
    TASKS,
)


def _split(value: object) -> object:
    """Accept "a, b" for ["a", "b"]: Flower's run configuration carries scalars only."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


class ModelSection(OpenSection):
    """The frozen base model."""

    source: str = Field("demo", min_length=1, description='"demo", a folder, or a Hugging Face hub id')
    revision: str = Field("", description="hub revision; a commit id pins the weights")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="dtype of the frozen weights and of the arithmetic; R stays float32"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="where the model is kept and computed")
    quant: Annotated[str, Named(QUANT, "none")] = Field(
        "none",
        description="storage of the linear layers' frozen weights; nf4: 4 bits; int8: one byte; quantised "
        "while loading",
    )
    chat_template: str = Field("", description="Jinja chat template that replaces the tokenizer's own")


class TaskSection(OpenSection):
    """What is learned and how a sample is cut to length."""

    kind: Annotated[str, Named(TASKS)] = Field("causal-lm", description="the task")
    labels: Names = Field((), description="class names in label order (classification)")
    pooling: Literal["auto", "model", "mean", "first", "last"] = Field(
        "auto",
        description="which tokens a new head reads: all in the mean, the first, the last; model: "
        "transformers' own head; auto: by the model's kind, unless the checkpoint has a trained head "
        "that fits (classification)",
    )
    pooled_layers: int = Field(
        0,
        ge=0,
        description="last hidden states that are pooled side by side; 0: those of the upper half of the "
        "layers (classification)",
    )
    normalise: bool = Field(
        True, description="bring each layer's pooled state to unit length, less its mean (classification)"
    )
    max_length: int = Field(256, ge=2, le=131072, description="longest sample, in tokens")
    too_long: Literal["truncate", "drop", "error"] = Field(
        "drop", description="what happens to a sample longer than max_length; the number is always shown"
    )
    max_new_tokens: int = Field(32, ge=1, le=4096, description="longest generated answer, in tokens")
    answer_after: str = Field(
        "", description='compare only what follows this marker, e.g. "####" (exact match); empty: all'
    )


class FieldsSection(Section):
    """Which fields of a record hold what. Empty: not used."""

    prompt: str = Field("prompt", description="text that the model is given (causal-lm)")
    completion: str = Field("completion", description="text that carries the loss (causal-lm)")
    messages: str = Field("", description="list of chat messages; replaces prompt and completion")
    text: str = Field("text", description="the input (classification)")
    text_pair: str = Field("", description="a second input (classification)")
    label: str = Field("label", description="class name or index (classification)")
    group: str = Field("", description="reported separately in the evaluation, e.g. a family or a site")


class PartitionSection(Section):
    """How one dataset becomes several clients' in a simulation."""

    kind: Literal["iid", "dirichlet", "field", "files"] = Field("iid", description="the partitioner")
    clients: int = Field(4, ge=1, le=100_000, description="number of simulated clients")
    alpha: float = Field(0.5, gt=0, description="Dirichlet concentration; smaller is more skewed")
    field: str = Field("", description="record field whose values are dealt to clients (kind = field)")
    min_samples: int = Field(1, ge=0, description="a client with fewer samples is an error")


class DataSection(Section):
    """Where records come from: a file, a folder, a glob, a hub id, or "demo"."""

    train: str = Field("demo", min_length=1, description="training records, one source for all clients")
    test: str = Field("demo", description="records of the central evaluation")
    public: str = Field("demo", description="public records that gradient-based frames are built from")
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet", "arrow"] = Field(
        "auto", description="file format; auto goes by the file's ending"
    )
    columns: Names = Field((), description="column names of CSV/TSV files without a header")
    prompt_template: str = Field("{prompt}", description="Python format string over the record's fields")
    completion_template: str = Field("{completion}", description="the same, for the completion")
    max_train: int = Field(0, ge=0, description="use at most this many training records; 0: all")
    max_test: int = Field(0, ge=0, description="use at most this many test records; 0: all")
    fields: FieldsSection = FieldsSection()
    partition: PartitionSection = PartitionSection()


class AdapterSection(OpenSection):
    """The adapters: y = W x + scale * B R A x with R trained (fedsb), or scale * B A x (fedit, ffa-lora)."""

    initialiser: Annotated[str, Named(FRAMES)] = Field(
        "lora-sb", description="how the frame (A, B) and R0 are made (fedsb)"
    )
    rank: int = Field(64, ge=1, le=8192, description="side of the square matrix R (fedsb), or LoRA's rank")
    scale: float = Field(1.0, gt=0, description="the factor s; LoRA calls it alpha / r")
    targets: Names = Field(
        ("auto",), description='module name patterns, or "auto": all attention and MLP linears'
    )
    eta: float = Field(2.5e-4, gt=0, description="step size of the first sign-SGD step (lora-sb)")
    samples: int = Field(
        64,
        ge=1,
        description="samples that the gradient is estimated on: public ones (lora-sb), or each client's own, "
        "in the mean (dp-sketch)",
    )
    oversampling: int = Field(
        8, ge=0, description="columns of a sketch beyond the rank, if the layers are large enough (dp-sketch)"
    )
    layers_at_once: int = Field(
        1, ge=1, description="full gradients held while the frame is built; more is faster (lora-sb)"
    )
    train_head: bool = Field(True, description="train the classification head too (classification)")


class TrainingSection(OpenSection):
    """Local training of one client in one round."""

    optimizer: Annotated[str, Named(OPTIMIZERS)] = Field(
        "adamw",
        description="8bit: bitsandbytes keeps AdamW's state in 8 bits; needs model.device = cuda; "
        "adam-corrected: Adam less the variance of the privacy noise",
    )
    learning_rate: float = Field(1e-3, gt=0, le=1e6, description="peak learning rate")
    head_learning_rate: float = Field(0.0, ge=0, le=1e6, description="learning rate of the head; 0: the same")
    steps: int = Field(0, ge=0, le=1_000_000, description="optimiser steps a round; 0: epochs decides")
    epochs: int = Field(
        1, ge=0, le=1_000_000, description="passes over the client's data a round, if steps is 0"
    )
    batch_size: int = Field(32, ge=1, description="samples in one optimiser step")
    micro_batch_size: int = Field(0, ge=0, description="samples in one forward pass; 0: batch_size")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's beta1")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's beta2")
    max_grad_norm: float = Field(1.0, ge=0, description="clip the gradient's L2 norm to this; 0: do not")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="learning rate over the whole run's steps"
    )
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of the run's steps with rising rate")


class PublicSection(TrainingSection):
    """What the server trains on the public records before the first round: adapters and head, at no epsilon.

    The start is the mean of the later half of the iterates. The keys are those of ``[training]``.
    """

    steps: int = Field(0, ge=0, description="optimiser steps; 0: epochs decides")
    epochs: int = Field(
        0,
        ge=0,
        description="passes over the public records; 0, with steps 0: the adapters start from their frame",
    )

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return bool(self.steps or self.epochs)


class HeadSection(Section):
    """The first rounds: the head alone, in full batches on features that are computed once (classification).

    Where no public records have given the mean of the features, the first of these rounds measures it.
    """

    rounds: int = Field(0, ge=0, description="first of the run's rounds that train the head alone; 0: none")
    steps: int = Field(
        0,
        ge=0,
        le=100_000,
        description="steps of gradient descent a round; 0: 30, or as many as a client's records and budget "
        "deserve by theory (privacy)",
    )
    learning_rate: float = Field(
        0.0, ge=0, le=1e6, description="of plain gradient descent; 0: the number of classes"
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="share of the last step that goes on; afresh in every round"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="L2 bound of one example's gradient (privacy)")
    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of epsilon that these rounds alone may cost; all of it where no others follow",
    )
    center_share: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of these rounds' squared signal-to-noise ratio that goes into the features' mean; "
        "0: it is not measured",
    )


class RoundsSection(OpenSection):
    """The federated rounds and who takes part."""

    total: int = Field(5, ge=1, le=1_000_000, description="number of rounds")
    cohort: int = Field(0, ge=0, description="clients asked in a round; 0: all")
    min_clients: int = Field(
        0, ge=0, description="clients that must be present before a run starts; 0: data.partition.clients"
    )
    min_replies: int = Field(0, ge=0, description="accepted updates that a round needs; 0: more than half")
    deadline: float = Field(3600.0, gt=0, le=31 * 86_400, description="seconds after which a round closes")
    retries: int = Field(2, ge=0, description="further attempts at a client whose process failed")
    weighting: Literal["examples", "uniform"] = Field(
        "examples",
        description="weights of the average; left out, they are uniform under privacy, which tells no number "
        "of examples, and under a rule that goes by none",
    )
    max_weight: int = Field(1_000_000, ge=1, le=1_000_000, description="largest weight of one client")
    average: Annotated[str, Named(AVERAGES)] = Field(
        "last",
        description="which state a stage of rounds (the head alone; everything) ends with: the last, or a "
        "mean over its rounds, in which the noise of privacy averages out",
    )
    max_update_norm: float = Field(1e4, gt=0, description="an update with a larger L2 norm is refused")


class AggregationSection(OpenSection):
    """How a round's updates become one."""

    rule: Annotated[str, Named(AGGREGATION_RULES)] = Field(
        "mean",
        description="mean: exact and weighted; the others bound what a few hostile clients can do to a model "
        "and keep all updates of a round in the server's memory",
    )


class CodecSection(OpenSection):
    """How the clients' updates travel."""

    name: Annotated[str, Named(CODECS)] = Field("ternary", description="codec of the updates")
    error_feedback: bool = Field(
        True, description="clients keep what ternary leaves out and send it later; without, a third is lost"
    )
    downlink: Literal["dense", "bf16", "int8", "int4", "rotated2", "ternary"] = Field(
        "dense", description="codec of the state's change from round to round, server to clients"
    )


class SecaggSection(Section):
    """Secure aggregation: the server learns the sum of the clients' updates and no single one."""

    mode: Literal["off", "required"] = Field(
        "off", description="required: every update is masked, and a round that cannot be is lost"
    )
    threshold: int = Field(
        0,
        ge=0,
        le=256,
        description="clients that must stay to the end of a round, more than two thirds of those asked; the "
        "others may drop out; 0: the least",
    )
    grid: Literal["ternary", "int4", "int8"] = Field(
        "int4",
        description="integers that updates become, with steps that all clients share; takes the place of "
        'codec.name, which must be "dense"',
    )
    first_size: float = Field(
        0.0,
        ge=0,
        le=1e3,
        description="root mean square of an update's elements that the first round's grid is made for; later "
        "ones follow the clients' mean; 0: training.learning_rate",
    )
    rounds_per_keys: int = Field(
        1,
        ge=1,
        le=32,
        description="rounds that one exchange of keys serves, where all clients are asked in every round",
    )

    @property
    def required(self) -> bool:
        """Whether the run's updates are masked."""
        return self.mode == "required"


class EvaluationSection(Section):
    """Evaluation by the server on the test records, and optionally by the clients on their own."""

    every: int = Field(1, ge=0, description="evaluate after every k-th round, and the last; 0: never")
    before: bool = Field(True, description="evaluate the base model before the first round")
    batch_size: int = Field(64, ge=1, description="samples in one forward pass")
    exact_match: bool = Field(False, description="generate answers and compare them (causal-lm)")
    federated: bool = Field(False, description="clients evaluate too, on a held-out part of their data")
    holdout: float = Field(0.1, gt=0, lt=1, description="share that a client holds out (federated)")


class SimulationSection(Section):
    """How clients are simulated on this machine."""

    backend: Literal["ray", "inline"] = Field(
        "ray", description="ray: Flower's engine, clients in parallel; inline: one process, one at a time"
    )
    workers: int = Field(2, ge=1, description="client processes at once (ray)")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs for each client process (ray)")
    threads: int = Field(1, ge=1, description="torch threads of each client")


class StoreSection(Section):
    """Where runs are kept."""

    path: str = Field("runs", min_length=1, description="folder of the run store")
    keep_states: int = Field(0, ge=0, description="keep the last k rounds' states; 0: all")


class PrivacySection(Section):
    """Differential privacy of the clients' data. What one site allows stands in its own policy."""

    mechanism: Annotated[str, Named(PRIVACY_MODELS)] = Field(
        "none",
        description="none; example: DP-SGD at every client, whose unit is one example; client: noise at the "
        "server, which sees the single updates, whose unit is one client",
    )
    epsilon: float = Field(
        8.0, gt=0, description="most that the whole run may cost one client's data, at delta"
    )
    delta: float = Field(
        1e-5, gt=0, lt=1, description="below one over the examples of every client, which each one checks"
    )
    noise_multiplier: float = Field(
        0.0, ge=0, description="noise over max_grad_norm; 0: the least that keeps the run within epsilon"
    )
    max_grad_norm: float = Field(
        1.0,
        gt=0,
        description="L2 bound of one example's gradient, or of its part in the adapters; takes the place of "
        "training's",
    )
    clipping: Annotated[str, Named(CLIPPINGS)] = Field(
        "flat",
        description="how a gradient is brought within its bound; flat: longer ones are cut; auto-s: all are "
        "brought to about that length",
    )
    head_max_norm: float = Field(
        0.0, ge=0, description="L2 bound of the head's part alone; 0: one bound for everything"
    )
    head_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of a step's squared signal-to-noise ratio that the head gets (head_max_norm)",
    )
    sampling: Literal["poisson", "truncated-poisson", "shuffled"] = Field(
        "poisson",
        description="how batches are drawn: training.batch_size is their mean, or their size (shuffled, "
        "which is accounted without amplification)",
    )
    max_batch: int = Field(
        0, ge=0, description="cap of truncated-poisson batches; 0: one and a half times training.batch_size"
    )
    sketch_share: float = Field(
        0.3, gt=0, lt=1, description="share of epsilon that the sketch alone may cost (dp-sketch)"
    )
    sketch_max_norm: float = Field(
        0.01, gt=0, description="L2 bound of one example's sketch; a small one weighs all alike (dp-sketch)"
    )
    spare_rounds: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="rounds beyond rounds.total that the noise is calibrated for, so that rounds that were "
        "charged and then lost can be repeated within epsilon",
    )
    client_max_norm: float = Field(
        1.0, gt=0, description="L2 bound of one client's update; with clip_quantile, the first one (client)"
    )
    client_rate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="probability that a client is asked for a round, drawn in secret at the server (client)",
    )
    clip_quantile: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of updates that the bound leaves alone, which it then follows; 0: fixed (client)",
    )
    clip_rate: float = Field(0.2, gt=0, description="how fast the bound follows clip_quantile (client)")
    count_noise: float = Field(
        0.0,
        ge=0,
        description="noise on the count of updates that were left alone, which clip_quantile needs; 0: a "
        "twentieth of the expected clients, and at least the noise multiplier (client)",
    )


class RunConfig(Section):
    """One federated run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="short name")
    seed: int = Field(17, ge=0, lt=2**63, description="all randomness but privacy noise derives from it")
    method: Annotated[str, Named(METHODS)] = Field(
        "fedsb",
        description="the federated method; fedsb: square matrices in a frozen frame, averaged exactly; "
        "fedit: LoRA, both factors averaged one by one; ffa-lora: LoRA with a frozen A, B averaged exactly",
    )
    model: ModelSection = Field(default_factory=ModelSection)
    task: TaskSection = Field(default_factory=TaskSection)
    data: DataSection = DataSection()
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    public: PublicSection = Field(default_factory=PublicSection)
    head: HeadSection = HeadSection()
    privacy: PrivacySection = PrivacySection()
    rounds: RoundsSection = Field(default_factory=RoundsSection)
    aggregation: AggregationSection = Field(default_factory=AggregationSection)
    codec: CodecSection = Field(default_factory=CodecSection)
    secagg: SecaggSection = SecaggSection()
    evaluation: EvaluationSection = EvaluationSection()
    simulation: SimulationSection = SimulationSection()
    store: StoreSection = StoreSection()

    @model_validator(mode="before")
    @classmethod
    def _weights_follow(cls, table: object) -> object:
        return with_weighting(table) if isinstance(table, Mapping) else table

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = list(contradictions(self))
        if found:
            raise ContradictionError(found)
        return self
