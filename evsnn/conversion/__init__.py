"""From a trained ReLU network to a spiking one.

``onnx_import``   model.onnx -> `Graph`
``operators``     what each ONNX operator computes, in NumPy
``evaluate``      the source ANN's forward pass over a `Graph`
``lowering``      `Graph` -> `Ann`: everything linear folded into evsnn's layers
``ann``           `Ann`, and its forward pass
"""
