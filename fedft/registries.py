"""What there is of each kind: the one place that lists the built-in things.

A new built-in is a file of its own and a line here; another package's is no line at all. The references are
strings, so that a name can be checked without an import of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedft.registry import Registry

if TYPE_CHECKING:
    from fedft.adapters.initialisers.interface import Initialiser
    from fedft.aggregation.rules.interface import AggregationRule
    from fedft.codecs.interface import Codec
    from fedft.methods.interface import Method
    from fedft.privacy.mechanisms.clipping import ClippingKind
    from fedft.privacy.models.interface import PrivacyModel
    from fedft.quant.interface import QuantFormat
    from fedft.training.averages import AverageKind
    from fedft.training.optimizer import OptimizerKind
    from fedft.training.task import Task

FRAMES: Registry[Initialiser] = Registry(
    "frame initialiser",
    "fedft.frames",
    "fedft.adapters.initialisers.interface:Initialiser",
    {
        "lora-sb": "fedft.adapters.initialisers.lora_sb:LORA_SB",
        "lora-xs": "fedft.adapters.initialisers.lora_xs:LORA_XS",
        "pissa": "fedft.adapters.initialisers.pissa:PISSA",
        "random": "fedft.adapters.initialisers.random:RANDOM",
        "dp-sketch": "fedft.adapters.initialisers.dp_sketch:DP_SKETCH",
    },
)

METHODS: Registry[Method] = Registry(
    "method",
    "fedft.methods",
    "fedft.methods.interface:Method",
    {
        "fedsb": "fedft.methods.fedsb:FEDSB",
        "fedit": "fedft.methods.lora:FEDIT",
        "ffa-lora": "fedft.methods.lora:FFA_LORA",
    },
)

TASKS: Registry[type[Task[Any]]] = Registry(
    "task",
    "fedft.tasks",
    "fedft.training.task:Task",
    {
        "causal-lm": "fedft.training.causal_lm:CausalLM",
        "sequence-classification": "fedft.training.sequence_classification:SequenceClassification",
    },
)

QUANT: Registry[QuantFormat] = Registry(
    "quantised format",
    "fedft.quant",
    "fedft.quant.interface:QuantFormat",
    {"nf4": "fedft.quant.nf4:NF4", "int8": "fedft.quant.int8:INT8"},
)

PRIVACY_MODELS: Registry[PrivacyModel] = Registry(
    "privacy mechanism",
    "fedft.privacy",
    "fedft.privacy.models.interface:PrivacyModel",
    {
        "none": "fedft.privacy.models.none:NONE",
        "example": "fedft.privacy.models.example:EXAMPLE",
        "client": "fedft.privacy.models.client:CLIENT",
    },
)

OPTIMIZERS: Registry[OptimizerKind] = Registry(
    "optimizer",
    "fedft.optimizers",
    "fedft.training.optimizer:OptimizerKind",
    {
        "adamw": "fedft.training.optimizer:ADAMW",
        "adamw8bit": "fedft.training.optimizer:ADAMW_8BIT",
        "paged-adamw8bit": "fedft.training.optimizer:PAGED_ADAMW_8BIT",
        "sgd": "fedft.training.optimizer:SGD",
        "adam-corrected": "fedft.training.corrected_adam:ADAM_CORRECTED",
    },
)

AVERAGES: Registry[AverageKind] = Registry(
    "average of states",
    "fedft.averages",
    "fedft.training.averages:AverageKind",
    {
        "last": "fedft.training.averages:LAST",
        "tail": "fedft.training.averages:TAIL",
        "exponential": "fedft.training.averages:EXPONENTIAL",
    },
)

CLIPPINGS: Registry[ClippingKind] = Registry(
    "clipping",
    "fedft.clippings",
    "fedft.privacy.mechanisms.clipping:ClippingKind",
    {
        "flat": "fedft.privacy.mechanisms.clipping:FLAT",
        "auto-s": "fedft.privacy.mechanisms.clipping:AUTO_S",
    },
)

CODECS: Registry[Codec] = Registry(
    "codec",
    "fedft.codecs",
    "fedft.codecs.interface:Codec",
    {
        "ternary": "fedft.codecs.ternary:TERNARY_CODEC",
        "rotated1": "fedft.codecs.rotated:ROTATED1",
        "rotated2": "fedft.codecs.rotated:ROTATED2",
        "int4": "fedft.codecs.block_int:INT4",
        "int8": "fedft.codecs.block_int:INT8",
        "bf16": "fedft.codecs.dense:BF16",
        "dense": "fedft.codecs.dense:DENSE_CODEC",
    },
)

AGGREGATION_RULES: Registry[AggregationRule] = Registry(
    "aggregation rule",
    "fedft.aggregation",
    "fedft.aggregation.rules.interface:AggregationRule",
    {
        "mean": "fedft.aggregation.rules.mean:MEAN",
        "norm-bound": "fedft.aggregation.rules.norm_bound:NORM_BOUND",
        "median": "fedft.aggregation.rules.trimmed:MEDIAN",
        "trimmed-mean": "fedft.aggregation.rules.trimmed:TRIMMED_MEAN",
        "multi-krum": "fedft.aggregation.rules.multi_krum:MULTI_KRUM",
    },
)
