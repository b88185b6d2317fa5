"""From a trained ReLU network to a spiking one.

``onnx_import``   model.onnx -> `Graph`
``model_file``    the file, its tensors and attributes, checked
``boundary``      where the network in the file begins and ends
``upgrade``       older forms of operators into the newest
``folding``       operators on constants
``rules``         what an operator may do in a network that is converted, and its one form
``refusals``      what to do about operators that are not converted
``operators``     what each ONNX operator computes, in NumPy
``dense``         convolution as matrix products
``windows``       where windows of convolutions and pools lie
``evaluate``      the source ANN's forward pass over a `Graph`
``lowering``      `Graph` -> `Ann`: everything linear folded into evsnn's layers, by the rules of
                  ``weighted_rules``, ``elementwise_rules``, ``pooling_rules`` and ``layout_rules``
``value``         a tensor while it is lowered: ``expression`` (sums of convolutions, each a ``kernel``)
                  and where its elements lie; ``state`` holds them, ``assembly`` the layers made so far
``ann``           `Ann`, and its forward pass
``options``       what is asked of a conversion; a `Recipe` for one T
``statistics``    how large activations are, measured or from batch norms
``thresholds``    firing thresholds from them, by a rule
``currents``      what charges a population, densely, for many samples and steps
``correction``    layer-by-layer bias correction
``balance``       thresholds and corrections become a `Network`
``selection``     choosing a recipe by held-out inputs
``conversion``    the whole way: `convert`, `convert_model`
``comparison``    the ANN and its SNN on the same inputs, layer by layer
``diagnosis``     what is wrong with a layer, in a line
``sweep``         what more steps bring and cost
``report``        what a conversion loses, where, why, and what it costs
``picture``       the report's figure
``calibration``   calibration sets, larger than memory
``validation``    ANN and spiking network on samples that took no part
``summary``       what the command says, and the file's metadata
"""
