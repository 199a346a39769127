"""Caffe file formats, read with numpy alone: no protobuf, no Caffe, no torch."""
