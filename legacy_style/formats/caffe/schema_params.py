"""The parameter messages that one layer may hold, as tables: message name -> field number -> field.

The numbers and defaults are the facts of BVLC/caffe, src/caffe/proto/caffe.proto. `schema` adds the messages
around them and is the module to import.
"""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """One field of a message.

    `kind` is a scalar ("int32", "int64", "uint32", "bool", "float", "double", "string"), the name of an enum
    in ENUMS or of a message in MESSAGES. `default` is what an absent field counts as; None stands for the
    kind's own: 0, False, "", an enum's first value, an empty message, an empty list.
    """

    name: str
    kind: str
    default: bool | int | float | str | None = None
    repeated: bool = False
    packed: bool = False


def repeated(name: str, kind: str, *, packed: bool = False) -> Field:
    """A field that may occur any number of times.

    Numbers may come one by one or packed into one, whatever `packed` says: that is how they are written.
    """
    return Field(name, kind, repeated=True, packed=packed)


# Enums are shared where caffe.proto repeats one and the same enum in several messages.
ENUMS: dict[str, dict[int, str]] = {
    "DB": {0: "LEVELDB", 1: "LMDB"},
    "DimCheckMode": {0: "STRICT", 1: "PERMISSIVE"},
    "EltwiseOp": {0: "PROD", 1: "SUM", 2: "MAX"},
    "Engine": {0: "DEFAULT", 1: "CAFFE", 2: "CUDNN"},
    "Norm": {1: "L1", 2: "L2"},
    "NormRegion": {0: "ACROSS_CHANNELS", 1: "WITHIN_CHANNEL"},
    "NormalizationMode": {0: "FULL", 1: "VALID", 2: "BATCH_SIZE", 3: "NONE"},
    "Phase": {0: "TRAIN", 1: "TEST"},
    "PoolMethod": {0: "MAX", 1: "AVE", 2: "STOCHASTIC"},
    "ReductionOp": {1: "SUM", 2: "ASUM", 3: "SUMSQ", 4: "MEAN"},
    "RoundMode": {0: "CEIL", 1: "FLOOR"},
    "VarianceNorm": {0: "FAN_IN", 1: "FAN_OUT", 2: "AVERAGE"},
}

