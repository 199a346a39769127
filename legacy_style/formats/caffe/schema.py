"""The messages of caffe.proto as tables: message name -> field number -> what the field is.

The numbers and defaults are the facts of BVLC/caffe, src/caffe/proto/caffe.proto. One set of tables serves
the binary reader, which asks by number, and the text parser and the writer, which ask by name. A field that
is not here (training, solvers, forks of Caffe) is unknown: readers pass over it.
"""

from __future__ import annotations

from typing import NamedTuple

from legacy_style.formats.caffe import schema_params
from legacy_style.formats.caffe.schema_params import Field, repeated

# LayerParameter and V1LayerParameter hold the same parameter messages under other numbers:
# field name -> (message, number in LayerParameter, number in V1LayerParameter)
LAYER_PARAMS: dict[str, tuple[str, int, int | None]] = {
    "transform_param": ("TransformationParameter", 100, 36),
    "loss_param": ("LossParameter", 101, 42),
    "accuracy_param": ("AccuracyParameter", 102, 27),
    "argmax_param": ("ArgMaxParameter", 103, 23),
    "batch_norm_param": ("BatchNormParameter", 139, None),
    "bias_param": ("BiasParameter", 141, None),
    "clip_param": ("ClipParameter", 148, None),
    "concat_param": ("ConcatParameter", 104, 9),
    "contrastive_loss_param": ("ContrastiveLossParameter", 105, 40),
    "convolution_param": ("ConvolutionParameter", 106, 10),
    "crop_param": ("CropParameter", 144, None),
    "data_param": ("DataParameter", 107, 11),
    "dropout_param": ("DropoutParameter", 108, 12),
    "dummy_data_param": ("DummyDataParameter", 109, 26),
    "eltwise_param": ("EltwiseParameter", 110, 24),
    "elu_param": ("ELUParameter", 140, None),
    "embed_param": ("EmbedParameter", 137, None),
    "exp_param": ("ExpParameter", 111, 41),
    "flatten_param": ("FlattenParameter", 135, None),
    "hdf5_data_param": ("HDF5DataParameter", 112, 13),
    "hdf5_output_param": ("HDF5OutputParameter", 113, 14),
    "hinge_loss_param": ("HingeLossParameter", 114, 29),
    "image_data_param": ("ImageDataParameter", 115, 15),
    "infogain_loss_param": ("InfogainLossParameter", 116, 16),
    "inner_product_param": ("InnerProductParameter", 117, 17),
    "input_param": ("InputParameter", 143, None),
    "log_param": ("LogParameter", 134, None),
    "lrn_param": ("LRNParameter", 118, 18),
    "memory_data_param": ("MemoryDataParameter", 119, 22),
    "mvn_param": ("MVNParameter", 120, 34),
    "parameter_param": ("ParameterParameter", 145, None),
    "pooling_param": ("PoolingParameter", 121, 19),
    "power_param": ("PowerParameter", 122, 21),
    "prelu_param": ("PReLUParameter", 131, None),
    "python_param": ("PythonParameter", 130, None),
    "recurrent_param": ("RecurrentParameter", 146, None),
    "reduction_param": ("ReductionParameter", 136, None),
    "relu_param": ("ReLUParameter", 123, 30),
    "reshape_param": ("ReshapeParameter", 133, None),
    "scale_param": ("ScaleParameter", 142, None),
    "sigmoid_param": ("SigmoidParameter", 124, 38),
    "slice_param": ("SliceParameter", 126, 31),
    "softmax_param": ("SoftmaxParameter", 125, 39),
    "spp_param": ("SPPParameter", 132, None),
    "swish_param": ("SwishParameter", 147, None),
    "tanh_param": ("TanHParameter", 127, 37),
    "threshold_param": ("ThresholdParameter", 128, 25),
    "tile_param": ("TileParameter", 138, None),
    "window_data_param": ("WindowDataParameter", 129, 20),
}


