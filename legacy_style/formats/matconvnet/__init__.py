"""MatConvNet's networks: `reader` takes a .mat file apart, `layers` turns its layers into Caffe's, `node` is what
both see of a MATLAB value.
"""
