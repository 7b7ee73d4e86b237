"""Caffe's file format as protobuf classes, made without protoc: names, types and defaults of the fields that conversion
reads, as BVLC and the common forks define them.

Numbers stand where they matter: at what a .caffemodel is read for. The other fields are read from text alone, and have
numbers that no fork uses, so that what a fork keeps under a number is skipped instead of misread. The classes have a
pool of their own, so that another caffe.proto does not clash.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIRST_OWN_NUMBER = 1_000_000

_PARAMETERS = """BatchNormParameter batch_norm_param; BiasParameter bias_param; BNParameter bn_param
    ArgMaxParameter argmax_param; ClipParameter clip_param; ConcatParameter concat_param
    ConvolutionParameter convolution_param; CropParameter crop_param; DropoutParameter dropout_param
    EltwiseParameter eltwise_param; ELUParameter elu_param; ExpParameter exp_param; FlattenParameter flatten_param
    InnerProductParameter inner_product_param; InputParameter input_param; InterpParameter interp_param
    ExpParameter log_param; LRNParameter lrn_param; MVNParameter mvn_param; NormalizeParameter norm_param
    PermuteParameter permute_param; PoolingParameter pooling_param; PowerParameter power_param
    PReLUParameter prelu_param; ReductionParameter reduction_param; ReLUParameter relu_param; ReLUParameter relu6_param
    ReorgParameter reorg_param; ReshapeParameter reshape_param; ScaleParameter scale_param
    EmptyParameter sigmoid_param; EmptyParameter tanh_param; EmptyParameter mish_param
    ShuffleChannelParameter shuffle_channel_param; SliceParameter slice_param; SoftmaxParameter softmax_param
    SwishParameter swish_param; TileParameter tile_param; UpsampleParameter upsample_param"""

# Each field: type (* repeated), name, #number, and the default where it is not zero.
_MESSAGES = {
    "BlobShape": "int64* dim #1",
    # Packed floats are, on the wire, bytes of little-endian numbers: read as such they become arrays without a loop.
    "BlobProto": """BlobShape shape #7; bytes* data #5; bytes* double_data #8
        int32 num #1; int32 channels #2; int32 height #3; int32 width #4""",
    "NetParameter": """string name #1; string* input; BlobShape* input_shape; int32* input_dim
        LayerParameter* layer #100; V1LayerParameter* layers #2""",
    "NetStateRule": "Phase phase; int32 min_level; int32 max_level; string* stage; string* not_stage",
    "LayerParameter": f"""string name #1; string type; string* bottom; string* top; NetStateRule* include
        NetStateRule* exclude; BlobProto* blobs #7
        {_PARAMETERS}""",
    "V1LayerParameter": f"""string name #4; V1Type type; string* bottom; string* top; NetStateRule* include
        NetStateRule* exclude; BlobProto* blobs #6; V0LayerParameter layer #1
        {_PARAMETERS}""",
    "V0LayerParameter": """string name #1; string type; uint32 num_output; bool biasterm true; uint32 pad
        uint32 kernelsize; uint32 group 1; uint32 stride 1; PoolMethod pool; float dropout_ratio; uint32 local_size 5
        float alpha 1; float beta 0.75; float k 1; uint32 concat_dim 1; BlobProto* blobs #50""",
    "ArgMaxParameter": "bool out_max_val; uint32 top_k 1; int32 axis",
    "BatchNormParameter": """bool use_global_stats; float eps 1e-5; bool scale_bias; FillerParameter scale_filler
        FillerParameter bias_filler""",
    "BiasParameter": "int32 axis 1; int32 num_axes 1",
    "BNParameter": "float eps 1e-5; BNMode bn_mode; bool frozen",
    "ClipParameter": "float min; float max",
    "ConcatParameter": "int32 axis 1; uint32 concat_dim",
    "ConvolutionParameter": """uint32 num_output; bool bias_term true; uint32 group 1; int32 axis 1
        uint32* pad; uint32* kernel_size; uint32* stride; uint32* dilation
        uint32 pad_h; uint32 pad_w; uint32 kernel_h; uint32 kernel_w; uint32 stride_h; uint32 stride_w""",
    "CropParameter": "int32 axis 2; uint32* offset",
    "DropoutParameter": "float dropout_ratio 0.5; bool scale_train true",
    "EltwiseParameter": "EltwiseOp operation SUM; float* coeff",
    "ELUParameter": "float alpha 1",
    "EmptyParameter": "",
    "ExpParameter": "float base -1; float scale 1; float shift",
    "FillerParameter": "",
    "FlattenParameter": "int32 axis 1; int32 end_axis -1",
    "InnerProductParameter": "uint32 num_output; bool bias_term true; int32 axis 1; bool transpose",
    "InputParameter": "BlobShape* shape",
    "InterpParameter": """int32 height; int32 width; int32 zoom_factor 1; int32 shrink_factor 1
        int32 pad_beg; int32 pad_end""",
    "LRNParameter": "uint32 local_size 5; float alpha 1; float beta 0.75; NormRegion norm_region; float k 1",
    "MVNParameter": "bool normalize_variance true; bool across_channels; float eps 1e-9",
    "NormalizeParameter": "bool across_spatial true; bool channel_shared true; float eps 1e-10",
    "PermuteParameter": "uint32* order",
    # The sizes of a pooling window are single in Caffe; repeated, they read like a convolution's.
    "PoolingParameter": """PoolMethod pool; uint32* pad; uint32* kernel_size; uint32* stride
        uint32 pad_h; uint32 pad_w; uint32 kernel_h; uint32 kernel_w; uint32 stride_h; uint32 stride_w
        bool global_pooling; RoundMode round_mode; bool ceil_mode""",
    "PowerParameter": "float power 1; float scale 1; float shift",
    "PReLUParameter": "bool channel_shared",
    "ReductionParameter": "ReductionOp operation SUM; int32 axis; float coeff 1",
    "ReLUParameter": "float negative_slope",
    "ReorgParameter": "uint32 stride; bool reverse",
    "ReshapeParameter": "BlobShape shape; int32 axis; int32 num_axes -1",
    "ScaleParameter": "int32 axis 1; int32 num_axes 1; bool bias_term",
    "ShuffleChannelParameter": "uint32 group 1",
    "SliceParameter": "int32 axis 1; uint32* slice_point; uint32 slice_dim",
    "SoftmaxParameter": "int32 axis 1",
    "SwishParameter": "float beta 1",
    "TileParameter": "int32 axis 1; int32 tiles",
    "UpsampleParameter": "float scale 1; uint32 upsample_h; uint32 upsample_w; bool pad_out_h; bool pad_out_w",
}
_ENUMS = {
    "BNMode": "LEARN=0 INFERENCE=1",
    "Phase": "TRAIN=0 TEST=1",
    "EltwiseOp": "PROD=0 SUM=1 MAX=2",
    "NormRegion": "ACROSS_CHANNELS=0 WITHIN_CHANNEL=1",
    "PoolMethod": "MAX=0 AVE=1 STOCHASTIC=2",
    "ReductionOp": "SUM=1 ASUM=2 SUMSQ=3 MEAN=4",
    "RoundMode": "CEIL=0 FLOOR=1",
    "V1Type": """NONE=0 ACCURACY=1 BNLL=2 CONCAT=3 CONVOLUTION=4 DATA=5 DROPOUT=6 EUCLIDEAN_LOSS=7 FLATTEN=8 HDF5_DATA=9
        HDF5_OUTPUT=10 IM2COL=11 IMAGE_DATA=12 INFOGAIN_LOSS=13 INNER_PRODUCT=14 LRN=15 MULTINOMIAL_LOGISTIC_LOSS=16
        POOLING=17 RELU=18 SIGMOID=19 SOFTMAX=20 SOFTMAX_LOSS=21 SPLIT=22 TANH=23 WINDOW_DATA=24 ELTWISE=25 POWER=26
        SIGMOID_CROSS_ENTROPY_LOSS=27 HINGE_LOSS=28 MEMORY_DATA=29 ARGMAX=30 THRESHOLD=31 DUMMY_DATA=32 SLICE=33 MVN=34
        ABSVAL=35 SILENCE=36 CONTRASTIVE_LOSS=37 EXP=38 DECONVOLUTION=39""",
}
# Fields that choose among implementations of the same answer, or that training alone reads.
HARMLESS_FIELDS = frozenset(
    [
        *("engine", "conv_algorithm", "cudnn_convolution_algo_seeker", "cudnn_math_override", "force_nd_im2col"),
        *("filler", "weight_filler", "bias_filler", "scale_filler", "slope_filler", "shift_filler"),
        *("momentum", "moving_average_fraction", "stable_prod_grad", "sample_weights_test"),
    ]
)