class V1Type(NamedTuple):
    """One value of V1LayerParameter.LayerType: its name there, and the string that V2 has instead."""

    name: str
    v2: str


# V1LayerParameter.LayerType; the strings are those of Caffe's UpgradeV1LayerType (upgrade_proto.cpp).
V1_TYPES: dict[int, V1Type] = {
    0: V1Type("NONE", ""),
    1: V1Type("ACCURACY", "Accuracy"),
    2: V1Type("BNLL", "BNLL"),
    3: V1Type("CONCAT", "Concat"),
    4: V1Type("CONVOLUTION", "Convolution"),
    5: V1Type("DATA", "Data"),
    6: V1Type("DROPOUT", "Dropout"),
    7: V1Type("EUCLIDEAN_LOSS", "EuclideanLoss"),
    8: V1Type("FLATTEN", "Flatten"),
    9: V1Type("HDF5_DATA", "HDF5Data"),
    10: V1Type("HDF5_OUTPUT", "HDF5Output"),
    11: V1Type("IM2COL", "Im2col"),
    12: V1Type("IMAGE_DATA", "ImageData"),
    13: V1Type("INFOGAIN_LOSS", "InfogainLoss"),
    14: V1Type("INNER_PRODUCT", "InnerProduct"),
    15: V1Type("LRN", "LRN"),
    16: V1Type("MULTINOMIAL_LOGISTIC_LOSS", "MultinomialLogisticLoss"),
    17: V1Type("POOLING", "Pooling"),
    18: V1Type("RELU", "ReLU"),
    19: V1Type("SIGMOID", "Sigmoid"),
    20: V1Type("SOFTMAX", "Softmax"),
    21: V1Type("SOFTMAX_LOSS", "SoftmaxWithLoss"),
    22: V1Type("SPLIT", "Split"),
    23: V1Type("TANH", "TanH"),
    24: V1Type("WINDOW_DATA", "WindowData"),
    25: V1Type("ELTWISE", "Eltwise"),
    26: V1Type("POWER", "Power"),
    27: V1Type("SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"),
    28: V1Type("HINGE_LOSS", "HingeLoss"),
    29: V1Type("MEMORY_DATA", "MemoryData"),
    30: V1Type("ARGMAX", "ArgMax"),
    31: V1Type("THRESHOLD", "Threshold"),
    32: V1Type("DUMMY_DATA", "DummyData"),
    33: V1Type("SLICE", "Slice"),
    34: V1Type("MVN", "MVN"),
    35: V1Type("ABSVAL", "AbsVal"),
    36: V1Type("SILENCE", "Silence"),
    37: V1Type("CONTRASTIVE_LOSS", "ContrastiveLoss"),
    38: V1Type("EXP", "Exp"),
    39: V1Type("DECONVOLUTION", "Deconvolution"),
}

# V0LayerParameter.type -> V1LayerParameter.LayerType (UpgradeV0LayerType). The type "padding" has no
# successor: its pad moves into the layers that it feeds.
V0_TYPES: dict[str, str] = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

ENUMS: dict[str, dict[int, str]] = {
    **schema_params.ENUMS,
    "LayerType": {number: kind.name for number, kind in V1_TYPES.items()},
}