MESSAGES: dict[str, dict[int, Field]] = {
    "BlobShape": {1: repeated("dim", "int64", packed=True)},
    "BlobProto": {
        1: Field("num", "int32"),
        2: Field("channels", "int32"),
        3: Field("height", "int32"),
        4: Field("width", "int32"),
        5: repeated("data", "float", packed=True),
        6: repeated("diff", "float", packed=True),
        7: Field("shape", "BlobShape"),
        8: repeated("double_data", "double", packed=True),
        9: repeated("double_diff", "double", packed=True),
    },
    "FillerParameter": {
        1: Field("type", "string", "constant"),
        2: Field("value", "float"),
        3: Field("min", "float"),
        4: Field("max", "float", 1.0),
        5: Field("mean", "float"),
        6: Field("std", "float", 1.0),
        7: Field("sparse", "int32", -1),
        8: Field("variance_norm", "VarianceNorm"),
    },
    "TransformationParameter": {
        1: Field("scale", "float", 1.0),
        2: Field("mirror", "bool"),
        3: Field("crop_size", "uint32"),
        4: Field("mean_file", "string"),
        5: repeated("mean_value", "float"),
        6: Field("force_color", "bool"),
        7: Field("force_gray", "bool"),
    },
    "LossParameter": {
        1: Field("ignore_label", "int32"),
        2: Field("normalize", "bool"),
        3: Field("normalization", "NormalizationMode", "VALID"),
    },
    "AccuracyParameter": {
        1: Field("top_k", "uint32", 1),
        2: Field("axis", "int32", 1),
        3: Field("ignore_label", "int32"),
    },
    "ArgMaxParameter": {
        1: Field("out_max_val", "bool"),
        2: Field("top_k", "uint32", 1),
        3: Field("axis", "int32"),
    },
    "BatchNormParameter": {
        1: Field("use_global_stats", "bool"),
        2: Field("moving_average_fraction", "float", 0.999),
        3: Field("eps", "float", 1e-5),
    },
    "BiasParameter": {
        1: Field("axis", "int32", 1),
        2: Field("num_axes", "int32", 1),
        3: Field("filler", "FillerParameter"),
    },
    "ClipParameter": {1: Field("min", "float"), 2: Field("max", "float")},
    "ConcatParameter": {1: Field("concat_dim", "uint32", 1), 2: Field("axis", "int32", 1)},
    "ContrastiveLossParameter": {1: Field("margin", "float", 1.0), 2: Field("legacy_version", "bool")},
    # kernel_size, stride, pad and dilation were single numbers in files before N-d convolution; one number
    # reads as a list of one.
    "ConvolutionParameter": {
        1: Field("num_output", "uint32"),
        2: Field("bias_term", "bool", True),
        3: repeated("pad", "uint32"),
        4: repeated("kernel_size", "uint32"),
        5: Field("group", "uint32", 1),
        6: repeated("stride", "uint32"),
        7: Field("weight_filler", "FillerParameter"),
        8: Field("bias_filler", "FillerParameter"),
        9: Field("pad_h", "uint32"),
        10: Field("pad_w", "uint32"),
        11: Field("kernel_h", "uint32"),
        12: Field("kernel_w", "uint32"),
        13: Field("stride_h", "uint32"),
        14: Field("stride_w", "uint32"),
        15: Field("engine", "Engine"),
        16: Field("axis", "int32", 1),
        17: Field("force_nd_im2col", "bool"),
        18: repeated("dilation", "uint32"),
    },
    "CropParameter": {1: Field("axis", "int32", 2), 2: repeated("offset", "uint32")},
    "DataParameter": {
        1: Field("source", "string"),
        2: Field("scale", "float", 1.0),
        3: Field("mean_file", "string"),
        4: Field("batch_size", "uint32"),
        5: Field("crop_size", "uint32"),
        6: Field("mirror", "bool"),
        7: Field("rand_skip", "uint32"),
        8: Field("backend", "DB"),
        9: Field("force_encoded_color", "bool"),
        10: Field("prefetch", "uint32", 4),
    },
    "DropoutParameter": {1: Field("dropout_ratio", "float", 0.5)},
    "DummyDataParameter": {
        1: repeated("data_filler", "FillerParameter"),
        2: repeated("num", "uint32"),
        3: repeated("channels", "uint32"),
        4: repeated("height", "uint32"),
        5: repeated("width", "uint32"),
        6: repeated("shape", "BlobShape"),
    },
    "EltwiseParameter": {
        1: Field("operation", "EltwiseOp", "SUM"),
        2: repeated("coeff", "float"),
        3: Field("stable_prod_grad", "bool", True),
    },
    "ELUParameter": {1: Field("alpha", "float", 1.0)},
    "EmbedParameter": {
        1: Field("num_output", "uint32"),
        2: Field("input_dim", "uint32"),
        3: Field("bias_term", "bool", True),
        4: Field("weight_filler", "FillerParameter"),
        5: Field("bias_filler", "FillerParameter"),
    },
    "ExpParameter": {
        1: Field("base", "float", -1.0),
        2: Field("scale", "float", 1.0),
        3: Field("shift", "float"),
    },
    "FlattenParameter": {1: Field("axis", "int32", 1), 2: Field("end_axis", "int32", -1)},
    "HDF5DataParameter": {
        1: Field("source", "string"),
        2: Field("batch_size", "uint32"),
        3: Field("shuffle", "bool"),
    },
    "HDF5OutputParameter": {1: Field("file_name", "string")},
    "HingeLossParameter": {1: Field("norm", "Norm")},
    "ImageDataParameter": {
        1: Field("source", "string"),
        2: Field("scale", "float", 1.0),
        3: Field("mean_file", "string"),
        4: Field("batch_size", "uint32", 1),
        5: Field("crop_size", "uint32"),
        6: Field("mirror", "bool"),
        7: Field("rand_skip", "uint32"),
        8: Field("shuffle", "bool"),
        9: Field("new_height", "uint32"),
        10: Field("new_width", "uint32"),
        11: Field("is_color", "bool", True),
        12: Field("root_folder", "string"),
    },
    "InfogainLossParameter": {1: Field("source", "string"), 2: Field("axis", "int32", 1)},
    "InnerProductParameter": {
        1: Field("num_output", "uint32"),
        2: Field("bias_term", "bool", True),
        3: Field("weight_filler", "FillerParameter"),
        4: Field("bias_filler", "FillerParameter"),
        5: Field("axis", "int32", 1),
        6: Field("transpose", "bool"),
    },
    "InputParameter": {1: repeated("shape", "BlobShape")},
    "LogParameter": {
        1: Field("base", "float", -1.0),
        2: Field("scale", "float", 1.0),
        3: Field("shift", "float"),
    },
    "LRNParameter": {
        1: Field("local_size", "uint32", 5),
        2: Field("alpha", "float", 1.0),
        3: Field("beta", "float", 0.75),
        4: Field("norm_region", "NormRegion"),
        5: Field("k", "float", 1.0),
        6: Field("engine", "Engine"),
    },
    "MemoryDataParameter": {
        1: Field("batch_size", "uint32"),
        2: Field("channels", "uint32"),
        3: Field("height", "uint32"),
        4: Field("width", "uint32"),
    },
    "MVNParameter": {
        1: Field("normalize_variance", "bool", True),
        2: Field("across_channels", "bool"),
        3: Field("eps", "float", 1e-9),
    },
    "ParameterParameter": {1: Field("shape", "BlobShape")},
    "PoolingParameter": {
        1: Field("pool", "PoolMethod"),
        2: Field("kernel_size", "uint32"),
        3: Field("stride", "uint32", 1),
        4: Field("pad", "uint32"),
        5: Field("kernel_h", "uint32"),
        6: Field("kernel_w", "uint32"),
        7: Field("stride_h", "uint32"),
        8: Field("stride_w", "uint32"),
        9: Field("pad_h", "uint32"),
        10: Field("pad_w", "uint32"),
        11: Field("engine", "Engine"),
        12: Field("global_pooling", "bool"),
        13: Field("round_mode", "RoundMode"),
    },
    "PowerParameter": {
        1: Field("power", "float", 1.0),
        2: Field("scale", "float", 1.0),
        3: Field("shift", "float"),
    },
    "PReLUParameter": {1: Field("filler", "FillerParameter"), 2: Field("channel_shared", "bool")},
    "PythonParameter": {
        1: Field("module", "string"),
        2: Field("layer", "string"),
        3: Field("param_str", "string"),
        4: Field("share_in_parallel", "bool"),
    },
    "RecurrentParameter": {
        1: Field("num_output", "uint32"),
        2: Field("weight_filler", "FillerParameter"),
        3: Field("bias_filler", "FillerParameter"),
        4: Field("debug_info", "bool"),
        5: Field("expose_hidden", "bool"),
    },
    "ReductionParameter": {
        1: Field("operation", "ReductionOp"),
        2: Field("axis", "int32"),
        3: Field("coeff", "float", 1.0),
    },
    "ReLUParameter": {1: Field("negative_slope", "float"), 2: Field("engine", "Engine")},
    "ReshapeParameter": {
        1: Field("shape", "BlobShape"),
        2: Field("axis", "int32"),
        3: Field("num_axes", "int32", -1),
    },
    "ScaleParameter": {
        1: Field("axis", "int32", 1),
        2: Field("num_axes", "int32", 1),
        3: Field("filler", "FillerParameter"),
        4: Field("bias_term", "bool"),
        5: Field("bias_filler", "FillerParameter"),
    },
    "SigmoidParameter": {1: Field("engine", "Engine")},
    "SliceParameter": {
        1: Field("slice_dim", "uint32", 1),
        2: repeated("slice_point", "uint32"),
        3: Field("axis", "int32", 1),
    },
    "SoftmaxParameter": {1: Field("engine", "Engine"), 2: Field("axis", "int32", 1)},
    "SPPParameter": {
        1: Field("pyramid_height", "uint32"),
        2: Field("pool", "PoolMethod"),
        6: Field("engine", "Engine"),
    },
    "SwishParameter": {1: Field("beta", "float", 1.0)},
    "TanHParameter": {1: Field("engine", "Engine")},
    "ThresholdParameter": {1: Field("threshold", "float")},
    "TileParameter": {1: Field("axis", "int32", 1), 2: Field("tiles", "int32")},
    "WindowDataParameter": {
        1: Field("source", "string"),
        2: Field("scale", "float", 1.0),
        3: Field("mean_file", "string"),
        4: Field("batch_size", "uint32"),
        5: Field("crop_size", "uint32"),
        6: Field("mirror", "bool"),
        7: Field("fg_threshold", "float", 0.5),
        8: Field("bg_threshold", "float", 0.5),
        9: Field("fg_fraction", "float", 0.25),
        10: Field("context_pad", "uint32"),
        11: Field("crop_mode", "string", "warp"),
        12: Field("cache_images", "bool"),
        13: Field("root_folder", "string"),
    },
}