def _net_parameter() -> Any:
    field_types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="loadtrt/caffe.proto", package="caffe", syntax="proto2")
    for name, values in _ENUMS.items():
        # Values are siblings of their type: one enum inside a message each, so that two may have a DEFAULT or a MAX.
        scope = file.message_type.add(name=f"{name}Scope")
        enum = scope.enum_type.add(name=name)
        for value in values.split():
            enum.value.add(name=value.partition("=")[0], number=int(value.partition("=")[2]))
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for place, line in enumerate(fields.replace("\n", ";").split(";")):
            if not line.strip():
                continue
            kind, field, *rest = line.split()
            numbers = [int(word[1:]) for word in rest if word.startswith("#")]
            default = [word for word in rest if not word.startswith("#")]
            repeated = kind.endswith("*")
            kind = kind.removesuffix("*")
            added = message.field.add(name=field, number=numbers[0] if numbers else _FIRST_OWN_NUMBER + place)
            added.label = field_types.LABEL_REPEATED if repeated else field_types.LABEL_OPTIONAL
            if kind in _MESSAGES:
                added.type, added.type_name = field_types.TYPE_MESSAGE, f".caffe.{kind}"
            elif kind in _ENUMS:
                added.type, added.type_name = field_types.TYPE_ENUM, f".caffe.{kind}Scope.{kind}"
            else:
                added.type = field_types.Type.Value(f"TYPE_{kind.upper()}")
            if default:
                added.default_value = default[0]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


NetParameter: Any = _net_parameter()