MESSAGES: dict[str, dict[int, Field]] = {
    **schema_params.MESSAGES,
    "NetParameter": {
        1: Field("name", "string"),
        2: repeated("layers", "V1LayerParameter"),
        3: repeated("input", "string"),
        4: repeated("input_dim", "int32"),
        5: Field("force_backward", "bool"),
        6: Field("state", "NetState"),
        7: Field("debug_info", "bool"),
        8: repeated("input_shape", "BlobShape"),
        100: repeated("layer", "LayerParameter"),
    },
    "NetState": {
        1: Field("phase", "Phase", "TEST"),
        2: Field("level", "int32"),
        3: repeated("stage", "string"),
    },
    "NetStateRule": {
        1: Field("phase", "Phase"),
        2: Field("min_level", "int32"),
        3: Field("max_level", "int32"),
        4: repeated("stage", "string"),
        5: repeated("not_stage", "string"),
    },
    "ParamSpec": {
        1: Field("name", "string"),
        2: Field("share_mode", "DimCheckMode"),
        3: Field("lr_mult", "float", 1.0),
        4: Field("decay_mult", "float", 1.0),
    },
    "LayerParameter": {
        1: Field("name", "string"),
        2: Field("type", "string"),
        3: repeated("bottom", "string"),
        4: repeated("top", "string"),
        5: repeated("loss_weight", "float"),
        6: repeated("param", "ParamSpec"),
        7: repeated("blobs", "BlobProto"),
        8: repeated("include", "NetStateRule"),
        9: repeated("exclude", "NetStateRule"),
        10: Field("phase", "Phase"),
        11: repeated("propagate_down", "bool"),
        **{v2: Field(name, message) for name, (message, v2, _) in LAYER_PARAMS.items()},
    },
    "V1LayerParameter": {
        1: Field("layer", "V0LayerParameter"),
        2: repeated("bottom", "string"),
        3: repeated("top", "string"),
        4: Field("name", "string"),
        5: Field("type", "LayerType"),
        6: repeated("blobs", "BlobProto"),
        7: repeated("blobs_lr", "float"),
        8: repeated("weight_decay", "float"),
        32: repeated("include", "NetStateRule"),
        33: repeated("exclude", "NetStateRule"),
        35: repeated("loss_weight", "float"),
        1001: repeated("param", "string"),
        1002: repeated("blob_share_mode", "DimCheckMode"),
        **{v1: Field(name, message) for name, (message, _, v1) in LAYER_PARAMS.items() if v1 is not None},
    },
    "V0LayerParameter": {
        1: Field("name", "string"),
        2: Field("type", "string"),
        3: Field("num_output", "uint32"),
        4: Field("biasterm", "bool", True),
        5: Field("weight_filler", "FillerParameter"),
        6: Field("bias_filler", "FillerParameter"),
        7: Field("pad", "uint32"),
        8: Field("kernelsize", "uint32"),
        9: Field("group", "uint32", 1),
        10: Field("stride", "uint32", 1),
        11: Field("pool", "PoolMethod"),
        12: Field("dropout_ratio", "float", 0.5),
        13: Field("local_size", "uint32", 5),
        14: Field("alpha", "float", 1.0),
        15: Field("beta", "float", 0.75),
        16: Field("source", "string"),
        17: Field("scale", "float", 1.0),
        18: Field("meanfile", "string"),
        19: Field("batchsize", "uint32"),
        20: Field("cropsize", "uint32"),
        21: Field("mirror", "bool"),
        22: Field("k", "float", 1.0),
        50: repeated("blobs", "BlobProto"),
        51: repeated("blobs_lr", "float"),
        52: repeated("weight_decay", "float"),
        53: Field("rand_skip", "uint32"),
        54: Field("det_fg_threshold", "float", 0.5),
        55: Field("det_bg_threshold", "float", 0.5),
        56: Field("det_fg_fraction", "float", 0.25),
        58: Field("det_context_pad", "uint32"),
        59: Field("det_crop_mode", "string", "warp"),
        60: Field("new_num", "int32"),
        61: Field("new_channels", "int32"),
        62: Field("new_height", "int32"),
        63: Field("new_width", "int32"),
        64: Field("shuffle_images", "bool"),
        65: Field("concat_dim", "uint32", 1),
        1001: Field("hdf5_output_param", "HDF5OutputParameter"),
    },
}

# Message name -> field name -> (number, field), for parsers of text and for writers.
BY_NAME: dict[str, dict[str, tuple[int, Field]]] = {
    message: {field.name: (number, field) for number, field in fields.items()}
    for message, fields in MESSAGES.items()
}
