"""Any video as a painting, with one command: decode, optical flow, frames by artistic_video.lua's method, encode.

Comes in: a video, a GIF or a folder of frames, and a style; goes out: the same, painted. Nothing here has an
original. It imports artistic_video and fast_neural_style, and, when a video is opened, PyAV and OpenCV from the
extra `video`.
"""
