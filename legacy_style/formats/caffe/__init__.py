"""Caffe file formats, read and written with numpy alone: no protobuf, no Caffe, no torch."""
