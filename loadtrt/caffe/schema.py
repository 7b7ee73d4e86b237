"""Caffe's wire format: names, numbers, types and defaults of the fields that conversion reads, as protobuf classes.

The facts are those of BVLC's format; what only training reads is left out: protobuf skips it in binary files, and
`prototxt` judges it in text. The classes have a pool of their own: another caffe.proto in the process is no clash.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Each field: type (* repeated), name, number, and the default where it is not zero.
_MESSAGES = {
    "BlobShape": "int64* dim 1",
    # Packed floats are, on the wire, bytes of little-endian numbers: read as such they become arrays without a loop.
    "BlobProto": """BlobShape shape 7; bytes* data 5; bytes* double_data 8
        int32 num 1; int32 channels 2; int32 height 3; int32 width 4""",
    "NetParameter": """string name 1; string* input 3; BlobShape* input_shape 8; int32* input_dim 4
        LayerParameter* layer 100; V1LayerParameter* layers 2""",
    "NetStateRule": "Phase phase 1; int32 min_level 2; int32 max_level 3; string* stage 4; string* not_stage 5",
    "LayerParameter": """string name 1; string type 2; string* bottom 3; string* top 4
        NetStateRule* include 8; NetStateRule* exclude 9; BlobProto* blobs 7
        BatchNormParameter batch_norm_param 139; ConcatParameter concat_param 104
        ConvolutionParameter convolution_param 106; CropParameter crop_param 144; DropoutParameter dropout_param 108
        EltwiseParameter eltwise_param 110; FlattenParameter flatten_param 135
        InnerProductParameter inner_product_param 117; InputParameter input_param 143; LRNParameter lrn_param 118
        PoolingParameter pooling_param 121; PowerParameter power_param 122; PReLUParameter prelu_param 131
        ReLUParameter relu_param 123; ReshapeParameter reshape_param 133; ScaleParameter scale_param 142
        EngineParameter sigmoid_param 124; SliceParameter slice_param 126; SoftmaxParameter softmax_param 125
        EngineParameter tanh_param 127""",
    "V1LayerParameter": """string name 4; V1Type type 5; string* bottom 2; string* top 3
        NetStateRule* include 32; NetStateRule* exclude 33; BlobProto* blobs 6
        ConcatParameter concat_param 9; ConvolutionParameter convolution_param 10; DropoutParameter dropout_param 12
        EltwiseParameter eltwise_param 24; InnerProductParameter inner_product_param 17; LRNParameter lrn_param 18
        PoolingParameter pooling_param 19; PowerParameter power_param 21; ReLUParameter relu_param 30
        EngineParameter sigmoid_param 38; SliceParameter slice_param 31; SoftmaxParameter softmax_param 39
        EngineParameter tanh_param 37""",
    "FillerParameter": """string type 1; float value 2; float min 3; float max 4; float mean 5; float std 6
        int32 sparse 7; VarianceNorm variance_norm 8""",
    "BatchNormParameter": "bool use_global_stats 1; float moving_average_fraction 2; float eps 3 1e-5",
    "ConcatParameter": "int32 axis 2 1; uint32 concat_dim 1",
    # The sizes of a pooling window are single in Caffe; repeated, they read like a convolution's.
    "ConvolutionParameter": """uint32 num_output 1; bool bias_term 2 true; uint32 group 5 1; int32 axis 16 1
        uint32* pad 3; uint32* kernel_size 4; uint32* stride 6; uint32* dilation 18
        uint32 pad_h 9; uint32 pad_w 10; uint32 kernel_h 11; uint32 kernel_w 12; uint32 stride_h 13; uint32 stride_w 14
        FillerParameter weight_filler 7; FillerParameter bias_filler 8; Engine engine 15; bool force_nd_im2col 17""",
    "CropParameter": "int32 axis 1 2; uint32* offset 2",
    "DropoutParameter": "float dropout_ratio 1",
    "EltwiseParameter": "EltwiseOp operation 1 SUM; float* coeff 2; bool stable_prod_grad 3",
    "EngineParameter": "Engine engine 1",
    "FlattenParameter": "int32 axis 1 1; int32 end_axis 2 -1",
    "InnerProductParameter": """uint32 num_output 1; bool bias_term 2 true; int32 axis 5 1; bool transpose 6
        FillerParameter weight_filler 3; FillerParameter bias_filler 4""",
    "InputParameter": "BlobShape* shape 1",
    "LRNParameter": """uint32 local_size 1 5; float alpha 2 1; float beta 3 0.75; NormRegion norm_region 4; float k 5 1
        Engine engine 6""",
    "PReLUParameter": "FillerParameter filler 1; bool channel_shared 2",
    "PoolingParameter": """PoolMethod pool 1; uint32* pad 4; uint32* kernel_size 2; uint32* stride 3
        uint32 pad_h 9; uint32 pad_w 10; uint32 kernel_h 5; uint32 kernel_w 6; uint32 stride_h 7; uint32 stride_w 8
        Engine engine 11; bool global_pooling 12; RoundMode round_mode 13""",
    "PowerParameter": "float power 1 1; float scale 2 1; float shift 3",
    "ReLUParameter": "float negative_slope 1; Engine engine 2",
    "ReshapeParameter": "BlobShape shape 1; int32 axis 2; int32 num_axes 3 -1",
    "ScaleParameter": """int32 axis 1 1; int32 num_axes 2 1; bool bias_term 4
        FillerParameter filler 3; FillerParameter bias_filler 5""",
    "SliceParameter": "int32 axis 3 1; uint32* slice_point 2; uint32 slice_dim 1",
    "SoftmaxParameter": "Engine engine 1; int32 axis 2 1",
}
_ENUMS = {
    "Phase": "TRAIN=0 TEST=1",
    "Engine": "DEFAULT=0 CAFFE=1 CUDNN=2",
    "VarianceNorm": "FAN_IN=0 FAN_OUT=1 AVERAGE=2",
    "EltwiseOp": "PROD=0 SUM=1 MAX=2",
    "NormRegion": "ACROSS_CHANNELS=0 WITHIN_CHANNEL=1",
    "PoolMethod": "MAX=0 AVE=1 STOCHASTIC=2",
    "RoundMode": "CEIL=0 FLOOR=1",
    "V1Type": """NONE=0 ACCURACY=1 BNLL=2 CONCAT=3 CONVOLUTION=4 DATA=5 DROPOUT=6 EUCLIDEAN_LOSS=7 FLATTEN=8 HDF5_DATA=9
        HDF5_OUTPUT=10 IM2COL=11 IMAGE_DATA=12 INFOGAIN_LOSS=13 INNER_PRODUCT=14 LRN=15 MULTINOMIAL_LOGISTIC_LOSS=16
        POOLING=17 RELU=18 SIGMOID=19 SOFTMAX=20 SOFTMAX_LOSS=21 SPLIT=22 TANH=23 WINDOW_DATA=24 ELTWISE=25 POWER=26
        SIGMOID_CROSS_ENTROPY_LOSS=27 HINGE_LOSS=28 MEMORY_DATA=29 ARGMAX=30 THRESHOLD=31 DUMMY_DATA=32 SLICE=33 MVN=34
        ABSVAL=35 SILENCE=36 CONTRASTIVE_LOSS=37 EXP=38 DECONVOLUTION=39""",
}
# The names that today's format has for the types of the first (V1), where title case is not the answer.
V1_NAMES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}


def _net_parameter() -> Any:
    """The class of caffe.NetParameter, made without protoc."""
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
        for line in fields.replace("\n", ";").split(";"):
            if not line.strip():
                continue
            kind, field, number, *default = line.split()
            repeated = kind.endswith("*")
            kind = kind.removesuffix("*")
            added = message.field.add(name=field, number=int(number))
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
