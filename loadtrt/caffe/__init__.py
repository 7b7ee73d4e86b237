"""Caffe networks (deploy.prototxt, .caffemodel) to ONNX: TensorRT dropped its own Caffe parser after 8.6.

Import it where it is used: it needs numpy, onnx and protobuf.
"""

from loadtrt.caffe.network import convert

__all__ = ["convert"]
